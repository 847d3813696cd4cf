/**
 * Texts of the wire, read and written: cursors, starts, messages, event streams. Pure: no clock, no network.
 * To read another field of a message, add it to `types.d.ts`; `itemOf` passes on what it does not know.
 */

/** @import { Gap, Item, Start } from "./types.js" */

const CURSOR = /^(\w{1,32})-(0|[1-9]\d{0,18})$/;
const CHANNEL = /^[A-Za-z0-9][\w.:@-]{0,127}$/;
const SEQS = 2n ** 63n; // a seq is below that, so it may exceed what a number holds

/** @param {unknown} text @returns {[epoch: string, seq: bigint] | null} */
export function parseCursor(text) {
  const found = typeof text === "string" && CURSOR.exec(text);
  return found && BigInt(found[2]) < SEQS ? [found[1], BigInt(found[2])] : null;
}

/** A cursor, which must be one. @param {any} text @returns {string} */
function checkCursor(text) {
  if (!parseCursor(text)) throw new TypeError(`"${text}" is no cursor`);
  return text;
}

/**
 * How far `a` is after `b`: above, below or equal to 0, or NaN where they can't be compared: they are of different
 * lives of the log, or one is no cursor.
 * @param {unknown} a @param {unknown} b
 */
export function compare(a, b) {
  const [x, y] = [parseCursor(a), parseCursor(b)];
  if (!x || !y || x[0] !== y[0]) return NaN;
  return Number(x[1] - y[1]);
}

/** @param {string} channel */
export function checkChannel(channel) {
  if (!CHANNEL.test(channel)) throw new TypeError(`"${channel}" is not a channel name`);
  return channel;
}

/** The field of a query or a frame that says where to start. @param {Start} start @returns {Record<string, any>} */
export function startFields(start) {
  if (typeof start !== "string") return start;
  return { after: start === "latest" || start === "earliest" ? start : checkCursor(start) };
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
 * it has told of the gap before. And it may say that a cursor is ahead of the log. Throws where it names no cursor.
 * @param {string} cursor @param {Start} place @param {Item} [item]
 */
export function goesOn(cursor, place, item) {
  return !(compare(checkCursor(cursor), place) <= 0) || /** @type {Gap | undefined} */ (item)?.reason === "unknown";
}

/** @param {unknown} data what to publish @returns {{ data: unknown } | { data64: string }} */
export function dataFields(data) {
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  if (!(data instanceof Uint8Array)) return { data: data ?? null };
  return { data64: btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join("")) };
}

/**
 * Read an event stream, however its text is cut (HTML Living Standard §9.2.6); returns what takes the text. `onEvent`
 * hears of each blank line, also of those after which a browser fires nothing: an id without data is a cursor. `data`
 * is null there. An event's name is left out, as the client reads it from the message.
 * @param {(id: string, data: string | null) => void} onEvent
 * @param {(milliseconds: number) => void} onRetry
 * @returns {(text: string) => void}
 */
export function readEvents(onEvent, onRetry) {
  let rest = "";
  let id = "";
  /** @type {string[]} */
  let data = [];
  let afterReturn = false;
  return (text) => {
    if (!text) return;
    // A line may end with CR LF, and the cut be between the two: this LF ends no line of its own.
    const lines = (rest + text.replace(afterReturn ? /^\n/ : "", "")).split(/\r\n|\r|\n/);
    afterReturn = text.endsWith("\r");
    rest = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      const [, name, value] = /** @type {RegExpExecArray} */ (/^([^:]*):? ?(.*)$/s.exec(line));
      if (!line) {
        onEvent(id, data.length ? data.join("\n") : null);
        data = [];
      }
      if (name === "data") data.push(value);
      if (name === "id" && !value.includes("\0")) id = value;
      if (name === "retry" && /^\d+$/.test(value)) onRetry(Number(value));
    }
  };
}
