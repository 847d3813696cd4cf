/**
 * One channel of a subscription: its place, and each message once, in order.
 *
 * This page's connection, or another tab, gives it the channel's items, each with the places before and after. It takes
 * those that continue its own place. Where there is a hole between the two, because it began elsewhere, read too slowly
 * or missed something, it reads on from its place by short polls up to those items. So a connection does not know its
 * listeners.
 */

import { failureOf } from "./errors.js";
import { poll } from "./net.js";
import { backoff, sleep } from "./time.js";
import { compare, goesOn, parseCursor } from "./wire.js";

/** @import { Feed, Item, Net, Reader, Start } from "./internal.js" */

const PENDING = 1_000; // items that arrive while it polls; past that the oldest are dropped, and polled for

/**
 * @param {Net} net
 * @param {string} channel
 * @param {Start} place
 * @param {Reader} reader
 * @returns {Feed}
 */
export function createFeed(net, channel, place, reader) {
  const { signal } = reader;
  /** The items that arrive while it polls. @type {[before: Start, cursor: string, item?: Item][] | null} */
  let pending = null;
  return {
    channel,
    get place() {
      return place;
    },
    take,
    fill,
  };

  /** @param {Start} before @param {string} cursor @param {Item} [item] */
  function take(before, cursor, item) {
    if (reader.full || signal.aborted) return;
    if (pending) {
      if (pending.push([before, cursor, item]) > PENDING) pending.shift(); // the next one finds the hole
    } else if (place === before || compare(place, before) >= 0) {
      advance(cursor, item);
    } else {
      fill(`its feed is ahead, at ${before}`);
    }
  }

  /** @param {string} reason */
  async function fill(reason) {
    if (pending || reader.full || signal.aborted) return;
    net.say(`${channel} polls for what it lacks: ${reason}`);
    pending = [];
    for (let attempt = 0; !reader.full; ) {
      try {
        const { items, cursor, pause } = await poll(net, [channel], place, signal);
        attempt = 0;
        if (signal.aborted) return;
        for (const [at, item] of items) if (!reader.full) advance(at, item);
        if (!reader.full) advance(cursor);
        if (!items.length) break;
        if (pause) await sleep(pause, signal);
      } catch (error) {
        const failure = failureOf(error);
        if (signal.aborted) return;
        if (failure.fatal) return reader.refuse(channel, failure);
        await sleep(Math.max(backoff(net.retry, attempt++), failure.retry ?? 0), signal);
      }
      if (signal.aborted) return;
    }
    const meanwhile = pending;
    pending = null;
    for (const advance of meanwhile) take(...advance);
  }

  /** @param {string} next @param {Item} [item] */
  function advance(next, item) {
    const begins = !parseCursor(place);
    if (!goesOn(next, place, item)) return;
    place = next;
    if (begins) reader.begins(channel, next);
    reader.put(channel, next, item);
  }
}
