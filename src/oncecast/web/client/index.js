/**
 * The client: `connect`. Owns what belongs together in one page: the subscriptions, the connection that feeds them or
 * the tab that does, and what is published. The public interface is described in `types.d.ts`.
 */

import { createConnection } from "./connection.js";
import { LINKS } from "./links.js";
import { createNet } from "./net.js";
import { createPublisher } from "./publisher.js";
import { createEmitter, createSubscription } from "./subscription.js";
import { canShare, createTabs } from "./tabs.js";
import { checkChannel, compare, parseCursor, startFields } from "./wire.js";

/** @import { Feed, Start, State, Tell, Told, TransportName } from "./types.js" */

const BUFFER = 1_024;

/** @type {typeof import("./types.js").connect} */
export const connect = (base, options = {}) => {
  const net = createNet(base, options);
  const { transports = /** @type {TransportName[]} */ (Object.keys(LINKS)), buffer = BUFFER } = options;
  for (const name of transports) if (!LINKS[name]) throw new TypeError(`"${name}" is no transport`);
  const ladder = transports.filter((name) => name !== "websocket" || net.WebSocket);
  if (!ladder.length) throw new TypeError("there is no transport");
  const connection = createConnection(net, ladder, (...event) => {
    hear(...event);
    if (tabs?.leads) tabs.tell({ event });
  });
  const publisher = createPublisher(net);
  const emitter = createEmitter();
  /** @type {Set<Feed>} */
  const feeds = new Set();
  /** @type {ReturnType<typeof createTabs> | undefined} */
  let tabs;

  const cast = {
    state: /** @type {State} */ ("idle"),
    transport: /** @type {TransportName | null} */ (null),
    connection,
    on: emitter.on,
    publish: publisher.publish,
    subscribe,
    close,
  };
  return cast;

  /** @param {string} channel @param {{ after?: Start }} options */
  function subscribe(channel, { after = "latest" } = {}) {
    if (cast.state === "closed") throw new Error("it is closed");
    checkChannel(channel);
    startFields(after);
    const start = typeof after === "object" ? { ...after } : after;
    const feed = createSubscription(net, channel, start, buffer, (changed) => {
      if (changed.closed) feeds.delete(changed);
      plan();
      if (!changed.full) meet(changed);
    });
    feeds.add(feed);
    if (options.shareTabs ?? canShare()) tabs ??= createTabs(net, { cast, hear, plan, fill, place });
    plan();
    meet(feed);
    return feed;
  }

  function close() {
    for (const feed of feeds) feed.close();
    publisher.close();
    tabs?.close();
    connection.close();
  }

  // For the other tabs

  function fill() {
    for (const feed of feeds) feed.fill("the other tab is silent");
  }

  /** @param {string} channel @returns {Told | null} where its feed is, if that is known */
  function place(channel) {
    const { at, told } = connection.places.get(channel) ?? {};
    return told && parseCursor(at) ? [channel, told, /** @type {string} */ (at)] : null;
  }

  // For the subscriptions

  /** Have the connection listen to what is wanted, or the tab that listens for all. */
  function plan() {
    /** @type {Map<string, Start>} */
    const wanted = new Map();
    const want = (/** @type {string} */ channel, /** @type {Start} */ at) => {
      if (!wanted.has(channel) || compare(at, wanted.get(channel)) < 0) wanted.set(channel, at);
    };
    for (const { channel, place, full } of feeds) if (!full) want(channel, place);
    if (tabs && !tabs.leads) return tabs.want(wanted);
    for (const channels of tabs?.wants.values() ?? []) {
      // A place that only the other tab can tell from others, like its last 5 messages, it finds by itself.
      for (const [channel, at] of channels) want(channel, parseCursor(at) ? at : "latest");
    }
    const { places } = connection;
    for (const channel of places.keys()) if (!wanted.has(channel)) connection.remove(channel);
    for (const [channel, at] of wanted) if (!places.has(channel)) connection.add(channel, at);
  }

  /** Show a subscription where its feed is: if that is further on, it polls. @param {Feed} feed */
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
    for (const feed of feeds) {
      if (feed.channel !== event[1]) continue;
      if (event[0] === "refused") feed.refuse(event[2]);
      else feed.take(event[2], event[3], event[4]);
    }
  }
};
