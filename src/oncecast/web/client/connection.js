/**
 * One connection to the server: which transport, when to reconnect, when to go down a transport or up again.
 * Invariant: at most one link delivers, `#link`; a better one is tried beside it, and replaces it in one step at the
 * places where its channels are. What a link repeats is dropped here.
 */

import { LINKS } from "./links.js";
import { backoff } from "./net.js";
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

/** @implements {Host} */
export class Connection {
  /** @type {State} */
  state = "idle";
  /** @type {TransportName | null} */
  transport = null;
  /** @type {Map<string, Place>} */
  places = new Map();
  apart = false;

  /** @type {Link | null} */ #link = null;
  /** @type {Link | null} */ #probe = null;
  #level = 0;
  #probeLevel = 0;
  #why = "it is the first choice";
  #openedAt = 0; // 0: not yet
  #heardAt = 0;
  #beatAt = 0;
  #beat;
  #beaten = false; // whether a heartbeat has come, so that `#beat` is no guess
  #strikes = 0;
  #failures = 0;
  #probes = 0;
  #proven = new Set(); // levels that have worked
  #cut = new Set(); // levels that were cut early: a probe has to stand for a while
  #refusals = 0;
  #tickAt = 0;
  /** @type {any} */ #retryTimer;
  /** @type {any} */ #openTimer;
  /** @type {any} */ #probeTimer;
  /** @type {any} */ #ticker;

  /** @param {Net} net @param {TransportName[]} ladder @param {Tell} tell */
  constructor(net, ladder, tell) {
    this.net = net;
    this.ladder = ladder;
    this.tell = tell;
    this.#beat = net.timing.heartbeat;
    const level = ladder.indexOf(recall(net));
    if (level > 0) [this.#level, this.#why] = [level, "it worked here last time"];
    for (const [target, name] of WAKERS) target?.addEventListener?.(name, this.#wake);
  }

  /** Listen to a channel, from there. @param {string} channel @param {Start} at */
  add(channel, at) {
    this.places.set(channel, { at, told: at });
    if (this.state === "idle") this.#open("wanted");
    else this.#link?.set();
  }

  /** @param {string} channel */
  remove(channel) {
    if (!this.places.delete(channel)) return;
    if (this.places.size) this.#link?.set();
    else this.#rest("unwanted", "no channel is wanted");
  }

  close() {
    this.places.clear();
    this.#rest("closed", "it was closed");
    for (const [target, name] of WAKERS) target?.removeEventListener?.(name, this.#wake);
  }

  // What a link calls

  /** @param {Link} link */
  opened(link, proved = false) {
    if (link === this.#probe) {
      this.#link?.close();
      this.#link = link;
      this.#probe = null;
      this.#level = this.#probeLevel;
      this.#why = `${this.ladder[this.#level]} works by now`;
    } else if (link !== this.#link || this.#openedAt) {
      if (link === this.#link && proved) this.#strikes = 0;
      return;
    }
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#openTimer);
    this.#openedAt = this.#heardAt = this.#beatAt = Date.now();
    this.#beaten = false;
    this.#failures = this.#refusals = 0;
    this.#proven.add(this.#level);
    this.#move("opened", "the server has answered");
    const [from, to] = [this.transport, this.ladder[this.#level]];
    if (from !== to) {
      this.transport = to;
      this.#probes = 0;
      remember(this.net, this.#level ? to : null);
      this.net.say(`messages come by ${to}: ${this.#why}`);
      this.tell("transport", { from, to, reason: this.#why });
    }
    this.#planProbe();
  }

  /** @param {Link} link */
  alive(link, beat = false) {
    if (link !== this.#link) return;
    const now = (this.#heardAt = Date.now());
    if (!link.beats) clearTimeout(this.#openTimer); // a poll's answer has a deadline of its own
    if (!beat || !this.#openedAt) return;
    const spacing = now - this.#beatAt;
    this.#beatAt = now;
    if (spacing < this.net.timing.heartbeat / 100) return; // the opening
    this.#beat = this.#beaten ? Math.max(this.#beat * 0.8, spacing) : spacing;
    this.#beaten = true;
  }

  /** @param {Link} link @param {string} channel @param {string} cursor @param {Item} item */
  item(link, channel, cursor, item) {
    const place = link === this.#link && this.places.get(channel);
    if (!place || !goesOn(cursor, place.at, item)) return;
    const { told } = place;
    place.at = place.told = cursor;
    this.tell("told", channel, told, cursor, item);
  }

  /** @param {Link} link @param {Iterable<string>} channels @param {string} cursor */
  raise(link, channels, cursor) {
    if (link !== this.#link) return;
    for (const channel of channels) {
      const place = this.places.get(channel);
      if (!place || !goesOn(cursor, place.at)) continue;
      const { told } = place;
      if (!parseCursor(place.at)) place.told = cursor;
      place.at = cursor;
      this.tell("told", channel, told, cursor);
    }
  }

  /** @param {Link} link @param {string} channel @param {Failure} failure */
  refused(link, channel, failure) {
    if (link === this.#link) this.#refuse([channel], failure);
  }

  /** @param {Link} link @param {Failure} failure */
  lost(link, failure) {
    if (link === this.#probe) return this.#probeFailed(failure.reason);
    if (link !== this.#link) return;
    link.close();
    this.#link = null;
    clearTimeout(this.#openTimer);
    this.#move("lost", failure.reason);
    if (failure.fatal && this.#isFinal(failure)) return this.#refuse([...this.places.keys()], failure);
    let { calm, retry = 0 } = failure;
    if (failure.fatal && this.#refusals) [calm, retry] = [true, -1];
    const before = this.#level;
    if (!calm) this.#judge(failure.reason);
    // Down the ladder for the first time there is nothing to wait for.
    const atOnce = retry < 0 || (this.#level > before && this.#failures < this.ladder.length);
    const pause = atOnce ? 0 : Math.max(backoff(this.net.retry, this.#failures), retry * (1 + Math.random() / 5));
    if (!calm) this.#failures += 1;
    this.#openedAt = 0;
    this.net.say(`${failure.reason}; ${this.ladder[this.#level]} is next, in ${Math.round(pause)} ms`);
    this.#retryTimer = setTimeout(() => this.#open("due"), pause);
  }

  // Which transport

  /** Count what speaks against the transport; at the third strike the next one has its turn. @param {string} reason */
  #judge(reason) {
    if (globalThis.navigator?.onLine === false) return;
    if (!this.#openedAt) {
      this.#strikes += this.#proven.has(this.#level) ? 1 : STRIKES;
    } else if (Date.now() - this.#openedAt < this.net.timing.early) {
      this.#strikes += 1;
      this.#cut.add(this.#level);
    } else {
      this.#strikes = 0;
    }
    if (this.#strikes < STRIKES) return;
    this.#strikes = 0;
    this.#why = `${this.ladder[this.#level]} does not work: ${reason}`;
    this.#level = (this.#level + 1) % this.ladder.length;
    // None works, perhaps because the network is slow.
    if (!this.#level) this.net.open = Math.min(this.net.open * 2, OPEN_MAX_MS);
  }

  /** Whether there is nothing left to try. @param {Failure} failure */
  #isFinal({ code, status }) {
    // What is no error of ours comes from something in between, that another transport may pass.
    if (!code) return this.#level === this.ladder.length - 1;
    // A token may have run out: HTTP has renewed it, a socket has not. Of several channels one may be the cause.
    const once = code === "4401" || this.places.size > 1;
    if (!once || this.#refusals++) return true;
    if (status === 401) this.net.token(true).catch(() => {});
    this.apart = true;
    return false;
  }

  /** @param {string[]} channels @param {Failure} failure */
  #refuse(channels, failure) {
    for (const channel of channels) {
      this.places.delete(channel);
      this.net.say(`${channel} is refused, for good: ${failure.reason}`);
      this.tell("refused", channel, failure);
    }
    if (!this.places.size) this.#rest("unwanted", failure.reason);
  }

  /** @param {string} event */
  #open(event) {
    this.#move(event, `by ${this.ladder[this.#level]}`);
    this.#openedAt = 0;
    this.#heardAt = this.#tickAt = Date.now();
    this.#ticker ??= setInterval(this.#tick, Math.min(TICK_MS, this.net.timing.heartbeat / 5));
    const { open } = this.net;
    const link = (this.#link = this.#create(this.#level));
    this.#openTimer = setTimeout(() => this.lost(link, { reason: `nothing came within ${open} ms` }), open);
  }

  /** @param {number} level @param {Host} [host] @returns {Link} */
  #create(level, host = this) {
    return new LINKS[this.ladder[level]](host);
  }

  // Upwards again

  #planProbe() {
    this.#endProbe();
    if (!this.#level) return;
    const { probe } = this.net.timing;
    const pause = Math.min(probe, probe * FIRST_PROBE * 2 ** this.#probes++) * (0.8 + Math.random() / 5);
    this.#probeTimer = setTimeout(() => this.#try(0), pause);
  }

  /** @param {number} level */
  #try(level) {
    this.#endProbe();
    if (level >= this.#level) return this.#planProbe();
    const { open } = this.net;
    this.#probeLevel = level;
    this.net.say(`trying whether ${this.ladder[level]} works by now`);
    this.#probe = this.#create(level, this.#cut.has(level) ? this.#trial(level) : this);
    this.#probeTimer = setTimeout(() => this.#probeFailed(`nothing came within ${open} ms`), open);
  }

  /** The host of a link that was cut early before: nobody listens to it, it only has to stand. @param {number} level */
  #trial(level) {
    const nothing = () => {};
    let stands = false;
    return {
      net: this.net,
      places: new Map(this.places),
      apart: false,
      alive: nothing,
      item: nothing,
      raise: nothing,
      refused: nothing,
      lost: (/** @type {Link} */ link, /** @type {Failure} */ failure) => this.lost(link, failure),
      opened: () => {
        if (stands) return;
        stands = true;
        clearTimeout(this.#probeTimer);
        const passed = () => {
          this.#cut.delete(level);
          this.#try(level);
        };
        this.#probeTimer = setTimeout(passed, this.net.timing.early);
      },
    };
  }

  /** @param {string} reason */
  #probeFailed(reason) {
    this.net.say(`${this.ladder[this.#probeLevel]} does not work yet: ${reason}`);
    this.#try(this.#probeLevel + 1);
  }

  #endProbe() {
    clearTimeout(this.#probeTimer);
    this.#probe?.close();
    this.#probe = null;
  }

  // Whether it lives

  #tick = () => {
    const now = Date.now();
    const late = now - this.#tickAt > SLEPT_MS;
    const silent = now - this.#heardAt;
    this.#tickAt = now;
    if (this.state !== "live") return;
    if (late && silent > this.#beat) return this.#check("the clock has jumped");
    if (!this.#link?.beats || silent < SILENT_BEATS * this.#beat) return;
    if (!this.#beaten) this.#beat *= 2; // perhaps this server's heartbeat is only slower than was thought
    this.lost(this.#link, { reason: `nothing came for ${Math.round(silent / 1000)} s` });
  };

  #wake = (/** @type {Event} */ { type }) => {
    if (globalThis.document?.hidden) return;
    if (this.state === "waiting" && type === "online") {
      clearTimeout(this.#retryTimer);
      this.#failures = 0;
      this.#open("due");
    } else if (this.state === "live" && (type !== "visibilitychange" || Date.now() - this.#heardAt > this.#beat)) {
      this.#check(`the browser says ${type}`);
    }
  };

  /** @param {string} reason */
  #check(reason) {
    const { open } = this.net;
    const link = /** @type {Link} */ (this.#link);
    const heardAt = this.#heardAt;
    this.net.say(`${reason}: is the connection still alive?`);
    clearTimeout(this.#openTimer);
    this.#openTimer = setTimeout(() => {
      if (this.#heardAt === heardAt) this.lost(link, { reason: `${reason}, and no sign of life came`, calm: true, retry: -1 });
    }, open);
    link.check(reason);
  }

  // Helpers

  /** Be done with every link. @param {"unwanted" | "closed"} event @param {string} reason */
  #rest(event, reason) {
    this.#endProbe();
    this.#link?.close();
    this.#link = this.#ticker = (clearInterval(this.#ticker), null);
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#openTimer);
    this.#move(event, reason);
  }

  /** @param {string} event @param {string} reason */
  #move(event, reason) {
    const [from, to] = [this.state, MOVES[this.state][event]];
    if (!to) return; // a loss while waiting, or a probe that opens while live, moves nothing
    this.state = to;
    this.net.say(`${from} → ${to}: ${reason}`);
    this.tell("state", { from, to, reason });
  }
}

/** The transport that worked here last time, if that is not long ago. @param {Net} net @returns {any} */
function recall(net) {
  try {
    const { name, until } = JSON.parse(localStorage[memory(net)]);
    return Date.now() < until ? name : null;
  } catch {
    return null; // nothing is kept, or there is nowhere to keep it
  }
}

/** @param {Net} net @param {TransportName | null} name */
function remember(net, name) {
  try {
    if (name) localStorage[memory(net)] = JSON.stringify({ name, until: Date.now() + net.timing.memory });
    else delete localStorage[memory(net)];
  } catch {
    // The page may not keep anything.
  }
}

/** @param {Net} net */
function memory(net) {
  if (!globalThis.document) throw new Error("only a browser remembers"); // Node's would warn
  return `oncecast ${net.url("")}`;
}
