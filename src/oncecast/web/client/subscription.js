/**
 * One subscription of the page: its place, and each message once, in order.
 *
 * It is told what its channel's feed has, by this page's connection or by another tab, and takes what continues its
 * own place. Where there is a hole between the two, because it began elsewhere, read too slowly or missed something, it
 * reads on from its place by short polls until it meets the feed. So no feed need know who listens to it.
 */

import { backoff, poll, sleep } from "./net.js";
import { compare, goesOn, isGap, parseCursor } from "./wire.js";

/** @import { Failure, Item, Message, Net, Start } from "./types.js" */

const PENDING = 1_000; // told while it polls; past that they are polled for, too

/** Listeners by name. */
export class Emitter {
  /** @type {Map<string, Set<Function>>} */
  #listeners = new Map();

  /** @param {string} name @param {any} listener @returns {() => void} takes it off again */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** @param {string} name */
  hears(name) {
    return Boolean(this.#listeners.get(name)?.size);
  }

  /** @param {string} name @param {any} value */
  emit(name, value) {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        listener(value);
      } catch (error) {
        // A listener's fault is the page's to see, and no reason to lose what comes next.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

export class Subscription extends Emitter {
  /** Whether as much waits for the page as may: then nothing is taken. */
  full = false;
  /** @type {Item[]} */
  #waiting = [];
  /** @type {string | null} */
  #cursor;
  #iterating = false;
  /** Whoever waits for the next message. @type {(() => void)[]} */
  #wake = [];
  /** @type {Failure | null} */
  #failure = null;
  #abort = new AbortController();
  /** What is told while it polls. @type {[told: Start, cursor: string, item?: Item][] | null} */
  #pending = null;

  /**
   * @param {Net} net
   * @param {string} channel
   * @param {Start} place
   * @param {number} buffer
   * @param {(subscription: Subscription) => void} changed it is full, no longer full, or closed
   */
  constructor(net, channel, place, buffer, changed) {
    super();
    this.net = net;
    this.channel = channel;
    this.place = place;
    this.buffer = buffer;
    this.changed = changed;
    this.#cursor = parseCursor(place) && /** @type {string} */ (place);
  }

  get cursor() {
    return this.#cursor;
  }

  get closed() {
    return this.#abort.signal.aborted;
  }

  /** @param {string} name @param {any} listener */
  on(name, listener) {
    const off = super.on(name, listener);
    if (name === "message" && this.#waiting.length && !this.#iterating) queueMicrotask(() => this.#flush());
    return off;
  }

  close() {
    if (this.closed) return;
    this.#abort.abort();
    this.changed(this);
    this.#awake();
  }

  /** @param {Failure} failure it is refused, for good */
  refuse({ reason, code = null, status = 0 }) {
    if (this.closed) return;
    this.#failure = Object.assign(new Error(reason), { reason, code, status });
    this.close();
    this.emit("error", this.#failure);
  }

  /**
   * The feed has `item`, which `cursor` is the place after.
   * @param {Start} told
   * @param {string} cursor
   * @param {Item} [item]
   */
  take(told, cursor, item) {
    if (this.full || this.closed) return;
    if (this.#pending) {
      if (this.#pending.push([told, cursor, item]) > PENDING) this.#pending.shift(); // the next one finds the hole
    } else if (this.place === told || compare(this.place, told) >= 0) {
      this.#advance(cursor, item);
    } else {
      this.fill(`its feed is ahead, at ${told}`);
    }
  }

  /** Poll from the place until there is nothing more, then go on with what was told meanwhile. @param {string} reason */
  async fill(reason) {
    if (this.#pending || this.full || this.closed) return;
    this.net.say(`${this.channel} polls for what it lacks: ${reason}`);
    this.#pending = [];
    for (let attempt = 0; !this.full; ) {
      try {
        const { signal } = this.#abort;
        const { items, cursor } = await poll(this.net, [this.channel], this.place, signal);
        if (this.closed) return;
        for (const [at, item] of items) if (!this.full) this.#advance(at, item);
        if (!this.full) this.#advance(cursor);
        if (!items.length) break;
      } catch (error) {
        const failure = /** @type {Failure} */ (error);
        if (this.closed) return;
        if (failure.fatal) return this.refuse(failure);
        await sleep(backoff(this.net.retry, attempt++));
        if (this.closed) return;
      }
    }
    const pending = this.#pending;
    this.#pending = null;
    for (const told of pending) this.take(...told);
  }

  /** @param {string} cursor @param {Item} [item] */
  #advance(cursor, item) {
    const begins = !parseCursor(this.place);
    if (!goesOn(cursor, this.place, item)) return;
    this.place = cursor;
    if (begins) this.emit("subscribed", { cursor });
    if (item && (this.#iterating || this.#waiting.length || !this.hears("message"))) {
      this.#waiting.push(item);
      if (this.#waiting.length >= this.buffer) this.#setFull(true);
      this.#awake();
    } else if (item) {
      this.#give(item);
    } else if (!this.#waiting.length) {
      this.#cursor = cursor;
    }
  }

  /** @param {Item} item */
  #give(item) {
    this.#cursor = isGap(item) ? item.cursor : item.id;
    this.emit(isGap(item) ? "gap" : "message", item);
  }

  #flush() {
    while (this.#waiting.length) this.#give(/** @type {Item} */ (this.#waiting.shift()));
    this.#setFull(false);
  }

  /** @param {boolean} full */
  #setFull(full) {
    if (this.full === full) return;
    this.full = full;
    this.net.say(`${this.channel} ${full ? "is full" : "reads on"}`);
    this.changed(this);
  }

  #awake() {
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** @returns {AsyncIterator<Message>} */
  [Symbol.asyncIterator]() {
    this.#iterating = true;
    return {
      next: async () => {
        for (;;) {
          const item = this.closed && !this.#failure ? undefined : this.#waiting.shift();
          if (this.#waiting.length <= this.buffer / 2) this.#setFull(false);
          if (item) {
            this.#give(item);
            if (!isGap(item)) return { done: false, value: item };
          } else if (this.closed) {
            const failure = this.#failure;
            this.#failure = null;
            if (failure) throw failure;
            return { done: true, value: undefined };
          } else {
            await new Promise((/** @type {(value?: any) => void} */ resolve) => this.#wake.push(resolve));
          }
        }
      },
      return: async () => {
        this.close();
        return { done: true, value: undefined };
      },
    };
  }
}
