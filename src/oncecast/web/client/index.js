/**
 * The client: `connect`. Owns what belongs together in one page: the subscriptions, the connection that feeds them or
 * the tab that does, and what is published. The public interface is described in `types.d.ts`.
 */

import { createConnection } from "./connection.js";
import { createEmitter } from "./emitter.js";
import { Refused } from "./errors.js";
import { HISTORY_MAX, readHistory } from "./history.js";
import { LINKS } from "./links.js";
import { createNet } from "./net.js";
import { numberOf, optionsOf, signalOf, timeoutOf } from "./options.js";
import { createPublisher } from "./publisher.js";
import { createSubscription } from "./subscription.js";
import { canShare, createTabs } from "./tabs.js";
import { checkChannel, compare, parseCursor, startOf } from "./wire.js";

/** @import { Entry, Feed, Start, Tell, Advance } from "./internal.js" */
/** @import { Draft, HistoryOptions, PublishOptions, Receipt, SendOptions, State } from "./types.js" */
/** @import { SubscribeOptions, TransportName } from "./types.js" */

export { Refused };

const BUFFER = 1_024;
const BUFFER_MAX = 100_000;
const HISTORY = 1_000;
const OPTIONS = "getToken transports shareTabs debug WebSocket fetch buffer timing";

/** @type {typeof import("./types.js").connect} */
export const connect = (base, given) => {
  const options = optionsOf("connect", given, OPTIONS);
  const net = createNet(base, options);
  const buffer = numberOf("buffer", options.buffer ?? BUFFER, 1, BUFFER_MAX, true);
  const connection = createConnection(net, transportsOf(options.transports, net.WebSocket), (...event) => {
    if (tabs && !tabs.leads && connection.state !== "closed") return;
    hear(...event);
    if (tabs?.leads) tabs.tell({ event });
  });
  const emitter = createEmitter("state transport publishing");
  const publisher = createPublisher(net, (failure) => emitter.emit("publishing", failure));
  const end = new AbortController();
  /** @type {Set<Entry>} */
  const entries = new Set();
  /** @type {ReturnType<typeof createTabs> | undefined} */
  let tabs;

  const cast = {
    state: /** @type {State} */ ("idle"),
    transport: /** @type {TransportName | null} */ (null),
    connection, // for this project's tests
    on: emitter.on,
    publish,
    publishMany,
    history,
    subscribe,
    close,
  };
  return cast;

  /** @param {string | readonly string[]} given @param {SubscribeOptions} [options] */
  function subscribe(given, options) {
    const { signal, ...where } = optionsOf("subscribe", options, "after last since signal");
    const channels = channelsOf(given);
    const start = startOf(where, "latest");
    checkOpen();
    const entry = createSubscription(net, channels, start, buffer, signalOf(signal), (changed) => {
      if (changed.closed) entries.delete(changed);
      plan();
      if (!changed.full) changed.feeds.forEach(meet);
    });
    entries.add(entry);
    if (sharing()) tabs ??= createTabs(net, { cast, hear, plan, rest: connection.clear, place });
    plan();
    entry.feeds.forEach(meet);
    return entry.subscription;
  }

  /** @param {string} channel @param {unknown} data @param {PublishOptions} [given] @returns {Promise<Receipt>} */
  async function publish(channel, data, given) {
    const { event, key, ...until } = optionsOf("publish", given, "event key signal timeout");
    const [result] = await post([{ channel, data, event, key }], until);
    if (result.status === "rejected") throw result.reason;
    return result.value;
  }

  /** @param {Iterable<Draft>} drafts @param {SendOptions} [given] */
  async function publishMany(drafts, given) {
    const until = optionsOf("publishMany", given, "signal timeout");
    const settled = await post(
      [...drafts].map((draft) => optionsOf("a message", draft, "channel data event key")),
      until,
    );
    const results = settled.map((result) => (result.status === "fulfilled" ? result.value : result.reason));
    const errors = results.filter((_, index) => settled[index].status === "rejected");
    if (!errors.length) return results;
    const text = `${errors.length} of ${results.length} messages were not acknowledged; the first one: ${errors[0]}`;
    throw Object.assign(new AggregateError(errors, text), { results });
  }

  /** @param {Draft[]} drafts @param {SendOptions} until */
  function post(drafts, { signal, timeout = net.timing.publish }) {
    return publisher.post(drafts, signalOf(signal), timeoutOf(timeout));
  }

  /** @param {string | readonly string[]} names @param {HistoryOptions} [given] */
  async function history(names, given) {
    const { limit, signal, timeout = net.timing.publish, ...where } = optionsOf(
      "history",
      given,
      "after last since limit signal timeout",
    );
    const channels = channelsOf(names);
    const start = startOf(where, "earliest");
    const most = numberOf("limit", limit ?? (channels.length * (where.last ?? 0) || HISTORY), 1, HISTORY_MAX, true);
    checkOpen();
    const signals = [signalOf(signal), end.signal];
    return readHistory(net, channels, start, most, { signals, timeout: timeoutOf(timeout) });
  }

  function close() {
    end.abort();
    for (const { subscription } of entries) subscription.close();
    publisher.close();
    tabs?.close();
    connection.close();
  }

  function checkOpen() {
    if (cast.state === "closed") throw new Error("the client is closed: connect again");
  }

  function sharing() {
    return options.shareTabs ?? canShare();
  }

  // For the other tabs

  /** @param {string} channel @returns {Advance | null} where its feed is, if that is known */
  function place(channel) {
    const { at, before } = connection.places.get(channel) ?? {};
    return before && parseCursor(at) ? [channel, before, /** @type {string} */ (at)] : null;
  }

  // For the subscriptions

  /** Have the connection listen to what is wanted, or the tab that listens for all. */
  function plan() {
    /** @type {Map<string, Start>} */
    const wanted = new Map();
    const want = (/** @type {string} */ channel, /** @type {Start} */ at) => {
      if (!wanted.has(channel) || compare(at, wanted.get(channel)) < 0) wanted.set(channel, at);
    };
    for (const { feeds, full } of entries) if (!full) for (const { channel, place } of feeds) want(channel, place);
    if (tabs && !tabs.leads) return tabs.want(wanted);
    for (const channels of tabs?.wants.values() ?? []) {
      // A place that only the other tab can tell from others, like its last 5 messages, it finds by itself.
      for (const [channel, at] of channels) want(channel, parseCursor(at) ? at : "latest");
    }
    const { places } = connection;
    for (const channel of places.keys()) if (!wanted.has(channel)) connection.remove(channel);
    for (const [channel, at] of wanted) if (!places.has(channel)) connection.add(channel, at);
  }

  /** Show a feed where its channel is: if that is further on, it polls. @param {Feed} feed */
  function meet(feed) {
    const known = place(feed.channel);
    if (known) feed.take(known[1], known[2]);
  }

  /** What the connection tells, of this tab or of the one that leads. @param {Parameters<Tell>} event */
  function hear(...event) {
    if (event[0] === "state" || event[0] === "transport") {
      const [name, { to, reason }] = event;
      const from = cast[name];
      if (from === to || from === "closed") return;
      Object.assign(cast, { [name]: to });
      return emitter.emit(name, { from, to, reason });
    }
    for (const entry of entries) {
      for (const feed of entry.feeds) {
        if (feed.channel !== event[1]) continue;
        if (event[0] === "refused") entry.refuse(event[1], event[2]);
        else feed.take(event[2], event[3], event[4]);
      }
    }
  }
};

/** @param {string | readonly string[]} given @returns {string[]} each once */
function channelsOf(given) {
  if (typeof given !== "string" && !Array.isArray(given)) throw new TypeError("channels must be a name or an array of names");
  const channels = [...new Set(typeof given === "string" ? [given] : given)].map(checkChannel);
  if (!channels.length) throw new TypeError("channels must not be empty");
  return channels;
}

/** @param {unknown} given @param {any} socket the WebSocket class, if there is one @returns {TransportName[]} */
function transportsOf(given = Object.keys(LINKS), socket) {
  if (!Array.isArray(given)) throw new TypeError("transports must be an array");
  for (const name of given) {
    if (!Object.hasOwn(LINKS, name)) {
      throw new TypeError(`transports has "${name}", which is none: use ${Object.keys(LINKS).join(" ")}`);
    }
  }
  const found = [...new Set(given)].filter((name) => name !== "websocket" || socket);
  if (!found.length) throw new TypeError("transports leaves nothing: WebSocket is missing here, or the list is empty");
  return found;
}
