/**
 * Polling, short and long: the same request and the same answer. A short poll is followed by a pause; at a long
 * poll the server waits before its answer.
 *
 * Nothing is lost between two requests: each has the cursor of the last answer.
 */

import { now } from "./clock.js";
import { Transport } from "./transport.js";

/** @typedef {import("./transport.js").Gap} Gap */
/** @typedef {import("./transport.js").Message} Message */

const SHORT_POLL_MS = 1_000;
const LONG_POLL_SECONDS = 25;

/** A poll is aborted this time after its answer was due. */
const GRACE_MS = 10_000;

/** Both kinds of polling: request, take the answer, pause, request again from the answer's cursor. */
class Poll extends Transport {
  /** @type {AbortController | null} */
  #abort = null;

  /** The query besides the cursor. @type {Record<string, string | number>} */
  query = {};

  /** Milliseconds within which an answer must have come. */
  patience = GRACE_MS;

  /**
   * Milliseconds to rest before the next request.
   * @param {Message[]} messages those of the last answer
   * @param {number} asked when the request was sent
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
        this.asked(asked);
        // The first answer shows that the connection works, so it must not wait for a message.
        const answer = await this.#ask(abort, this.state === "live" ? this.query : {});
        if (this.#abort !== abort) return;
        this.answered(now(), answer.messages.length);
        if (this.state !== "live") this.opened(asked);
        // Gaps first: a gap is before the messages that follow it.
        for (const gap of gapsOf(answer)) this.listener.onGap(gap);
        if (answer.cursor) this.cursor = answer.cursor;
        this.received(answer.messages);
        await sleep(this.rest(answer.messages, asked));
      }
    } catch (error) {
      if (this.#abort !== abort) return;
      const { message, retryAfter } = /** @type {Error & {retryAfter?: number}} */ (error);
      const unheard = error instanceof TypeError; // fetch throws it where there was no answer
      this.lost(unheard ? "no connection" : message, retryAfter);
    }
  }

  close() {
    const abort = this.#abort;
    this.#abort = null;
    abort?.abort();
  }

  /** @param {AbortController} abort @param {Record<string, string | number>} query */
  async #ask(abort, query) {
    const deadline = setTimeout(() => abort.abort(new Error("no answer in time")), this.patience);
    try {
      await sleep(this.distance);
      const url = this.url(query);
      this.listener.onSeen?.({ kind: "asked", url, accept: "*/*" });
      const response = await fetch(url, { signal: abort.signal, cache: "no-store" });
      const body = await response.arrayBuffer();
      this.counters.bytes += body.byteLength;
      await sleep(this.distance);
      this.listener.onSeen?.({ kind: "answered", response, body: new TextDecoder().decode(body) });
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
  /** Milliseconds from one request to the next. */
  interval = SHORT_POLL_MS;

  /**
   * @param {Message[]} messages
   * @param {number} asked
   */
  rest(messages, asked) {
    // An answer has a bounded number of messages. If its newest is old, there are more: poll again at once.
    const newest = messages.at(-1);
    const behind = newest !== undefined && asked - this.listener.localTime(newest) > 2 * this.interval + 2 * this.distance;
    return behind ? 0 : Math.max(0, this.interval - (now() - asked));
  }
}

/** Reads the log now, or waits for the next message. */
export class LongPoll extends Poll {
  query = { wait: LONG_POLL_SECONDS };
  patience = LONG_POLL_SECONDS * 1000 + GRACE_MS;
}

/** @param {{gap?: Gap | null, gaps?: Gap[]}} answer @returns {Gap[]} */
function gapsOf({ gap, gaps }) {
  if (gaps?.length) return gaps;
  return gap ? [gap] : [];
}

/**
 * The error of a refused request, with the time to wait.
 * @param {Response} response
 * @param {ArrayBuffer} body
 */
function refusal(response, body) {
  let said = `HTTP ${response.status}`;
  try {
    const { code, message } = JSON.parse(new TextDecoder().decode(body)).error;
    said = `${code}: ${message}`;
  } catch {
    // Not the server's JSON, perhaps a proxy's page: use the status.
  }
  return Object.assign(new Error(said), {
    retryAfter: 1000 * Number(response.headers.get("Retry-After") ?? 0) || 0,
  });
}

/** @param {number} milliseconds */
function sleep(milliseconds) {
  return milliseconds > 0 ? new Promise((resolve) => setTimeout(resolve, milliseconds)) : Promise.resolve();
}
