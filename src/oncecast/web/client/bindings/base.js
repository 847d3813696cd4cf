/**
 * What the bindings share: a channel as a store of immutable snapshots, which a framework renders.
 * Invariant: while a store is heard, all of its client that ask for the same channel, start and limit get that store; so
 * they render the same, by one subscription. A store that is heard again goes on from its cursor.
 */

import { connect } from "../index.js";
import { numberOf, optionsOf } from "../options.js";
import { checkChannel, startOf } from "../wire.js";

/** @import { Cast, Gap, Message, Subscription } from "../types.js" */
/** @import { ChannelOptions, ChannelState, ChannelStatus } from "./types.js" */

const LIMIT = 100;
const LIMIT_MAX = 100_000;

/** @typedef {{ get(): ChannelState, hear(listener: () => void): () => void }} Store */

/** What a component without a channel has, and what a server renders. @type {ChannelState} */
export const IDLE = Object.freeze({ messages: [], last: null, dropped: 0, gap: null, error: null, status: "idle" });

/** @type {Store} */
const NOTHING = { get: () => IDLE, hear: () => () => {} };

/** The stores that are heard; a client that has gone takes its own along. @type {WeakMap<Cast, Map<string, Store>>} */
const heard = new WeakMap();
/** Those that no component has heard yet, as a render may be thrown away. @type {WeakMap<Cast, Map<string, WeakRef<Store>>>} */
const made = new WeakMap();
/** @type {Cast | undefined} */
let shared;

/** @type {typeof import("./types.js").setClient} */
export const setClient = (client) => {
  shared = client;
};

/** The client of components that are given none: by default one of the server that the page is from. @returns {Cast} */
export function defaultClient() {
  return (shared ??= connect("/"));
}

/**
 * The store of a channel; of no channel, and where a page is made on a server, one that is always idle.
 * @param {string | null | undefined} channel
 * @param {ChannelOptions} [given]
 * @param {Cast} [client] if the options have none
 * @returns {Store}
 */
export function storeOf(channel, given, client) {
  const { client: own, limit = LIMIT, ...where } = optionsOf("a channel", given, "after last since limit client");
  numberOf("limit", limit, 1, LIMIT_MAX, true);
  const start = startOf(where, "latest");
  if (channel === null || channel === undefined || !globalThis.window) return NOTHING;
  const cast = own ?? client ?? defaultClient();
  const key = JSON.stringify([checkChannel(channel), start, limit]);
  const [stores, pristine] = [of(heard, cast), of(made, cast)];
  const found = stores.get(key) ?? pristine.get(key)?.deref();
  if (found) return found;
  for (const [name, ref] of pristine) if (!ref.deref()) pristine.delete(name);
  const store = createStore(cast, channel, where, limit, (opened) => {
    pristine.delete(key);
    if (!opened && stores.get(key) === store) stores.delete(key);
    if (opened && !stores.has(key)) stores.set(key, store);
  });
  pristine.set(key, new WeakRef(store));
  return store;
}

/** @template T @param {WeakMap<Cast, Map<string, T>>} maps @param {Cast} cast */
function of(maps, cast) {
  const map = maps.get(cast) ?? new Map();
  maps.set(cast, map);
  return map;
}

/**
 * @param {Cast} cast
 * @param {string} channel
 * @param {{ after?: string, last?: number, since?: number }} start
 * @param {number} limit
 * @param {(opened: boolean) => void} changed it is heard now, or no longer
 * @returns {Store}
 */
function createStore(cast, channel, start, limit, changed) {
  /** @type {Set<() => void>} */
  const listeners = new Set();
  /** @type {Message[]} */
  let messages = [];
  let dropped = 0;
  /** @type {Gap | null} */
  let gap = null;
  /** @type {Error | null} */
  let error = null;
  let gapsRead = false;
  let notified = true; // whether the listeners know, or will within this turn
  /** @type {Subscription | null} */
  let subscription = null;
  /** @type {string | null} */
  let cursor = null;
  let unwatch = () => {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let closing;
  let snapshot = take();
  return { get: () => snapshot, hear };

  /** @param {() => void} listener @returns {() => void} */
  function hear(listener) {
    const own = () => listener(); // one function may listen twice
    listeners.add(own);
    clearTimeout(closing);
    if (!subscription) open();
    return () => {
      // Not at once: StrictMode, and a change of pages, take a component away and put it back.
      if (listeners.delete(own) && !listeners.size) closing = setTimeout(close);
    };
  }

  function open() {
    changed(true);
    error = null;
    try {
      subscription = cast.subscribe(channel, cursor === null ? start : { after: cursor });
    } catch (failure) {
      return fail(/** @type {Error} */ (failure)); // the client is closed
    }
    subscription.on("gap", missed);
    subscription.on("error", fail);
    subscription.on("message", (message) => {
      if (messages.push(message) > 2 * limit) trim();
      tell();
    });
    unwatch = cast.on("state", tell);
    tell();
  }

  function close() {
    changed(false);
    unwatch();
    cursor = subscription?.cursor ?? cursor;
    subscription?.close();
    subscription = null;
    snapshot = take();
  }

  /** @param {Error} failure */
  function fail(failure) {
    error = failure;
    tell();
  }

  /** @param {Gap} missing */
  function missed(missing) {
    gap = missing;
    if (!gapsRead) {
      console.warn(
        `oncecast: messages of ${channel} are missing (${gap.reason}, from ${gap.missed_from} to ` +
          `${gap.missed_to ?? "an unknown id"}), and no component reads \`gap\`: reload what they changed when it changes.`,
      );
    }
    tell();
  }

  function trim() {
    dropped += Math.max(0, messages.length - limit);
    messages = messages.slice(-limit);
  }

  /** Call the listeners once for all that happens in this turn. */
  function tell() {
    if (!notified) return;
    notified = false;
    queueMicrotask(() => {
      notified = true;
      snapshot = take();
      for (const listener of [...listeners]) listener();
    });
  }

  /** @returns {ChannelState} */
  function take() {
    trim();
    const missing = gap;
    return Object.freeze({
      messages: messages.slice(),
      last: messages.at(-1) ?? null,
      dropped,
      get gap() {
        gapsRead = true;
        return missing;
      },
      error,
      status: statusOf(),
    });
  }

  /** @returns {ChannelStatus} */
  function statusOf() {
    if (error || cast.state === "closed") return "closed";
    if (!subscription) return "idle";
    return cast.state === "idle" ? "connecting" : cast.state;
  }
}
