/**
 * One connection to the server: when to connect, when to reconnect, when to try a better transport.
 * Invariant: at most one link delivers, `current`. Another one, `rival`, is tried beside it where a better transport may
 * work by now, or where `current` may be dead and cannot be asked; it replaces `current` in one step, at the places where
 * its channels are.
 */

import { createLadder } from "./ladder.js";
import { LINKS } from "./links.js";
import { createLiveness } from "./liveness.js";
import { remember } from "./memory.js";
import { createPlaces } from "./places.js";
import { createStates } from "./states.js";
import { backoff, createDeadline, createTimer, now } from "./time.js";

/** @import { Failure, Host, Item, Link, Net, Start, Tell } from "./internal.js" */
/** @import { TransportName } from "./types.js" */

const FIRST_PROBE = 0.1; // of the longest time between two probes; each waits twice as long as the one before

/** Events that may mean that the network has changed. @type {[any, string][]} */
const WAKERS = [
  [globalThis, "online"],
  [globalThis, "offline"],
  [globalThis.document, "visibilitychange"],
];

/**
 * @param {Net} net
 * @param {TransportName[]} names of the transports, best first
 * @param {Tell} tell
 */
export function createConnection(net, names, tell) {
  const kept = createPlaces(tell);
  const { places } = kept;
  const host = {
    net,
    places,
    apart: false,
    get state() {
      return states.now;
    },
    transport: /** @type {TransportName | null} */ (null),
    add,
    remove,
    clear,
    close,
    opened,
    alive,
    item,
    raise,
    refused,
    lost,
  };
  const ladder = createLadder(net, names);
  const states = createStates((change) => {
    net.say(`${change.from} → ${change.to}: ${change.reason}`);
    tell("state", change);
  });
  const { move } = states;
  /** @type {Link | null} */
  let current = null;
  /** The link on trial. @type {Link | null} */
  let rival = null;
  let rivalRung = 0;
  let renewing = false; // `rival` is to replace a link that may be dead
  let openedAt = 0; // 0: not yet
  let checking = false;
  let silence = false; // what is checked is a silence, and not a change of the network
  let failures = 0;
  let probes = 0;
  let planned = false; // a probe is due at some time
  let refusals = 0;
  const retryTimer = createTimer();
  const lingerTimer = createTimer();
  const openTimer = createDeadline();
  const probeTimer = createDeadline();
  const liveness = createLiveness(net, (reason, silent) => {
    if (host.state === "live" && (!silent || current?.beats)) check(reason, silent);
  });

  for (const [target, name] of WAKERS) target?.addEventListener?.(name, wake);
  return host;

  /** Listen to a channel, from there. @param {string} channel @param {Start} at */
  function add(channel, at) {
    const lingered = !places.size && host.state === "live";
    lingerTimer();
    kept.add(channel, at);
    if (lingered) planProbe();
    if (host.state === "idle") begin("wanted");
    else current?.adjust();
  }

  /** @param {string} channel */
  function remove(channel) {
    if (!places.delete(channel)) return;
    const lingers = current?.lingers && host.state === "live";
    if (!places.size && !lingers) return rest("unwanted", "no channel is wanted");
    current?.adjust();
    if (places.size) return;
    endProbe();
    lingerTimer(() => rest("unwanted", "no channel is wanted"), net.timing.linger);
  }

  function clear() {
    places.clear();
    rest("unwanted", "another tab listens");
  }

  function close() {
    places.clear();
    rest("closed", "it was closed");
    for (const [target, name] of WAKERS) target?.removeEventListener?.(name, wake);
  }

  // What a link calls

  /** @param {Link} link */
  function opened(link, proved = false) {
    const replaces = link === rival;
    if (replaces) {
      current?.close();
      current = link;
      rival = null;
    } else if (link !== current || openedAt) {
      if (link === current && proved) ladder.proved();
      return;
    }
    const silent = replaces && renewing && silence;
    renewing = false;
    ladder.opened(replaces ? rivalRung : ladder.rung);
    retryTimer();
    openTimer();
    openedAt = now();
    checking = false;
    failures = refusals = 0;
    liveness.start();
    move("opened", "the server has answered");
    const [from, to] = [host.transport, names[ladder.rung]];
    if (from !== to) {
      host.transport = to;
      probes = 0;
      remember(net, to);
      net.say(`messages come by ${to}: ${ladder.why}`);
      tell("transport", { from, to, reason: ladder.why });
    }
    if (silent && ladder.silent()) return lost(link, { reason: ladder.why, calm: true, retry: -1 });
    // A link that opens again, as streams do whose tokens end, does not put a probe off that is due.
    if (from !== to || !(planned || rival)) planProbe();
    if (replaces) link.adjust(); // the channels may have changed since it was created
  }

  /** @param {Link} link */
  function alive(link, beat = false) {
    if (link !== current) return;
    if (liveness.heard(beat && openedAt > 0)) ladder.proved(true);
    if (checking || !link.beats) openTimer(); // a poll's answer has a deadline of its own
    checking = false;
  }

  /** @param {Link} link @param {string} channel @param {string} cursor @param {Item} item */
  function item(link, channel, cursor, item) {
    if (link === current) kept.item(channel, cursor, item);
  }

  /** @param {Link} link @param {Iterable<string>} channels @param {string} cursor */
  function raise(link, channels, cursor) {
    if (link === current) kept.raise(channels, cursor);
  }

  /** @param {Link} link @param {string} channel @param {Failure} failure */
  function refused(link, channel, failure) {
    if (link === current) refuse([channel], failure);
  }

  /** @param {Link} link @param {Failure} failure */
  function lost(link, failure) {
    if (link === rival) {
      if (!renewing) return probeFailed(failure.reason);
      link = /** @type {Link} */ (current);
      failure = { ...failure, fatal: false };
    }
    if (link !== current) return;
    if (renewing) endProbe();
    link.close();
    current = null;
    checking = false;
    liveness.stop();
    openTimer();
    if (!places.size) return rest("unwanted", failure.reason);
    move("lost", failure.reason);
    if (failure.fatal && isFinal(failure)) return refuse([...places.keys()], failure);
    let { calm, retry = 0 } = failure;
    if (failure.fatal && refusals) [calm, retry] = [true, -1];
    const before = ladder.rung;
    if (!calm) ladder.failed(failure.reason, openedAt);
    // At the first change to a worse transport there is nothing to wait for.
    const atOnce = retry < 0 || (ladder.rung > before && failures < names.length);
    const pause = atOnce ? 0 : Math.max(backoff(net.retry, failures), retry * (1 + Math.random() / 5));
    if (!calm) failures += 1;
    openedAt = 0;
    net.say(`${failure.reason}; ${names[ladder.rung]} is next, in ${Math.round(pause)} ms`);
    retryTimer(() => begin("due"), pause);
  }

  /** Whether there is nothing left to try. @param {Failure} failure */
  function isFinal({ code, status }) {
    // What is no error of the server comes from something in between, that another transport may pass.
    if (!code) return ladder.rung === names.length - 1;
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
    move(event, `by ${names[ladder.rung]}`);
    openedAt = 0;
    liveness.start();
    const { open } = net;
    const link = (current = create(ladder.rung));
    openTimer(() => lost(link, { reason: `nothing came within ${open} ms` }), open);
  }

  /** @param {number} rung @param {Host} [listener] @returns {Link} */
  function create(rung, listener = host) {
    return LINKS[names[rung]](listener);
  }

  // A better transport

  function planProbe() {
    endProbe();
    if (!ladder.rung) return;
    const { probe } = net.timing;
    const pause = Math.min(probe, probe * FIRST_PROBE * 2 ** probes++) * (0.8 + Math.random() / 5);
    planned = true;
    probeTimer(() => tryFrom(0), pause);
  }

  /** @param {number} rung */
  function tryFrom(rung) {
    endProbe();
    if (rung >= ladder.rung) return planProbe();
    const { open } = net;
    rivalRung = rung;
    net.say(`trying whether ${names[rung]} works by now`);
    rival = create(rung, ladder.cut.has(rung) ? trial(rung) : host);
    probeTimer(() => probeFailed(`nothing came within ${open} ms`), open);
  }

  /** The host of a link that was cut early before: it delivers nothing, and has to stand. @param {number} rung */
  function trial(rung) {
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
          ladder.cut.delete(rung);
          tryFrom(rung);
        }, net.timing.early);
      },
    };
  }

  /** @param {string} reason */
  function probeFailed(reason) {
    net.say(`${names[rivalRung]} does not work yet: ${reason}`);
    tryFrom(rivalRung + 1);
  }

  function endProbe() {
    probeTimer();
    planned = false;
    renewing = false;
    const link = rival;
    rival = null;
    link?.close();
  }

  // Whether it lives

  /** @param {Event} event */
  function wake({ type }) {
    if (globalThis.document?.hidden) return;
    if (host.state === "waiting" && type === "online") {
      retryTimer();
      failures = 0;
      begin("due");
    } else if (host.state === "live" && (type !== "visibilitychange" || now() - liveness.at > liveness.interval())) {
      check(`the browser says ${type}`);
    }
  }

  /** Ask the link whether it lives, or replace it where it cannot be asked. @param {string} reason */
  function check(reason, silent = false) {
    if (checking || renewing) return;
    const link = /** @type {Link} */ (current);
    const { open } = net;
    const dead = () => {
      if (silent) ladder.silent();
      lost(link, silent ? { reason } : { reason: `${reason}, and nothing came`, calm: true, retry: -1 });
    };
    silence = silent;
    net.say(`${reason}: is the connection still alive?`);
    if (link.check) {
      checking = true;
      openTimer(dead, open);
      link.check();
    } else {
      endProbe();
      renewing = true;
      rivalRung = ladder.rung;
      probeTimer(dead, open);
      rival = create(ladder.rung);
    }
  }

  // Helpers

  /** Close every link. @param {"unwanted" | "closed"} event @param {string} reason */
  function rest(event, reason) {
    endProbe();
    current?.close();
    current = null;
    checking = false;
    liveness.stop();
    retryTimer();
    openTimer();
    lingerTimer();
    move(event, reason);
  }
}
