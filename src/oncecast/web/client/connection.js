/**
 * One connection to the server: which transport, when to reconnect, when to go down a transport or up again.
 * Invariant: at most one link delivers, `current`; a better one is tried beside it, and replaces it in one step at the
 * places where its channels are. What a link repeats is dropped here.
 */

import { LINKS } from "./links.js";
import { recall, remember } from "./memory.js";
import { backoff, createTimer } from "./net.js";
import { goesOn, parseCursor } from "./wire.js";

/** @import { Failure, Host, Item, Link, Net, Place, Start, State, Tell, TransportName } from "./types.js" */

/** The legal moves: from a state, by an event, to a state. @type {Record<State, Record<string, State>>} */
export const MOVES = {
  idle: { wanted: "connecting", closed: "closed" },
  connecting: { opened: "live", lost: "waiting", unwanted: "idle", closed: "closed" },
  live: { lost: "waiting", unwanted: "idle", closed: "closed" },
  waiting: { due: "connecting", opened: "live", unwanted: "idle", closed: "closed" },
  closed: {},
};

const STRIKES = 3; // so often may a transport fail or be cut early before the next one gets its turn
const SILENT_BEATS = 2.5;
const FIRST_PROBE = 0.1; // of the longest time between two probes; each waits twice as long as the one before
const OPEN_MAX_MS = 20_000;
const TICK_MS = 1_000;
const SLEPT_MS = 3_000; // a tick that is later than this: the machine has slept, or the page was frozen

/** What may mean that the network has changed. @type {[any, string][]} */
const WAKERS = [
  [globalThis, "online"],
  [globalThis, "offline"],
  [globalThis.document, "visibilitychange"],
];

/**
 * What a connection is told by those who listen, what its links tell it, and how it is.
 * @param {Net} net
 * @param {TransportName[]} ladder
 * @param {Tell} tell
 */
export function createConnection(net, ladder, tell) {
  /** @type {Map<string, Place>} */
  const places = new Map();
  const host = {
    net,
    places,
    apart: false,
    state: /** @type {State} */ ("idle"),
    transport: /** @type {TransportName | null} */ (null),
    add,
    remove,
    close,
    opened,
    alive,
    item,
    raise,
    refused,
    lost,
  };
  /** @type {Link | null} */
  let current = null;
  /** The link of a better transport, on trial. @type {Link | null} */
  let rival = null;
  let rung = Math.max(0, ladder.indexOf(recall(net))); // of the ladder
  let rivalRung = 0;
  let why = rung ? "it worked here last time" : "the first choice";
  let openedAt = 0; // 0: not yet
  let heard = 0;
  let beatAt = 0;
  let interval = net.timing.heartbeat;
  let beaten = false; // whether a heartbeat has come, so that `interval` is no guess
  let strikes = 0;
  let failures = 0;
  let probes = 0;
  let refusals = 0;
  let tickAt = 0;
  const proven = new Set(); // rungs that have worked
  const cut = new Set(); // rungs that were cut early: a probe has to stand for a while
  const retryTimer = createTimer();
  const openTimer = createTimer();
  const probeTimer = createTimer();
  /** @type {any} */
  let ticker;

  for (const [target, name] of WAKERS) target?.addEventListener?.(name, wake);
  return host;

  /** Listen to a channel, from there. @param {string} channel @param {Start} at */
  function add(channel, at) {
    places.set(channel, { at, told: at });
    if (host.state === "idle") begin("wanted");
    else current?.adjust();
  }

  /** @param {string} channel */
  function remove(channel) {
    if (!places.delete(channel)) return;
    if (places.size) current?.adjust();
    else rest("unwanted", "nothing is wanted");
  }

  function close() {
    places.clear();
    rest("closed", "it was closed");
    for (const [target, name] of WAKERS) target?.removeEventListener?.(name, wake);
  }

  // What a link calls

  /** @param {Link} link */
  function opened(link, proved = false) {
    if (link === rival) {
      current?.close();
      current = link;
      rival = null;
      rung = rivalRung;
      why = `${ladder[rung]} works by now`;
    } else if (link !== current || openedAt) {
      if (link === current && proved) strikes = 0;
      return;
    }
    retryTimer();
    openTimer();
    openedAt = heard = beatAt = Date.now();
    beaten = false;
    failures = refusals = 0;
    proven.add(rung);
    move("opened", "the server has answered");
    const [from, to] = [host.transport, ladder[rung]];
    if (from !== to) {
      host.transport = to;
      probes = 0;
      remember(net, to);
      net.say(`messages come by ${to}: ${why}`);
      tell("transport", { from, to, reason: why });
    }
    planProbe();
  }

  /** @param {Link} link */
  function alive(link, beat = false) {
    if (link !== current) return;
    const now = (heard = Date.now());
    if (!link.beats) openTimer(); // a poll's answer has a deadline of its own
    if (!beat || !openedAt) return;
    const spacing = now - beatAt;
    beatAt = now;
    if (spacing < net.timing.heartbeat / 100) return; // the opening
    interval = beaten ? Math.max(interval * 0.8, spacing) : spacing;
    beaten = true;
  }

  /** @param {Link} link @param {string} channel @param {string} cursor @param {Item} item */
  function item(link, channel, cursor, item) {
    const place = link === current && places.get(channel);
    if (!place || !goesOn(cursor, place.at, item)) return;
    const { told } = place;
    place.at = place.told = cursor;
    tell("told", channel, told, cursor, item);
  }

  /** @param {Link} link @param {Iterable<string>} channels @param {string} cursor */
  function raise(link, channels, cursor) {
    if (link !== current) return;
    for (const channel of channels) {
      const place = places.get(channel);
      if (!place || !goesOn(cursor, place.at)) continue;
      const { told } = place;
      if (!parseCursor(place.at)) place.told = cursor;
      place.at = cursor;
      tell("told", channel, told, cursor);
    }
  }

  /** @param {Link} link @param {string} channel @param {Failure} failure */
  function refused(link, channel, failure) {
    if (link === current) refuse([channel], failure);
  }

  /** @param {Link} link @param {Failure} failure */
  function lost(link, failure) {
    if (link === rival) return probeFailed(failure.reason);
    if (link !== current) return;
    link.close();
    current = null;
    openTimer();
    move("lost", failure.reason);
    if (failure.fatal && isFinal(failure)) return refuse([...places.keys()], failure);
    let { calm, retry = 0 } = failure;
    if (failure.fatal && refusals) [calm, retry] = [true, -1];
    const before = rung;
    if (!calm) judge(failure.reason);
    // Down the ladder for the first time there is nothing to wait for.
    const atOnce = retry < 0 || (rung > before && failures < ladder.length);
    const pause = atOnce ? 0 : Math.max(backoff(net.retry, failures), retry * (1 + Math.random() / 5));
    if (!calm) failures += 1;
    openedAt = 0;
    net.say(`${failure.reason}; ${ladder[rung]} is next, in ${Math.round(pause)} ms`);
    retryTimer(() => begin("due"), pause);
  }

  // Which transport

  /** Count what speaks against the transport; at the third strike the next one has its turn. @param {string} reason */
  function judge(reason) {
    if (globalThis.navigator?.onLine === false) return;
    if (!openedAt) {
      strikes += proven.has(rung) ? 1 : STRIKES;
    } else if (Date.now() - openedAt < net.timing.early) {
      strikes += 1;
      cut.add(rung);
    } else {
      strikes = 0;
    }
    if (strikes < STRIKES) return;
    strikes = 0;
    why = `${ladder[rung]} does not work: ${reason}`;
    rung = (rung + 1) % ladder.length;
    // None works, perhaps because the network is slow.
    if (!rung) net.open = Math.min(net.open * 2, OPEN_MAX_MS);
  }

  /** Whether there is nothing left to try. @param {Failure} failure */
  function isFinal({ code, status }) {
    // What is no error of ours comes from something in between, that another transport may pass.
    if (!code) return rung === ladder.length - 1;
    // A token may have run out: HTTP has renewed it, a socket has not. Of several channels one may be the cause.
    const once = code === "4401" || places.size > 1;
    if (!once || refusals++) return true;
    if (status === 401) net.token(true).catch(() => {});
    host.apart = true;
    return false;
  }

  /** @param {string[]} channels @param {Failure} failure */
  function refuse(channels, failure) {
    for (const channel of channels) {
      places.delete(channel);
      net.say(`${channel} is refused: ${failure.reason}`);
      tell("refused", channel, failure);
    }
    if (!places.size) rest("unwanted", failure.reason);
  }

  /** @param {string} event */
  function begin(event) {
    move(event, `by ${ladder[rung]}`);
    openedAt = 0;
    heard = tickAt = Date.now();
    ticker ??= setInterval(tick, Math.min(TICK_MS, net.timing.heartbeat / 5));
    const { open } = net;
    const link = (current = create(rung));
    openTimer(() => lost(link, { reason: `nothing came within ${open} ms` }), open);
  }

  /** @param {number} level @param {Host} [listener] @returns {Link} */
  function create(level, listener = host) {
    return LINKS[ladder[level]](listener);
  }

  // Upwards again

  function planProbe() {
    endProbe();
    if (!rung) return;
    const { probe } = net.timing;
    const pause = Math.min(probe, probe * FIRST_PROBE * 2 ** probes++) * (0.8 + Math.random() / 5);
    probeTimer(() => tryFrom(0), pause);
  }

  /** @param {number} level */
  function tryFrom(level) {
    endProbe();
    if (level >= rung) return planProbe();
    const { open } = net;
    rivalRung = level;
    net.say(`trying whether ${ladder[level]} works by now`);
    rival = create(level, cut.has(level) ? trial(level) : host);
    probeTimer(() => probeFailed(`nothing came within ${open} ms`), open);
  }

  /** The host of a link that was cut early before: nobody listens to it, it only has to stand. @param {number} level */
  function trial(level) {
    const nothing = () => {};
    let stands = false;
    return {
      ...host,
      places: new Map(places),
      apart: false,
      alive: nothing,
      item: nothing,
      raise: nothing,
      refused: nothing,
      opened: () => {
        if (stands) return;
        stands = true;
        probeTimer(() => {
          cut.delete(level);
          tryFrom(level);
        }, net.timing.early);
      },
    };
  }

  /** @param {string} reason */
  function probeFailed(reason) {
    net.say(`${ladder[rivalRung]} does not work yet: ${reason}`);
    tryFrom(rivalRung + 1);
  }

  function endProbe() {
    probeTimer();
    rival?.close();
    rival = null;
  }

  // Whether it lives

  function tick() {
    const now = Date.now();
    const late = now - tickAt > SLEPT_MS;
    const silent = now - heard;
    tickAt = now;
    if (host.state !== "live") return;
    if (late && silent > interval) return check("the clock has jumped");
    if (!current?.beats || silent < SILENT_BEATS * interval) return;
    if (!beaten) interval *= 2; // perhaps this server's heartbeat is only slower than was thought
    lost(current, { reason: `nothing came for ${Math.round(silent / 1000)} s` });
  }

  /** @param {Event} event */
  function wake({ type }) {
    if (globalThis.document?.hidden) return;
    if (host.state === "waiting" && type === "online") {
      retryTimer();
      failures = 0;
      begin("due");
    } else if (host.state === "live" && (type !== "visibilitychange" || Date.now() - heard > interval)) {
      check(`the browser says ${type}`);
    }
  }

  /** @param {string} reason */
  function check(reason) {
    const { open } = net;
    const link = /** @type {Link} */ (current);
    const heardAt = heard;
    net.say(`${reason}: is the connection still alive?`);
    openTimer(() => {
      if (heard === heardAt) lost(link, { reason: `${reason}, and nothing came`, calm: true, retry: -1 });
    }, open);
    link.check(reason);
  }

  // Helpers

  /** Be done with every link. @param {"unwanted" | "closed"} event @param {string} reason */
  function rest(event, reason) {
    endProbe();
    current?.close();
    current = ticker = (clearInterval(ticker), null);
    retryTimer();
    openTimer();
    move(event, reason);
  }

  /** @param {string} event @param {string} reason */
  function move(event, reason) {
    const [from, to] = [host.state, MOVES[host.state][event]];
    if (!to) return; // a loss while waiting, or a probe that opens while live, moves nothing
    host.state = to;
    net.say(`${from} → ${to}: ${reason}`);
    tell("state", { from, to, reason });
  }
}
