/**
 * Texts of the wire, read and written: cursors, starts, messages. Pure: no clock, no network.
 * To read another field of a message, add it to `types.d.ts`; `itemOf` passes on what it does not know.
 */

import { numberOf } from "./options.js";

/** @import { Item, Start } from "./internal.js" */
/** @import { Gap } from "./types.js" */

const CURSOR = /^(\w{1,32})-(0|[1-9]\d{0,18})$/;
const CHANNEL = /^[A-Za-z0-9][\w.:@-]{0,127}$/;
const LAST_MAX = 2 ** 31; // far more than any server keeps of a channel
const SINCE_MAX = 1e12; // seconds; later times would be written with an exponent
const LONE_SURROGATE = /(?:^|[^\\])(?:\\\\)*\\ud[89a-f]/;
const SEQS = 2n ** 63n; // a seq is below that, so it may exceed what a number holds

/** @param {unknown} text @returns {[epoch: string, seq: bigint] | null} */
export function parseCursor(text) {
  const found = typeof text === "string" && CURSOR.exec(text);
  return found && BigInt(found[2]) < SEQS ? [found[1], BigInt(found[2])] : null;
}

/** A cursor, which must be one. @param {any} text @param {string} [name] @returns {string} */
function checkCursor(text, name = "the cursor") {
  if (!parseCursor(text)) throw new TypeError(`${name} must be a cursor as the server gave it, not ${JSON.stringify(text)}`);
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

/** @param {unknown} channel @returns {string} */
export function checkChannel(channel) {
  if (typeof channel === "string" && CHANNEL.test(channel)) return channel;
  throw new TypeError(`"${channel}" is no channel name: use 1 to 128 of A-Z a-z 0-9 . _ : @ - and start with a letter or digit`);
}

/**
 * Where to start, from the options of `subscribe` and `history`: `after`, `last` or `since`.
 * @param {{ after?: any, last?: any, since?: any }} options
 * @param {string} otherwise
 * @returns {Start}
 */
export function startOf({ after, last, since }, otherwise) {
  if ([after, last, since].filter((value) => value !== undefined).length > 1) {
    throw new TypeError("after, last and since exclude each other: give one of them");
  }
  if (last !== undefined) return { last: numberOf("last", last, 0, LAST_MAX, true) };
  if (since !== undefined) return { since: Math.round(numberOf("since", since, 0, SINCE_MAX) * 1e6) / 1e6 };
  if (after === undefined) return otherwise;
  return after === "latest" || after === "earliest" ? after : checkCursor(after, "after");
}

/** The field of a query or a frame that says where to start. @param {Start} start @returns {Record<string, any>} */
export function startFields(start) {
  return typeof start === "string" ? { after: start } : start;
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
 * it has reported the gap before. And it may say that a cursor is ahead of the log. Throws where it names no cursor.
 * @param {string} cursor @param {Start} place @param {Item} [item]
 */
export function goesOn(cursor, place, item) {
  const { reason, missed_to: last } = /** @type {Partial<Gap>} */ (item ?? {});
  // A hole of the log that ends before the place was passed already: another channel of the stream begins further back.
  return !(compare(checkCursor(cursor), place) <= 0) || (reason === "unknown" && !(last && compare(last, place) < 0));
}

/**
 * The line of a batch that publishes a message. Throws a `TypeError` where JSON would not give the values back.
 * @param {{ channel: string, data: unknown, event?: string, key?: string }} message
 * @returns {string}
 */
export function lineOf({ channel, data, event, key }) {
  for (const [name, text] of Object.entries({ event, key })) {
    if (text !== undefined && typeof text !== "string") throw new TypeError(`${name} must be a string`);
  }
  if (data instanceof ArrayBuffer) data = new Uint8Array(data);
  const fields = data instanceof Uint8Array ? { data64: base64(data) } : { data };
  if (data === undefined) throw new TypeError("data must not be undefined: publish null");
  const line = JSON.stringify({ channel: checkChannel(channel), ...fields, event, key }, checkValue);
  // JSON.stringify writes half of a surrogate pair as an escape, and nothing else that begins with \ud.
  if (LONE_SURROGATE.test(line)) throw new TypeError("half of a surrogate pair is no text: UTF-8 cannot hold it");
  return line;
}

/** As a replacer of `JSON.stringify`. @this {any} @param {string} name @param {unknown} value */
function checkValue(name, value) {
  const was = this[name];
  const kind = Object.prototype.toString.call(value);
  const isField = value === undefined && was === undefined && !Array.isArray(this); // left out, as everywhere
  const faithful =
    isField ||
    ["boolean", "string"].includes(typeof value) ||
    (typeof value === "number" ? Number.isFinite(value) : kind === "[object Object]" || Array.isArray(value)) ||
    (value === null && was === null);
  if (!faithful) throw new TypeError(`JSON has no ${String(was)} (${kind.slice(8, -1)}, at "${name}"): publish it as text`);
  return value;
}

/** @param {Uint8Array} bytes */
function base64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}
