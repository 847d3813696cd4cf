/**
 * The client: `connect`. Owns what belongs together in one page: the subscriptions, the connection that feeds them or
 * the tab that does, and what is published. The public interface is described in `types.d.ts`.
 */

import { createConnection } from "./connection.js";
import { LINKS } from "./links.js";
import { createNet } from "./net.js";
import { Publisher } from "./publisher.js";
import { Emitter, Subscription } from "./subscription.js";
import { canShare, Tabs } from "./tabs.js";
import { checkChannel, compare, parseCursor, startFields } from "./wire.js";

/** @import { Failure, Item, Options, Start, State, Tell, Told, TransportName } from "./types.js" */

const BUFFER = 1_024;

/** @type {typeof import("./types.js").connect} */
export const connect = (url, options = {}) => new Cast(url, options);

class Cast extends Emitter {
  /** @type {State} */
  state = "idle";
  /** @type {TransportName | null} */
  transport = null;
  /** @type {Set<Subscription>} */
  #subscriptions = new Set();
  /** @type {Tabs | null} */
  #tabs = null;

  /** @param {string} url @param {Options} options */
  constructor(url, options) {
    super();
    const net = (this.net = createNet(url, options));
    this.options = options;
    this.publisher = new Publisher(net);
    const wanted = options.transports ?? /** @type {TransportName[]} */ (Object.keys(LINKS));
    for (const name of wanted) if (!LINKS[name]) throw new TypeError(`"${name}" is no transport`);
    const ladder = wanted.filter((name) => name !== "websocket" || net.WebSocket);
    if (!ladder.length) throw new TypeError("there is no transport");
    this.connection = createConnection(net, ladder, (...event) => {
      this.#hear(...event);
      if (this.#tabs?.leads) this.#tabs.tell({ event });
    });
  }

  /** @param {string} channel @param {{ after?: Start }} options */
  subscribe(channel, { after = "latest" } = {}) {
    if (this.state === "closed") throw new Error("it is closed");
    checkChannel(channel);
    startFields(after);
    const start = typeof after === "object" ? { ...after } : after;
    const { buffer = BUFFER } = this.options;
    const subscription = new Subscription(this.net, channel, start, buffer, (changed) => {
      if (changed.closed) this.#subscriptions.delete(changed);
      this.#plan();
      if (!changed.full) this.#meet(changed);
    });
    this.#subscriptions.add(subscription);
    if (this.options.shareTabs ?? canShare()) this.#tabs ??= this.#openTabs();
    this.#plan();
    this.#meet(subscription);
    return subscription;
  }

  /** @param {string} channel @param {unknown} data @param {{ event?: string, key?: string }} [options] */
  publish(channel, data, options) {
    return this.publisher.publish(channel, data, options);
  }

  close() {
    if (this.state === "closed") return;
    for (const subscription of [...this.#subscriptions]) subscription.close();
    this.publisher.close();
    this.#tabs?.close();
    this.connection.close();
  }

  #openTabs() {
    return new Tabs(this.net, {
      hear: (...event) => this.#hear(.../** @type {Parameters<Tell>} */ (event)),
      is: (name) => /** @type {any} */ (this)[name],
      plan: () => this.#plan(),
      fill: () => this.#subscriptions.forEach((one) => one.fill("the other tab is silent")),
      place: (channel) => this.#place(channel),
    });
  }

  /** Have the connection listen to what is wanted, or the tab that listens for all. */
  #plan() {
    /** @type {Record<string, Start>} */
    const wanted = {};
    const want = (/** @type {string} */ channel, /** @type {Start} */ place) => {
      if (!(channel in wanted) || compare(place, wanted[channel]) < 0) wanted[channel] = place;
    };
    for (const { channel, place, full } of this.#subscriptions) if (!full) want(channel, place);
    const { connection } = this;
    const tabs = this.#tabs;
    if (tabs && !tabs.leads) return tabs.want(wanted);
    for (const channels of tabs?.wants.values() ?? []) {
      // A place that only the other tab can tell from others, like its last 5 messages, it finds by itself.
      for (const channel in channels) want(channel, parseCursor(channels[channel]) ? channels[channel] : "latest");
    }
    for (const channel of [...connection.places.keys()]) if (!(channel in wanted)) connection.remove(channel);
    for (const channel in wanted) if (!connection.places.has(channel)) connection.add(channel, wanted[channel]);
  }

  /** Show a subscription where its feed is: if that is further on, it polls. @param {Subscription} subscription */
  #meet(subscription) {
    const place = this.#place(subscription.channel);
    if (place) subscription.take(place[1], place[2]);
  }

  /** @param {string} channel @returns {Told | null} where its feed is, if that is known */
  #place(channel) {
    const { at, told } = this.connection.places.get(channel) ?? {};
    return at && told && parseCursor(at) ? [channel, told, /** @type {string} */ (at)] : null;
  }

  /** What the connection tells, of this tab or of the one that leads. @type {Tell} */
  #hear = (...event) => {
    const [name, channel, ...rest] = event;
    if (name === "state" || name === "transport") {
      const { to, reason } = channel;
      const from = this[name];
      if (from === to || from === "closed") return;
      Object.assign(this, { [name]: to });
      return this.emit(name, { from, to, reason });
    }
    for (const one of this.#subscriptions) {
      if (one.channel !== channel) continue;
      if (name === "refused") one.refuse(.../** @type {[Failure]} */ (rest));
      else one.take(.../** @type {[Start, string, Item?]} */ (rest));
    }
  };
}
