/**
 * Four ways to listen to the same log, behind one contract.
 *
 * They differ in when they read. Everything else is shared: each holds a cursor, its place in the log, and whatever
 * happens to its connection, it goes on by asking for what comes after that cursor. So there is no code here for
 * "resume", "replay" or "catch up": starting is resuming, from a cursor that happens to be new.
 *
 * The contract:
 *   start(cursor)   listen from there; without an argument, from where it stopped
 *   cut()           really close the connection, and keep the cursor
 *   onMessages, onGap, onState   what it tells its listener
 *   counters        what it has cost so far
 *
 * To add a transport, extend `Transport`, write `open` and `close`, and call `opened`, `received` and `lost`.
 */

import { now } from "./clock.js";

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
 * @property {(message: Message) => number} localTime a message's time on this browser's clock, in milliseconds
 *
 * @typedef {string | Record<string, string> | null} Place
 *   One cursor for all channels; on a WebSocket, one for each. `null` before the first is known.
 */

/** A new listener begins with this much of the log, so that its chart is not empty: a minute at four a second. */
const HISTORY = 240;

const SHORT_POLL_MS = 1_000;
const LONG_POLL_SECONDS = 25;

/** A poll that has not answered this long after it should have is given up. */
const GRACE_MS = 10_000;

/** A WebSocket's heartbeats come more often than this. Silence for longer means a connection that died unnoticed. */
const SILENCE_MS = 75_000;

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 10_000;

const utf8 = new TextEncoder();

/**
 * How long to wait before attempt number `attempt` (from 0). Half of it is random, so that a thousand clients that
 * lost the same server don't return in the same instant.
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

  counters = { messages: 0, requests: 0, bytes: 0 };

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
    const url = new URL(`/v1/channels/${this.channels.join(",")}`, location.href);
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

/** Both kinds of polling: ask, take the answer, rest, ask again from the answer's cursor. */
class Poll extends Transport {
  /** @type {AbortController | null} */
  #abort = null;

  /** What it asks besides its place. @type {Record<string, string | number>} */
  query = {};

  /** Milliseconds within which an answer must have come. */
  patience = GRACE_MS;

  /**
   * Milliseconds to rest before the next request.
   * @param {Message[]} messages those of the last answer
   * @param {number} asked when it was asked for
   * @returns {number}
   */
  rest(messages, asked) {
    return 0;
  }

  async open() {
    const abort = new AbortController();
    this.#abort = abort;
    try {
      while (this.#abort === abort) {
        const asked = now();
        const answer = await this.#ask(abort);
        if (this.#abort !== abort) return;
        if (this.state !== "live") this.opened(asked);
        // Gaps first: a gap stands before the messages that follow it.
        for (const gap of gapsOf(answer)) this.listener.onGap(gap);
        if (answer.cursor) this.cursor = answer.cursor;
        this.received(answer.messages);
        await sleep(this.rest(answer.messages, asked));
      }
    } catch (error) {
      if (this.#abort === abort) this.lost(error.message, error.retryAfter);
    }
  }

  close() {
    const abort = this.#abort;
    this.#abort = null;
    abort?.abort();
  }

  /** @param {AbortController} abort */
  async #ask(abort) {
    const deadline = setTimeout(() => abort.abort(new Error("no answer in time")), this.patience);
    this.counters.requests += 1;
    try {
      const response = await fetch(this.url(this.query), { signal: abort.signal, cache: "no-store" });
      const body = await response.arrayBuffer();
      this.counters.bytes += body.byteLength;
      if (response.status === 304) return { messages: [], cursor: null };
      if (!response.ok) throw refusal(response, body);
      return JSON.parse(new TextDecoder().decode(body));
    } finally {
      clearTimeout(deadline);
    }
  }
}

/** Reads the log now, and again a second later. */
export class ShortPoll extends Poll {
  rest(messages, asked) {
    // An answer holds a bounded number of messages. If its newest is old, there are more: don't dawdle.
    const newest = messages.at(-1);
    const behind = newest !== undefined && asked - this.listener.localTime(newest) > 2 * SHORT_POLL_MS;
    return behind ? 0 : Math.max(0, SHORT_POLL_MS - (now() - asked));
  }
}

/** Reads the log now, or waits for the next message. */
export class LongPoll extends Poll {
  query = { wait: LONG_POLL_SECONDS };
  patience = LONG_POLL_SECONDS * 1000 + GRACE_MS;
}

/** Reads the log for ever, with the browser's own `EventSource`, which also reconnects by itself. */
export class ServerSentEvents extends Transport {
  /** @type {EventSource | null} */
  #source = null;

  #names = new Set(["message", "gap", "open", "error"]);

  /**
   * Hear a named event, too. An `EventSource` gives a message with an `event` only to those who listen for that
   * name, and has no way to listen for all of them.
   * @param {string | null} name
   */
  listenFor(name) {
    if (!name || this.#names.has(name)) return;
    this.#names.add(name);
    this.#source?.addEventListener(name, this.#take);
  }

  open() {
    // A new EventSource can't be given a Last-Event-ID, so the cursor goes into the URL. Whenever the browser
    // reconnects by itself, it sends the Last-Event-ID that it has seen, and the server lets that win.
    const source = new EventSource(this.url());
    this.#source = source;
    this.counters.requests += 1;
    for (const name of this.#names) source.addEventListener(name, this.#take);
    source.addEventListener("open", (event) => {
      if (!(event instanceof MessageEvent)) this.opened(now());
    });
    source.addEventListener("error", (event) => {
      if (event instanceof MessageEvent) return;
      if (source.readyState === EventSource.CLOSED) return this.lost("the stream was refused");
      this.counters.requests += 1; // the browser will ask again, after the pause that `retry:` named
      this.enter("waiting", "the stream ended; the browser reconnects");
    });
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  /**
   * One event. A message may be called "open", "error" or "gap" as well, so what an event is, is read from what it
   * carries: only messages and gaps are `MessageEvent`s, and only a gap has a reason.
   * @param {Event} event
   */
  #take = (event) => {
    if (!(event instanceof MessageEvent)) return;
    this.counters.bytes += sseBytes(event);
    this.cursor = event.lastEventId || this.cursor;
    const content = JSON.parse(event.data);
    if (event.type === "gap" && "reason" in content) this.listener.onGap(content);
    else this.received([content]);
  };
}

/** Reads the log for ever, in frames. Could publish on the same connection, too. */
export class WebSockets extends Transport {
  /** @type {WebSocket | null} */
  #socket = null;

  #watchdog = 0;

  open() {
    // The first time, the URL names the channels. To resume, each channel is subscribed to from its own cursor:
    // during a catch-up one channel can be ahead of another, and a single cursor would skip what the other lacks.
    const places = /** @type {Record<string, string> | null} */ (this.cursor);
    const url = places ? new URL("/v1/connect", location.href) : this.url();
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url, "oncecast.v1");
    this.#socket = socket;
    this.counters.requests += 1;
    socket.onopen = () => {
      for (const channel of places ? this.channels : []) {
        socket.send(JSON.stringify({ type: "subscribe", channel, after: places[channel] }));
      }
      this.opened(now());
      this.#watch();
    };
    socket.onmessage = ({ data }) => {
      this.#watch();
      this.counters.bytes += utf8.encode(data).length;
      this.#frame(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => this.lost(`closed with ${code}${reason && `: ${reason}`}`);
  }

  close() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** @param {any} frame of the subprotocol oncecast.v1 */
  #frame(frame) {
    switch (frame.type) {
      case "message":
        this.#move(frame.channel, frame.id);
        return this.received([frame]);
      case "gap":
        this.#move(frame.channel, frame.cursor);
        return this.listener.onGap(frame);
      case "subscribed":
        return this.#move(frame.channel, frame.cursor);
      case "cursor":
        for (const channel of this.channels) this.#move(channel, frame.cursor);
        return;
      case "drain":
        return this.lost("the server is about to stop", frame.retry_after_ms);
      case "error":
        return this.lost(`${frame.code}: ${frame.message}`);
    }
  }

  /**
   * @param {string} channel
   * @param {string} cursor
   */
  #move(channel, cursor) {
    this.cursor = { ...(/** @type {object} */ (this.cursor)), [channel]: cursor };
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.lost("silent for too long"), SILENCE_MS);
  }
}

/** @param {{gap?: Gap | null, gaps?: Gap[]}} answer @returns {Gap[]} */
function gapsOf({ gap, gaps }) {
  if (gaps?.length) return gaps;
  return gap ? [gap] : [];
}

/**
 * What a refused request says, as an error that knows how long to wait.
 * @param {Response} response
 * @param {ArrayBuffer} body
 */
function refusal(response, body) {
  let said = `HTTP ${response.status}`;
  try {
    const { code, message } = JSON.parse(new TextDecoder().decode(body)).error;
    said = `${code}: ${message}`;
  } catch {
    // Not our JSON, perhaps a proxy's page: the status has to do.
  }
  return Object.assign(new Error(said), { retryAfter: 1000 * Number(response.headers.get("Retry-After") ?? 0) || 0 });
}

/**
 * The bytes of an event as it stood on the wire. `EventSource` shows no bytes, but an event's fields determine
 * them; comments, heartbeats and `retry:` stay unseen.
 * @param {MessageEvent} event
 */
function sseBytes({ type, data, lastEventId }) {
  const lines = data.split("\n");
  const name = type === "message" ? 0 : utf8.encode(type).length + "event: \n".length;
  const text = lines.reduce((sum, line) => sum + utf8.encode(line).length + "data: \n".length, 0);
  return "id: \n".length + lastEventId.length + name + text + "\n".length;
}

/** @param {number} milliseconds */
function sleep(milliseconds) {
  return milliseconds > 0 ? new Promise((resolve) => setTimeout(resolve, milliseconds)) : Promise.resolve();
}
