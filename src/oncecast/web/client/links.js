/**
 * The four ways to listen. Each is given a host with the places of its channels, reports what comes, and ends with
 * `lost`; whether and how to go on is the connection's to decide. What a server sends may be anything: where it makes
 * this code throw, the link is lost.
 * To add a way, write a function that returns a `Link`, and name it in `LINKS`.
 */

import { failureOf, passes, pauseOf, poll, refuses, sleep, texts } from "./net.js";
import { compare, isGap, itemOf, parseCursor, readEvents, startFields } from "./wire.js";

/** @import { Failure, Host, Link, Start } from "./types.js" */

const PROTOCOL = "oncecast.v1";
const NOBODY = "oncecast:alive"; // nobody subscribes to it, and the answer to its unsubscribe shows life
const MANY = 100; // so many messages in an answer, and there may be more: ask again at once
const SHORTEST_WAIT_MS = 800;
const RETRY_MIN_MS = 100; // that no server makes this client hammer at it
const ROUNDS = 3; // to bring channels together; past that one may be told what it has had

/** @param {Host} host @returns {Link} */
function openSocket(host) {
  const { net, places } = host;
  /** The `ref` that each channel was subscribed with. @type {Map<string, number>} */
  const refs = new Map();
  let lastRef = 0;
  /** The channels whose `subscribed` has come. What comes of others is of a subscription that was given up. */
  const attached = new Set();
  /** @type {any} */
  let socket = null;
  const link = { beats: true, adjust, check, close };
  const lose = (/** @type {Failure} */ failure) => host.lost(link, failure);

  const url = net.url("connect");
  url.protocol = url.protocol.replace("http", "ws");
  try {
    socket = new net.WebSocket(url, PROTOCOL);
  } catch (error) {
    queueMicrotask(() => lose(failureOf(error))); // a policy of the page forbids it
    return link;
  }
  socket.onopen = begin;
  socket.onmessage = (/** @type {{ data: string }} */ { data }) => {
    try {
      if (socket) read(JSON.parse(data));
    } catch (error) {
      lose(failureOf(error));
    }
  };
  socket.onerror = () => {};
  socket.onclose = (/** @type {CloseEvent} */ { code, reason }) => {
    const status = code - 4000;
    // The server's own codes are 4000 + status. What breaks the frames, 1002 or 1007, may stand in between.
    lose({ reason: `closed with ${code}${reason && `, ${reason}`}`, fatal: refuses(status), status, code: `${code}` });
  };
  return link;

  async function begin() {
    try {
      // No header can be set here. A server without access rules answers with an error, which nobody waits for.
      const token = await net.token();
      if (token) send({ type: "auth", token });
      adjust();
    } catch (error) {
      lose(failureOf(error));
    }
  }

  function adjust() {
    if (socket?.readyState !== 1) return;
    for (const channel of refs.keys()) {
      if (places.has(channel)) continue;
      forget(channel);
      send({ type: "unsubscribe", channel });
    }
    for (const [channel, { at }] of places) {
      if (refs.has(channel)) continue;
      refs.set(channel, ++lastRef);
      send({ type: "subscribe", channel, ...startFields(at), ref: lastRef });
    }
  }

  function check() {
    if (socket?.readyState === 1) send({ type: "unsubscribe", channel: NOBODY });
  }

  function close() {
    const open = socket;
    socket = null;
    open?.close(1000);
  }

  /** @param {object} frame */
  function send(frame) {
    socket?.send(JSON.stringify(frame));
  }

  /** @param {string} channel */
  function forget(channel) {
    refs.delete(channel);
    attached.delete(channel);
  }

  /** @param {any} frame */
  function read(frame) {
    const { type, channel, cursor, ref, code } = frame;
    host.alive(link, type === "cursor");
    if (type === "subscribed" && refs.get(channel) === ref) {
      attached.add(channel);
      host.opened(link);
      host.raise(link, [channel], cursor);
    } else if (type === "message" || type === "gap") {
      if (attached.has(channel)) host.item(link, channel, cursor ?? frame.id, itemOf(frame));
    } else if (type === "cursor") {
      host.raise(link, attached, cursor);
    } else if (type === "drain") {
      lose({ reason: "the server is about to stop", retry: pauseOf(frame.retry_after_ms), calm: true });
    } else if (type === "error") {
      const failure = { reason: `${code}: ${frame.message}`, code, fatal: true };
      for (const [channel, its] of refs) {
        if (its !== ref) continue;
        if (passes(code)) return lose({ ...failure, fatal: false, calm: true });
        forget(channel);
        host.refused(link, channel, failure);
      }
    }
  }
}

/**
 * What the ways over HTTP share: one request has all channels, so another set of them takes another request.
 * @param {Host} host
 * @param {(round: Round) => Promise<void>} run one request, which a way to listen writes
 * @param {boolean} [beats]
 * @returns {Link}
 */
function repeat(host, run, beats) {
  const { net, places } = host;
  const abort = new AbortController();
  const { signal } = abort;
  let stale = true; // a change of the channels needs no further restart
  const link = { beats, adjust, check, close: () => abort.abort() };
  begin();
  return link;

  async function begin() {
    await null; // those who subscribe in the same turn come along
    stale = false;
    try {
      await meet();
      while (!signal.aborted) {
        const channels = [...places.keys()];
        // The earliest, as each drops what it has had.
        const start = [...places.values()]
          .map((place) => place.at)
          .reduce((first, next) => (compare(next, first) < 0 ? next : first));
        await run({ link, signal, channels, start, ask: (wait) => ask(channels, start, wait) });
      }
    } catch (error) {
      if (!signal.aborted) host.lost(link, failureOf(error));
    }
  }

  /** Several changes in one turn are one. */
  function adjust() {
    if (stale) return;
    stale = true;
    queueMicrotask(() => check("the channels have changed"));
  }

  /** @param {string} reason */
  function check(reason) {
    if (!signal.aborted) host.lost(link, { reason, calm: true, retry: -1 });
  }

  /**
   * A request has one start. Channels that do not begin alike, or are in different lives of the log, are polled apart
   * first, after which each has a cursor.
   */
  async function meet() {
    for (let round = 0; round < ROUNDS; round += 1) {
      /** @type {Record<string, [Start, string[]]>} */
      const groups = {};
      for (const [channel, { at }] of places) {
        const apart = host.apart || (typeof at === "object" && "last" in at);
        const group = (groups[`${parseCursor(at)?.[0] ?? JSON.stringify(at)} ${apart && channel}`] ??= [at, []]);
        if (compare(at, group[0]) < 0) group[0] = at;
        group[1].push(channel);
      }
      const all = Object.values(groups);
      if (all.length < 2) return;
      host.apart = false;
      await Promise.all(
        all.map(async ([start, channels]) => {
          try {
            await ask(channels, start);
          } catch (error) {
            const failure = failureOf(error);
            if (!failure.fatal || channels.length > 1 || signal.aborted) throw failure;
            host.refused(link, channels[0], failure);
          }
        }),
      );
    }
  }

  /** @param {string[]} channels @param {Start} start @param {number} [wait] @returns {Promise<number>} how many came */
  async function ask(channels, start, wait) {
    const { items, cursor, pause } = await poll(net, channels, start, signal, wait);
    if (signal.aborted) return 0;
    host.alive(link);
    for (const [at, item] of items) host.item(link, item.channel, at, item);
    host.raise(link, channels, cursor);
    if (pause) await sleep(pause);
    return items.length;
  }
}

/**
 * One request: for which channels, from where, and how to ask for it as a poll.
 * @typedef {{ link: Link, signal: AbortSignal, channels: string[], start: Start,
 *   ask(wait?: number): Promise<number> }} Round
 */

/** Server-Sent Events, by `fetch`: which sees the status, and can send a token. @param {Host} host */
function openStream(host) {
  const { net } = host;
  return repeat(
    host,
    async ({ link, signal, channels, start }) => {
      const url = net.url(`channels/${channels}`, { ...startFields(start), envelope: 1 });
      const response = await net.ask(url, { headers: { Accept: "text/event-stream" }, signal });
      const type = response.headers.get("Content-Type") ?? "";
      if (!type.startsWith("text/event-stream")) throw { reason: `the answer is ${type}, no stream` };
      const read = readEvents(
        (id, data) => {
          if (signal.aborted) return;
          host.opened(link);
          const item = data && itemOf(JSON.parse(data));
          if (item) host.item(link, item.channel, isGap(item) ? item.cursor : id, item);
          else host.alive(link, true);
          if (!item || !isGap(item)) host.raise(link, channels, id);
        },
        (milliseconds) => (net.retry = Math.max(milliseconds, RETRY_MIN_MS)),
      );
      for await (const text of texts(response)) {
        if (signal.aborted) return;
        host.alive(link);
        read(text);
      }
      throw { reason: "the stream ended" };
    },
    true,
  );
}

/** Ask; the server waits for a message before it answers. @param {Host} host */
function pollLong(host) {
  const { net } = host;
  /** The first poll is answered at once, the next ones wait longer and longer, to see what passes. */
  let next = 0;
  return repeat(host, async ({ link, signal, ask }) => {
    const wait = Math.min(next, net.wait);
    const asked = Date.now();
    try {
      await ask(wait);
    } catch (error) {
      const failure = failureOf(error);
      if (!wait || signal.aborted) throw failure;
      const lasted = Date.now() - asked;
      const refused = failure.status === 400; // the server allows less
      const calm = refused && wait > SHORTEST_WAIT_MS;
      net.wait = Math.max(SHORTEST_WAIT_MS, Math.min(wait / 2, refused ? wait : lasted * 0.8));
      net.say(`a long poll failed: the next one waits ${Math.round(net.wait)} ms`);
      throw refused ? { ...failure, fatal: false, calm, retry: -1 } : failure;
    }
    next = Math.max(next * 2, net.open);
    host.opened(link, wait > 0);
  });
}

/** Ask, and again after a while. @param {Host} host */
function pollShort(host) {
  return repeat(host, async ({ link, ask }) => {
    const count = await ask();
    host.opened(link, true);
    if (count < MANY) await sleep(host.net.timing.poll * (0.8 + 0.4 * Math.random()));
  });
}

/** By name, best first. @type {Record<string, (host: Host) => Link>} */
export const LINKS = { websocket: openSocket, sse: openStream, "long-poll": pollLong, "short-poll": pollShort };
