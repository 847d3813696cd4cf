/**
 * The four ways to listen. Each is given a host with the places of its channels, reports what comes, and ends with
 * `lost`; whether and how to go on is the connection's to decide.
 * To add a way, write a class with `set`, `check` and `close`, and name it in `LINKS`.
 */

import { passes, poll, refuses, sleep, texts } from "./net.js";
import { compare, EventStream, isGap, itemOf, parseCursor, startFields } from "./wire.js";

/** @import { Failure, Host, Link, Start } from "./types.js" */

const PROTOCOL = "oncecast.v1";
const NOBODY = "oncecast:alive"; // nobody subscribes to it, and the answer to its unsubscribe shows life
const MANY = 100; // so many messages in an answer, and there may be more: ask again at once
const SHORTEST_WAIT_MS = 800;

/** @implements {Link} */
class Socket {
  beats = true;
  #ref = 0;
  /** The `ref` that each channel was subscribed with. @type {Map<string, number>} */
  #refs = new Map();
  /** @type {any} */
  socket = null;
  /** The channels whose `subscribed` has come. What comes of others is of a subscription that was given up. */
  #attached = new Set();

  /** @param {Host} host */
  constructor(host) {
    this.host = host;
    const url = host.net.url("connect");
    url.protocol = url.protocol.replace("http", "ws");
    let socket;
    try {
      socket = this.socket = new host.net.WebSocket(url, PROTOCOL);
    } catch (error) {
      queueMicrotask(() => host.lost(this, { reason: String(error) })); // a policy of the page forbids it
      return;
    }
    socket.onopen = () => this.#begin();
    socket.onmessage = (/** @type {{ data: string }} */ { data }) => {
      if (this.socket) this.#frame(JSON.parse(data));
    };
    socket.onerror = () => {};
    socket.onclose = (/** @type {CloseEvent} */ { code, reason }) => {
      if (!this.socket) return;
      const status = code - 4000;
      const why = `closed with ${code}${reason && `, ${reason}`}`;
      // The server's own codes are 4000 + status. What breaks the frames, 1002 or 1007, may stand in between.
      host.lost(this, { reason: why, fatal: refuses(status), status, code: String(code) });
    };
  }

  async #begin() {
    try {
      // No header can be set here. A server without access rules answers with an error, which nobody waits for.
      const token = await this.host.net.token();
      if (token) this.#send({ type: "auth", token });
      this.set();
    } catch (failure) {
      if (this.socket) this.host.lost(this, /** @type {Failure} */ (failure));
    }
  }

  set() {
    const { places } = this.host;
    if (this.socket?.readyState !== 1) return;
    for (const channel of this.#refs.keys()) {
      if (places.has(channel)) continue;
      this.#refs.delete(channel);
      this.#attached.delete(channel);
      this.#send({ type: "unsubscribe", channel });
    }
    for (const [channel, { at }] of places) {
      if (this.#refs.has(channel)) continue;
      const ref = ++this.#ref;
      this.#refs.set(channel, ref);
      this.#send({ type: "subscribe", channel, ...startFields(at), ref });
    }
  }

  check() {
    if (this.socket?.readyState === 1) this.#send({ type: "unsubscribe", channel: NOBODY });
  }

  close() {
    const { socket } = this;
    this.socket = null;
    socket?.close(1000);
  }

  /** @param {object} frame */
  #send(frame) {
    this.socket?.send(JSON.stringify(frame));
  }

  /** @param {any} frame */
  #frame(frame) {
    const { host } = this;
    const { type, channel, cursor, ref } = frame;
    host.alive(this, type === "cursor");
    if (type === "subscribed" && this.#refs.get(channel) === ref) {
      this.#attached.add(channel);
      host.opened(this);
      host.raise(this, [channel], cursor);
    } else if (type === "message" || type === "gap") {
      if (this.#attached.has(channel)) host.item(this, channel, cursor ?? frame.id, itemOf(frame));
    } else if (type === "cursor") {
      host.raise(this, this.#attached, cursor);
    } else if (type === "drain") {
      host.lost(this, { reason: "the server is about to stop", retry: frame.retry_after_ms, calm: true });
    } else if (type === "error") {
      for (const [channel, its] of this.#refs) if (its === ref) this.#refused(channel, frame);
    }
  }

  /** @param {string} channel @param {{ code: string, message: string }} error */
  #refused(channel, { code, message }) {
    const failure = { reason: `${code}: ${message}`, code };
    if (passes(code)) return this.host.lost(this, { ...failure, calm: true });
    this.#refs.delete(channel);
    this.host.refused(this, channel, { ...failure, fatal: true });
  }
}

/** What the ways over HTTP share: one request has all channels, so another set of them takes another request. */
class Requests {
  #abort = new AbortController();
  #stale = true; // a change of the channels needs no further restart

  /** @param {Host} host */
  constructor(host) {
    this.host = host;
    this.signal = this.#abort.signal;
    this.#begin();
  }

  async #begin() {
    await null; // those who subscribe in the same turn come along
    this.#stale = false;
    try {
      await this.#together();
      while (!this.signal.aborted) await this.run();
    } catch (failure) {
      if (this.signal.aborted) return;
      this.host.lost(this, failure instanceof Error ? { reason: String(failure) } : /** @type {Failure} */ (failure));
    }
  }

  /** One request, which a way to listen writes. @returns {Promise<void>} */
  async run() {}

  /** Several changes in one turn are one. */
  set() {
    if (this.#stale) return;
    this.#stale = true;
    queueMicrotask(() => this.check("the channels have changed"));
  }

  check(reason = "to see whether the server is still there") {
    if (!this.signal.aborted) this.host.lost(this, { reason, calm: true, retry: -1 });
  }

  close() {
    this.#abort.abort();
  }

  get channels() {
    return [...this.host.places.keys()];
  }

  /** The start for all channels: the earliest, as each drops what it has had. @returns {Start} */
  start() {
    const starts = [...this.host.places.values()].map((place) => place.at);
    return starts.reduce((first, next) => (compare(next, first) < 0 ? next : first));
  }

  /**
   * A request has one start. Channels that do not begin alike, or are in different lives of the log, are polled apart
   * first, after which each has a cursor.
   */
  async #together() {
    for (let round = 0; round < 3; round += 1) {
      /** @type {Map<string, [Start, string[]]>} */
      const groups = new Map();
      for (const [channel, { at }] of this.host.places) {
        const apart = this.host.apart || (typeof at === "object" && "last" in at);
        const key = `${parseCursor(at)?.[0] ?? JSON.stringify(at)}${apart ? ` ${channel}` : ""}`;
        const [start, channels] = groups.get(key) ?? [at, []];
        groups.set(key, [compare(at, start) < 0 ? at : start, [...channels, channel]]);
      }
      if (groups.size < 2) return;
      this.host.apart = false;
      await Promise.all([...groups.values()].map((group) => this.#apart(...group)));
    }
  }

  /** @param {Start} start @param {string[]} channels */
  async #apart(start, channels) {
    try {
      await this.ask(channels, start);
    } catch (error) {
      const failure = /** @type {Failure} */ (error);
      if (!failure.fatal || channels.length > 1 || this.signal.aborted) throw failure;
      this.host.refused(this, channels[0], failure);
    }
  }

  /** @param {string[]} channels @param {Start} start @param {number} [wait] @returns {Promise<number>} how many came */
  async ask(channels, start, wait) {
    const { items, cursor } = await poll(this.host.net, channels, start, this.signal, wait);
    if (this.signal.aborted) return 0;
    this.host.alive(this);
    for (const [at, item] of items) this.host.item(this, item.channel, at, item);
    this.host.raise(this, channels, cursor);
    return items.length;
  }

}

/** Server-Sent Events, by `fetch`: which sees the status, and can send a token. @implements {Link} */
class Stream extends Requests {
  beats = true;

  async run() {
    const { net } = this.host;
    const { channels } = this;
    const url = net.url(`channels/${channels}`, { ...startFields(this.start()), envelope: 1 });
    const response = await net.ask(url, { headers: { Accept: "text/event-stream" }, signal: this.signal });
    const type = response.headers.get("Content-Type") ?? "";
    if (!type.startsWith("text/event-stream")) throw { reason: `the answer is ${type}, no stream` };
    const events = new EventStream((event) => this.#event(channels, event));
    try {
      for await (const text of texts(response)) {
        if (this.signal.aborted) return;
        this.host.alive(this);
        events.push(text);
        net.retry = events.retry ?? net.retry;
      }
    } catch (error) {
      if (error instanceof SyntaxError) throw error;
    }
    throw { reason: "the stream ended" };
  }

  /** @param {string[]} channels @param {{ id: string, data: string | null }} event */
  #event(channels, { id, data }) {
    const { host } = this;
    if (this.signal.aborted) return;
    host.opened(this);
    if (data === null) {
      host.alive(this, true);
      host.raise(this, channels, id);
    } else {
      const item = itemOf(JSON.parse(data));
      host.item(this, item.channel, isGap(item) ? item.cursor : id, item);
      if (!isGap(item)) host.raise(this, channels, id);
    }
  }
}

/** Ask; the server waits for a message before it answers. @implements {Link} */
class LongPoll extends Requests {
  /** The first poll is answered at once, the next ones wait longer and longer, to see what passes. */
  #wait = 0;

  async run() {
    const { net } = this.host;
    const wait = Math.min(this.#wait, net.wait);
    const asked = Date.now();
    try {
      await this.ask(this.channels, this.start(), wait);
    } catch (error) {
      const failure = /** @type {Failure} */ (error);
      if (!wait || this.signal.aborted) throw failure;
      const lasted = Date.now() - asked;
      const refused = failure.status === 400; // the server allows less
      const calm = refused && wait > SHORTEST_WAIT_MS;
      net.wait = Math.max(SHORTEST_WAIT_MS, Math.min(wait / 2, refused ? wait : lasted * 0.8));
      net.say(`a long poll failed: the next one waits ${Math.round(net.wait)} ms`);
      throw refused ? { ...failure, fatal: false, calm, retry: -1 } : failure;
    }
    this.#wait = Math.max(this.#wait * 2, net.open);
    this.host.opened(this, wait > 0);
  }
}

/** Ask, and again after a while. @implements {Link} */
class ShortPoll extends Requests {
  async run() {
    const count = await this.ask(this.channels, this.start());
    this.host.opened(this, true);
    if (count < MANY) await sleep(this.host.net.timing.poll * (0.8 + 0.4 * Math.random()));
  }
}

/** By name, best first. @type {Record<string, new (host: Host) => Link>} */
export const LINKS = { websocket: Socket, sse: Stream, "long-poll": LongPoll, "short-poll": ShortPoll };
