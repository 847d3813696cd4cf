/**
 * A listener to the log: the contract of the four transports, and the parts that they share.
 *
 * The transports differ in when they read. Each has a cursor, its place in the log, and after any failure of its
 * connection it reads on after that cursor. So there is no code for "resume", "replay" or "catch up": a start is a
 * resume from a new cursor.
 *
 * The contract:
 *   start(cursor)   listen from there; without an argument, from where it stopped
 *   cut()           close the connection, and keep the cursor
 *   onMessages, onGap, onState   calls of its listener
 *   counters        its requests, messages and bytes so far
 *   spans           its latest requests and connections, to be drawn
 *
 * To add one, extend `Transport`, write `open` and `close`, and call `asked`, `opened`, `received`, `answered` and `lost`;
 * then name it in `transports.js`.
 */

/**
 * @typedef {"idle" | "connecting" | "live" | "waiting" | "cut"} State
 *   `waiting` is the pause before the next attempt after a failure.
 *
 * @typedef {object} Message
 * @property {string} id the cursor just after this message
 * @property {string} channel
 * @property {any} data
 * @property {string | null} event
 * @property {number} time when it was appended: Unix seconds, the server's clock
 *
 * @typedef {object} Gap what is missing, said instead of passed over in silence
 * @property {string} channel
 * @property {"expired" | "epoch" | "slow" | "unknown"} reason
 * @property {string | null} missed_from
 * @property {string | null} missed_to
 * @property {string} cursor where the stream goes on
 *
 * @typedef {object} Listener
 * @property {(messages: Message[]) => void} onMessages
 * @property {(gap: Gap) => void} onGap
 * @property {(state: State, detail: string) => void} onState
 * @property {(message: Message) => number} localTime its time on this browser's clock, in milliseconds
 * @property {(seen: Seen) => void} [onSeen] what has gone over a connection, to be explained
 *
 * @typedef {{kind: "asked", url: URL, accept: string} | {kind: "answered", response: Response, body: string}
 *   | {kind: "event", type: string, id: string, data: string}
 *   | {kind: "opened", extensions: string} | {kind: "frame", sent: boolean, data: string}} Seen
 *   A request; an answer that has ended; an event of a stream; a WebSocket that is open; a frame of it.
 *
 * @typedef {import("./exchange.js").Span} Span
 *
 * @typedef {string | Record<string, string> | null} Place
 *   One cursor for all channels; on a WebSocket, one for each. `null` before the first is known.
 */

import { now } from "./clock.js";
import { address } from "./dom.js";

/**
 * A new listener begins with this much of the log, so that the tape is not empty: a minute at four a second.
 */
const HISTORY = 240;

/** Exchanges remembered, to be drawn: of the busiest transport, more than the picture shows. */
const SPANS = 64;

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 10_000;

/**
 * How long to wait before attempt number `attempt` (from 0). Half of it is random, so that a thousand clients
 * that lost the same server don't return in the same instant.
 * @param {number} attempt
 */
export function backoff(attempt) {
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** attempt);
  return ceiling * (0.5 + Math.random() / 2);
}

export class Transport {
  /** @type {State} */
  state = "idle";

  /** @type {Place} */
  cursor = null;

  /** When the present connection began, on this browser's clock. What is older than that was caught up. */
  attachedAt = 0;

  /** Milliseconds that are added to each way of a request, to try what distance does. */
  distance = 0;

  counters = { messages: 0, requests: 0, empty: 0, bytes: 0 };

  /** @type {Span[]} */
  spans = [];

  #attempt = 0;
  #timer = 0;

  /**
   * @param {readonly string[]} channels
   * @param {Listener} listener
   */
  constructor(channels, listener) {
    this.channels = channels;
    this.listener = listener;
  }

  /** Listen from `cursor`. Does nothing while it already listens. */
  start(cursor = this.cursor) {
    if (this.state !== "idle" && this.state !== "cut") return;
    this.cursor = cursor;
    this.#attempt = 0;
    this.#connect();
  }

  /** Close the connection for real. The cursor stays. */
  cut() {
    clearTimeout(this.#timer);
    this.ended();
    this.close();
    this.enter("cut");
  }

  // What a transport writes

  /** Begin a connection, or the first request. */
  open() {
    throw new Error("a transport writes open()");
  }

  /** End it. Must be harmless when there is none, and nothing may be reported after it. */
  close() {
    throw new Error("a transport writes close()");
  }

  // What a transport calls

  /** A request goes out. Its connection is open from now on. @param {number} at on this browser's clock */
  asked(at) {
    this.counters.requests += 1;
    this.held(at);
  }

  /** The server holds a connection for it from now on. @param {number} at on this browser's clock */
  held(at) {
    this.ended(at);
    this.spans.push({ from: at, to: Infinity, messages: -1 });
    if (this.spans.length > SPANS) this.spans.shift();
  }

  /** Its connection is gone. @param {number} [at] on this browser's clock */
  ended(at = now()) {
    if (this.isHeld) /** @type {Span} */ (this.spans.at(-1)).to = at;
  }

  get isHeld() {
    return this.spans.at(-1)?.to === Infinity;
  }

  /**
   * The request that went out last has been answered. A stream never is.
   * @param {number} at on this browser's clock
   * @param {number} messages how many the answer had
   */
  answered(at, messages) {
    const span = this.spans.at(-1);
    if (span) Object.assign(span, { to: at, messages });
    if (messages === 0) this.counters.empty += 1;
  }

  /** @param {number} at when the connection was asked for or made, on this browser's clock */
  opened(at) {
    this.attachedAt = at;
    this.enter("live");
  }

  /**
   * @param {Message[]} messages in order
   */
  received(messages) {
    this.#attempt = 0;
    if (messages.length === 0) return;
    this.counters.messages += messages.length;
    this.listener.onMessages(messages);
  }

  /**
   * The connection failed: try again after a while, from the cursor.
   * @param {string} why
   * @param {number} [atLeast] milliseconds that the server asked for
   */
  lost(why, atLeast = 0) {
    this.ended();
    this.close();
    const pause = Math.max(backoff(this.#attempt), atLeast);
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), pause);
    this.enter("waiting", why);
  }

  /**
   * @param {State} state
   * @param {string} [detail]
   */
  enter(state, detail = "") {
    if (state === this.state) return;
    this.state = state;
    this.listener.onState(state, detail);
  }

  /**
   * The channels' URL with the place to read from, and what else is asked.
   * @param {Record<string, string | number>} [query]
   */
  url(query = {}) {
    const url = address(`v1/channels/${this.channels.join(",")}`);
    if (typeof this.cursor === "string") url.searchParams.set("after", this.cursor);
    else url.searchParams.set("last", String(HISTORY));
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, String(value));
    return url;
  }

  #connect() {
    this.enter("connecting");
    this.open();
  }
}
