/**
 * The transports over HTTP: Server-Sent Events, long polls, short polls. A request has a fixed set of channels, so
 * another set takes another request; channels whose names do not fit into one URL take several at a time.
 */

import { failureOf } from "./errors.js";
import { pauseOf, poll, texts } from "./net.js";
import { readEvents } from "./events.js";
import { createTimer, now, sleep } from "./time.js";
import { compare, isGap, itemOf, parseCursor, startFields } from "./wire.js";

/** @import { Failure, Host, Item, Link, Place, Start } from "./internal.js" */

const MANY = 100; // messages in an answer: there may be more, so ask again at once
const SHORTEST_WAIT_MS = 800;
const RETRY_MIN_MS = 100; // the least pause that a server can ask for
const ROUNDS = 3; // to bring channels together; after that, a channel may be sent what it has had
const AT_ONCE = 6; // requests: a browser's limit for one server over HTTP/1.1
const CHANNELS = 64; // of one request, as servers allow by default
const CHANGE_MS = 100; // a request lives at least this long before other channels replace it
const URL_ROOM = 200; // characters of a URL beside the names: a cursor and a query

/**
 * One request: for which channels, from where, and how to ask for it as a poll. `alive` reaches the host once each of the
 * requests at work has called it, so that none of them may fall silent.
 * @typedef {{ link: Link, signal: AbortSignal, channels: string[], start: Start,
 *   ask(wait?: number): Promise<number>, alive(beat?: boolean): void,
 *   item(channel: string, cursor: string, item: Item): void, raise(channels: string[], cursor: string): void }} Round
 */

/**
 * What the three transports share.
 * @param {Host} host
 * @param {(round: Round) => Promise<void>} run one request
 * @param {boolean} [beats] whether heartbeats come by it
 * @returns {Link}
 */
function repeat(host, run, beats) {
  const { net, places } = host;
  const abort = new AbortController();
  const { signal } = abort;
  /** The channels that are asked for, or null where the next request takes those of then. @type {Place[] | null} */
  let asked = null;
  /** The places that the requests began at. A channel that was given up and added again is at another one. */
  const serving = new Map();
  const bornAt = now();
  const changeTimer = createTimer();
  const link = { beats, adjust, close };
  begin();
  return link;

  async function begin() {
    await null; // channels that are added in the same turn come along
    asked = [...places.values()];
    try {
      await meet();
      if (asked) asked = [...places.values()];
      const parts = split([...places.keys()]);
      const alive = every(parts.length, (beat) => host.alive(link, beat));
      await Promise.all(
        parts.map(async (channels, index) => {
          while (!signal.aborted) {
            const start = earliest(channels);
            if (start === null) {
              await sleep(CHANGE_MS, signal); // another set of channels is about to be asked for
              continue;
            }
            serve(channels);
            await run({
              link,
              signal,
              channels,
              start,
              item,
              raise,
              ask: (wait) => ask(channels, earliest(channels) ?? start, () => alive(index), wait),
              alive: (beat) => alive(index, beat),
            });
          }
        }),
      );
    } catch (error) {
      if (!signal.aborted) host.lost(link, tooLong(failureOf(error)));
    }
  }

  /** Take what a request that begins now brings of these channels. @param {Iterable<string>} channels */
  function serve(channels) {
    for (const channel of channels) serving.set(channel, places.get(channel));
  }

  /** @param {string} channel */
  function serves(channel) {
    return serving.has(channel) && serving.get(channel) === places.get(channel);
  }

  /** @param {string} channel @param {string} cursor @param {Item} item */
  function item(channel, cursor, item) {
    if (serves(channel)) host.item(link, channel, cursor, item);
  }

  /** @param {string[]} channels @param {string} cursor */
  function raise(channels, cursor) {
    host.raise(link, channels.filter(serves), cursor);
  }

  /**
   * Where a request begins that has all these channels: each drops what it has had. A channel that was given up begins
   * nowhere. Null where none is left, or where one was added again at a start that cannot be compared.
   * @param {string[]} channels @returns {Start | null}
   */
  function earliest(channels) {
    /** @type {Start | null} */
    let first = null;
    for (const { at } of channels.flatMap((channel) => places.get(channel) ?? [])) {
      const order = first === null ? -1 : compare(at, first);
      const apart = Number.isNaN(order) && JSON.stringify(at) !== JSON.stringify(first);
      if (apart && !asked) return null; // it was added again meanwhile, and another link is about to take over
      if (order < 0) first = at;
    }
    return first;
  }

  /** Channels in parts whose names fit into a URL. @param {string[]} channels */
  function split(channels) {
    /** @type {string[][]} */
    const parts = [];
    let room = 0;
    for (const channel of channels) {
      room -= channel.length + 1;
      if (room < 0 || !parts.length || parts[parts.length - 1].length === CHANNELS) {
        parts.push([]);
        room = net.urlMax - URL_ROOM - channel.length;
      }
      parts[parts.length - 1].push(channel);
    }
    return parts;
  }

  /** Where the URL was refused for its length, and could be shorter, the next ones are. @param {Failure} failure */
  function tooLong(failure) {
    const length = places.size && Math.max(...split([...places.keys()]).map((part) => `${part}`.length));
    if (failure.status !== 414 || split([...places.keys()]).length === places.size) return failure;
    net.urlMax = length / 2 + URL_ROOM;
    net.say(`a URL was too long: the next ones have at most ${Math.round(net.urlMax)} characters`);
    return { ...failure, fatal: false, calm: true, retry: -1 };
  }

  function close() {
    abort.abort();
    changeTimer();
  }

  /** Several changes in a short time are one. */
  function adjust() {
    if (!asked) return;
    const before = asked;
    asked = null;
    changeTimer(
      () => {
        const wanted = [...places.values()];
        if (wanted.length === before.length && wanted.every((place) => before.includes(place))) asked = before;
        else host.lost(link, { reason: "the channels have changed", calm: true, retry: -1 });
      },
      CHANGE_MS - (now() - bornAt),
    );
  }

  /**
   * A request has one start. Channels that do not begin alike, or are in different lives of the log, are polled apart
   * first, after which each has a cursor.
   */
  async function meet() {
    for (let round = 0; round < ROUNDS; round += 1) {
      /** @type {Record<string, [Start, string[]]>} */
      const groups = {};
      serve(places.keys());
      for (const [channel, { at }] of places) {
        const apart = host.apart || (typeof at === "object" && "last" in at);
        const group = (groups[`${parseCursor(at)?.[0] ?? JSON.stringify(at)} ${apart && channel}`] ??= [at, []]);
        if (compare(at, group[0]) < 0) group[0] = at;
        group[1].push(channel);
      }
      if (Object.keys(groups).length < 2) return;
      host.apart = false;
      const all = Object.values(groups).flatMap(([start, channels]) =>
        split(channels).map((part) => /** @type {const} */ ([start, part])),
      );
      const next = async () => {
        for (let group; (group = all.pop()) && !signal.aborted; ) await meetPart(...group);
      };
      await Promise.all(Array.from({ length: AT_ONCE }, next));
    }
  }

  /** @param {Start} start @param {string[]} channels */
  async function meetPart(start, channels) {
    try {
      await ask(channels, start, () => host.alive(link));
    } catch (error) {
      const failure = failureOf(error);
      if (!failure.fatal || channels.length > 1 || signal.aborted) throw failure;
      if (serves(channels[0])) host.refused(link, channels[0], failure);
    }
  }

  /**
   * @param {string[]} channels @param {Start} start @param {() => void} alive @param {number} [wait] milliseconds
   * @returns {Promise<number>} the number of messages, 0 where the cursor has not moved: a cache may repeat a page
   */
  async function ask(channels, start, alive, wait) {
    const { items, cursor, pause } = await poll(net, channels, start, signal, { wait });
    if (signal.aborted) return 0;
    alive();
    for (const [at, each] of items) item(each.channel, at, each);
    raise(channels, cursor);
    if (pause) await sleep(pause, signal);
    return cursor === start ? 0 : items.length;
  }
}

/**
 * Call `task` each time that all of `count` have called, with what the first of them said.
 * @param {number} count
 * @param {(said?: boolean) => void} task
 */
function every(count, task) {
  const called = new Set();
  return (/** @type {number} */ index, /** @type {boolean} */ said = false) => {
    called.add(index);
    if (called.size < count) return;
    called.clear();
    task(said);
  };
}

/** Server-Sent Events, by `fetch`: which sees the status, and can send a token. @param {Host} host */
export function openStream(host) {
  const { net } = host;
  return repeat(
    host,
    async ({ link, signal, channels, start, alive, item, raise }) => {
      const url = net.url(`channels/${channels}`, { ...startFields(start), envelope: 1 });
      const response = await net.ask(url, { headers: { Accept: "text/event-stream" }, signal });
      const type = response.headers.get("Content-Type") ?? "";
      if (!type.startsWith("text/event-stream")) throw { reason: `the answer is ${type}, no stream` };
      const heartbeat = pauseOf(Number(response.headers.get("Oncecast-Heartbeat")) * 1000);
      if (heartbeat) [net.heartbeat, net.announced] = [heartbeat, true];
      let first = true; // the opening, which has an id without data, as a heartbeat has
      const read = readEvents(
        (id, data) => {
          if (signal.aborted) return;
          host.opened(link);
          const come = data && itemOf(JSON.parse(data));
          if (come && !come.channel) return said(/** @type {any} */ (come));
          if (come) item(come.channel, isGap(come) ? come.cursor : id, come);
          else if (!first) alive(true);
          if (!come || !isGap(come)) raise(channels, id);
          first = false;
        },
        (milliseconds) => (net.retry = Math.max(milliseconds, RETRY_MIN_MS)),
      );
      /** What the stream says about itself. @param {{ error?: { code: string, message: string } }} about */
      function said({ error }) {
        if (error) throw { reason: `${error.code}: ${error.message}`, calm: true }; // the next request will have a status
        const ending = { reason: "the token is about to end", calm: true, retry: -1 };
        net.renew().then((token) => token && host.lost(link, ending), () => {});
      }
      for await (const text of texts(response)) {
        if (signal.aborted) return;
        alive();
        read(text);
      }
      throw { reason: "the stream ended" };
    },
    true,
  );
}

/** Ask; the server waits for a message before it answers. @param {Host} host */
export function pollLong(host) {
  const { net } = host;
  /** The first poll is answered at once, the next ones wait longer and longer, to see what passes. */
  let next = 0;
  return repeat(host, async ({ link, signal, ask }) => {
    const wait = Math.min(next, net.wait);
    const asked = now();
    let count = 0;
    try {
      count = await ask(wait);
    } catch (error) {
      const failure = failureOf(error);
      if (!wait || signal.aborted) throw failure;
      const lasted = now() - asked;
      const refused = failure.status === 400; // the server allows less
      const calm = refused && wait > SHORTEST_WAIT_MS;
      net.wait = Math.max(SHORTEST_WAIT_MS, Math.min(wait / 2, refused ? wait : lasted * 0.8));
      net.say(`a long poll failed: the next one waits ${Math.round(net.wait)} ms`);
      throw refused ? { ...failure, fatal: false, calm, retry: -1 } : failure;
    }
    next = Math.max(next * 2, net.open);
    host.opened(link, wait > 0);
    const early = Math.min(wait, net.timing.poll) - (now() - asked);
    if (!count && early > 0) await sleep(early, signal); // a server that won't wait, or a cache before it
  });
}

/** Ask, and again after a while. @param {Host} host */
export function pollShort(host) {
  return repeat(host, async ({ link, signal, ask }) => {
    const count = await ask();
    host.opened(link, true);
    if (count < MANY) await sleep(host.net.timing.poll * (0.8 + 0.4 * Math.random()), signal);
  });
}
