/**
 * One subscription of the page: what its feeds bring, to listeners or to a `for await`.
 * Invariant: what waits for the application is bounded by `buffer`. When that is full nothing more is taken, and the
 * feeds read on from their places later. Every call of `next` settles when the subscription closes.
 */

import { onAbort } from "./abort.js";
import { createEmitter } from "./emitter.js";
import { Refused } from "./errors.js";
import { createFeed } from "./feed.js";
import { isGap, parseCursor } from "./wire.js";

/** @import { Entry, Failure, Item, Net, Start } from "./internal.js" */
/** @import { Gap } from "./types.js" */

/**
 * @param {Net} net
 * @param {string[]} channels
 * @param {Start} start
 * @param {number} buffer
 * @param {AbortSignal | undefined} outer closes it
 * @param {(entry: Entry) => void} changed it is full, no longer full, or closed
 * @returns {Entry}
 */
export function createSubscription(net, channels, start, buffer, outer, changed) {
  const emitter = createEmitter("message gap subscribed error");
  const abort = new AbortController();
  const { signal } = abort;
  /** @type {Item[]} */
  const waiting = [];
  let full = false;
  /** @type {Record<string, string>} */
  const cursors = {};
  if (parseCursor(start)) for (const channel of channels) cursors[channel] = /** @type {string} */ (start);
  let iterating = false;
  let gapsTaken = false; // by `events()`
  /** The calls of `next` that wait. @type {(() => void)[]} */
  const sleepers = [];
  /** @type {Refused | null} */
  let failure = null;

  const subscription = {
    channels,
    channel: channels[0],
    cursors,
    get cursor() {
      return cursors[channels[0]] ?? null;
    },

    /** @param {string} name @param {any} listener */
    on(name, listener) {
      const off = emitter.on(name, listener);
      if (name === "message" && waiting.length && !iterating) queueMicrotask(flush);
      return off;
    },
    events: () => iterate(true),
    [Symbol.asyncIterator]: () => iterate(false),
    close,
  };
  const reader = {
    signal,
    get full() {
      return full;
    },
    begins: (/** @type {string} */ channel, /** @type {string} */ cursor) =>
      emitter.emit("subscribed", { channel, cursor }),
    put,
    refuse,
  };
  const entry = {
    subscription: /** @type {any} */ (subscription),
    feeds: channels.map((channel) => createFeed(net, channel, start, reader)),
    get full() {
      return full;
    },
    get closed() {
      return signal.aborted;
    },
    refuse,
  };
  const off = onAbort(outer, close);
  return entry;

  function close() {
    if (signal.aborted) return;
    abort.abort();
    off();
    changed(entry);
    awake();
  }

  /** It is refused, for good. @param {string} channel @param {Failure} refusal */
  function refuse(channel, refusal) {
    if (signal.aborted) return;
    const reason = channels.length > 1 ? `${channel}: ${refusal.reason}` : refusal.reason;
    const error = (failure = new Refused({ ...refusal, reason }));
    close();
    if (!iterating && !emitter.hears("error")) console.warn(`oncecast: a subscription has ended: ${reason}`);
    emitter.emit("error", error);
  }

  /** @param {string} channel @param {string} cursor @param {Item} [item] */
  function put(channel, cursor, item) {
    if (item && (iterating || waiting.length || !emitter.hears("message"))) {
      if (waiting.push(item) >= buffer) setFull(true);
      awake();
    } else if (item) {
      give(item);
    } else if (!waiting.length) {
      cursors[channel] = cursor;
    }
  }

  /** @param {Item} item */
  function give(item) {
    if (!isGap(item)) {
      cursors[item.channel] = item.id;
      return emitter.emit("message", item);
    }
    cursors[item.channel] = item.cursor;
    if (!gapsTaken && !emitter.hears("gap")) warn(item);
    emitter.emit("gap", item);
  }

  function flush() {
    while (waiting.length) give(/** @type {Item} */ (waiting.shift()));
    setFull(false);
  }

  /** @param {boolean} is */
  function setFull(is) {
    if (full === is) return;
    full = is;
    net.say(`${channels} ${full ? "is full" : "reads on"}`);
    changed(entry);
  }

  function awake() {
    for (const wake of sleepers.splice(0)) wake();
  }

  /** @param {boolean} gaps whether they are handed out, too @returns {AsyncIterableIterator<any>} */
  function iterate(gaps) {
    iterating = true;
    gapsTaken ||= gaps;
    return {
      async next() {
        for (;;) {
          const item = waiting.shift();
          if (waiting.length <= buffer / 2) setFull(false);
          if (item) {
            give(item);
            if (gaps || !isGap(item)) return { value: item, done: false };
          } else if (signal.aborted) {
            const error = failure;
            failure = null;
            if (error) throw error;
            return { value: undefined, done: true };
          } else {
            await new Promise((resolve) => sleepers.push(() => resolve(null)));
          }
        }
      },
      async return(value) {
        close();
        return { value, done: true };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }
}

/** The application has not asked for gaps, and must not miss one in silence. @param {Gap} gap */
function warn({ channel, reason, missed_from: from, missed_to: to }) {
  console.warn(
    `oncecast: messages of ${channel} are missing (${reason}, from ${from} to ${to ?? "an unknown id"}). Reload what they` +
      ' changed, and listen to them with subscription.on("gap", …) or for await (… of subscription.events()).',
  );
}
