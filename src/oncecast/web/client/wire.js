/**
 * Texts of the wire, read and written: cursors, starts, messages, event streams. Pure: no clock, no network.
 * To read another field of a message, add it to `types.d.ts`; `itemOf` passes on what it does not know.
 */

/** @import { Gap, Item, Start } from "./types.js" */

const CURSOR = /^(\w{1,32})-(0|[1-9]\d{0,18})$/;
const CHANNEL = /^[A-Za-z0-9][\w.:@-]{0,127}$/;
const LAST_SEQ = "9223372036854775807";

/** @param {unknown} text @returns {[epoch: string, seq: string] | null} */
export function parseCursor(text) {
  const found = typeof text === "string" && CURSOR.exec(text);
  return found && (found[2].length < 19 || found[2] <= LAST_SEQ) ? [found[1], found[2]] : null;
}

/**
 * How far `a` is after `b`: above, below or equal to 0, or NaN where they can't be compared: they are of different
 * lives of the log, or one is no cursor. A seq may exceed what a number holds, so it is compared as text.
 * @param {Start} a @param {Start} b
 */
export function compare(a, b) {
  const [x, y] = [parseCursor(a), parseCursor(b)];
  if (!x || !y || x[0] !== y[0]) return NaN;
  return x[1].length - y[1].length || (x[1] < y[1] ? -1 : Number(x[1] > y[1]));
}

/** @param {string} channel */
export function checkChannel(channel) {
  if (!CHANNEL.test(channel)) throw new TypeError(`"${channel}" is not a channel name`);
  return channel;
}

/** The field of a query or a frame that says where to start. @param {Start} start @returns {Record<string, any>} */
export function startFields(start) {
  if (typeof start !== "string") return start;
  if (start !== "latest" && start !== "earliest" && !parseCursor(start)) {
    throw new TypeError(`"${start}" is no cursor, "latest" or "earliest"`);
  }
  return { after: start };
}

/** A message or a gap, as the page gets it. @param {any} wire @returns {Item} */
export function itemOf({ type, data64, ...item }) {
  if (data64) item.data = Uint8Array.from(atob(data64.base64), (byte) => byte.charCodeAt(0));
  return item;
}

/** A gap has a reason, a message never has. @param {Item} item @returns {item is Gap} */
export function isGap(item) {
  return "reason" in item;
}

/**
 * Whether an item, or only a cursor, goes on from `place`. Where the two can't be compared, the server's word counts:
 * it has told of the gap before. And it may say that a cursor is ahead of the log.
 * @param {string} cursor @param {Start} place @param {Item} [item]
 */
export function goesOn(cursor, place, item) {
  return !(compare(cursor, place) <= 0) || (item !== undefined && isGap(item) && item.reason === "unknown");
}

/** @param {unknown} data what to publish @returns {{ data: unknown } | { data64: string }} */
export function dataFields(data) {
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  if (!(data instanceof Uint8Array)) return { data: data ?? null };
  let bytes = "";
  for (const byte of data) bytes += String.fromCharCode(byte);
  return { data64: btoa(bytes) };
}

/**
 * An event stream, however its text is cut (HTML Living Standard §9.2.6). `onEvent` hears of each blank line, also of
 * those after which a browser fires nothing: an id without data is a cursor. `data` is null there.
 */
export class EventStream {
  id = "";
  /** @type {number | null} */
  retry = null;
  #rest = "";
  #afterReturn = false;
  #id = "";
  #event = "";
  /** @type {string[]} */
  #data = [];

  /** @param {(event: { id: string, event: string, data: string | null }) => void} onEvent */
  constructor(onEvent) {
    this.onEvent = onEvent;
  }

  /** @param {string} text */
  push(text) {
    if (!text) return;
    // A line may end with CR LF, and the cut be between the two: this LF ends no line of its own.
    if (this.#afterReturn && text[0] === "\n") text = text.slice(1);
    this.#afterReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = /** @type {string} */ (lines.pop());
    for (const line of lines) this.#line(line);
  }

  /** @param {string} line */
  #line(line) {
    if (line === "") return this.#dispatch();
    const [, name, value] = /** @type {RegExpExecArray} */ (/^([^:]*):? ?(.*)$/s.exec(line));
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
  }

  #dispatch() {
    const data = this.#data.length ? this.#data.join("\n") : null;
    const event = this.#event || "message";
    this.#data = [];
    this.#event = "";
    this.id = this.#id;
    this.onEvent({ id: this.id, event, data });
  }
}
