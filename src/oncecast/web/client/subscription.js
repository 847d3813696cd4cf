/**
 * One subscription of the page: its place, and each message once, in order.
 *
 * It is told what its channel's feed has, by this page's connection or by another tab, and takes what continues its
 * own place. Where there is a hole between the two, because it began elsewhere, read too slowly or missed something, it
 * reads on from its place by short polls until it meets the feed. So no feed need know who listens to it.
 */

import { backoff, failureOf, poll, sleep } from "./net.js";
import { compare, goesOn, isGap, parseCursor } from "./wire.js";

/** @import { Failure, Feed, Item, Message, Net, Start } from "./types.js" */

const PENDING = 1_000; // told while it polls; past that they are polled for, too

/** Listeners by name. */
export function createEmitter() {
  /** @type {Record<string, Set<Function>>} */
  const listeners = {};
  return {
    /** @param {string} name @param {any} listener @returns {() => void} takes it off again */
    on(name, listener) {
      const those = (listeners[name] ??= new Set());
      those.add(listener);
      return () => those.delete(listener);
    },

    /** @param {string} name */
    hears: (name) => Boolean(listeners[name]?.size),

    /** @param {string} name @param {any} value */
    emit(name, value) {
      for (const listener of listeners[name] ?? []) {
        try {
          listener(value);
        } catch (error) {
          // A listener's fault is the page's to see, and no reason to lose what comes next.
          queueMicrotask(() => {
            throw error;
          });
        }
      }
    },
  };
}

/**
 * @param {Net} net
 * @param {string} channel
 * @param {Start} place
 * @param {number} buffer
 * @param {(feed: Feed) => void} changed it is full, no longer full, or closed
 * @returns {Feed}
 */
export function createSubscription(net, channel, place, buffer, changed) {
  const emitter = createEmitter();
  const { emit } = emitter;
  /** Whether as much waits for the page as may: then nothing is taken. */
  let full = false;
  /** @type {Item[]} */
  const waiting = [];
  /** @type {string | null} */
  let cursor = parseCursor(place) && /** @type {string} */ (place);
  let iterating = false;
  /** Whoever waits for the next message. @type {((value?: any) => void)[]} */
  const sleepers = [];
  /** @type {any} */
  let failure = null;
  const abort = new AbortController();
  const { signal } = abort;
  /** What is told while it polls. @type {[told: Start, cursor: string, item?: Item][] | null} */
  let pending = null;

  const feed = {
    ...emitter,
    channel,
    get cursor() {
      return cursor;
    },
    get place() {
      return place;
    },
    get full() {
      return full;
    },
    get closed() {
      return signal.aborted;
    },

    /** @param {string} name @param {any} listener */
    on(name, listener) {
      if (name === "message" && waiting.length && !iterating) queueMicrotask(flush);
      return emitter.on(name, listener);
    },
    close,
    refuse,
    take,
    fill,
    [Symbol.asyncIterator]: iterate,
  };
  return feed;

  function close() {
    if (signal.aborted) return;
    abort.abort();
    changed(feed);
    awake();
  }

  /** @param {Failure} refusal it is refused, for good */
  function refuse({ reason, code = null, status = 0 }) {
    if (signal.aborted) return;
    failure = Object.assign(new Error(reason), { code, status });
    close();
    emit("error", failure);
  }

  /**
   * The feed has `item`, which `cursor` is the place after.
   * @param {Start} told
   * @param {string} cursor
   * @param {Item} [item]
   */
  function take(told, cursor, item) {
    if (full || signal.aborted) return;
    if (pending) {
      if (pending.push([told, cursor, item]) > PENDING) pending.shift(); // the next one finds the hole
    } else if (place === told || compare(place, told) >= 0) {
      advance(cursor, item);
    } else {
      fill(`its feed is ahead, at ${told}`);
    }
  }

  /** Poll from the place until there is nothing more, then go on with what was told meanwhile. @param {string} reason */
  async function fill(reason) {
    if (pending || full || signal.aborted) return;
    net.say(`${channel} polls for what it lacks: ${reason}`);
    pending = [];
    for (let attempt = 0; !full; ) {
      try {
        const { items, cursor } = await poll(net, [channel], place, signal);
        if (signal.aborted) return;
        for (const [at, item] of items) if (!full) advance(at, item);
        if (!full) advance(cursor);
        if (!items.length) break;
      } catch (error) {
        const failure = failureOf(error);
        if (signal.aborted) return;
        if (failure.fatal) return refuse(failure);
        await sleep(Math.max(backoff(net.retry, attempt++), failure.retry ?? 0));
        if (signal.aborted) return;
      }
    }
    const meanwhile = pending;
    pending = null;
    for (const told of meanwhile) take(...told);
  }

  /** @param {string} next @param {Item} [item] */
  function advance(next, item) {
    const begins = !parseCursor(place);
    if (!goesOn(next, place, item)) return;
    place = next;
    if (begins) emit("subscribed", { cursor: next });
    if (item && (iterating || waiting.length || !emitter.hears("message"))) {
      if (waiting.push(item) >= buffer) setFull(true);
      awake();
    } else if (item) {
      give(item);
    } else if (!waiting.length) {
      cursor = next;
    }
  }

  /** @param {Item} item */
  function give(item) {
    cursor = isGap(item) ? item.cursor : item.id;
    emit(isGap(item) ? "gap" : "message", item);
  }

  function flush() {
    while (waiting.length) give(/** @type {Item} */ (waiting.shift()));
    setFull(false);
  }

  /** @param {boolean} now */
  function setFull(now) {
    if (full === now) return;
    full = now;
    net.say(`${channel} ${full ? "is full" : "reads on"}`);
    changed(feed);
  }

  function awake() {
    for (const wake of sleepers.splice(0)) wake();
  }

  /** @returns {AsyncGenerator<Message, void>} */
  async function* iterate() {
    iterating = true;
    try {
      while (!signal.aborted || failure) {
        const item = waiting.shift();
        if (waiting.length <= buffer / 2) setFull(false);
        if (item) {
          give(item);
          if (!isGap(item)) yield item;
        } else if (signal.aborted) {
          const error = failure;
          failure = null;
          throw error;
        } else {
          await new Promise((resolve) => sleepers.push(resolve));
        }
      }
    } finally {
      close();
    }
  }
}
