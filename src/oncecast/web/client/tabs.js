/**
 * The tabs of one origin on one connection. A lock elects the leader, which listens to what any tab wants and tells all
 * of them; each tab takes what continues its own place, and polls for what does not (`feed.js`). So when another tab
 * leads, it begins where the tabs are, and nothing is lost or repeated.
 *
 * A leader may be busy or frozen, and holds its lock all the same. So a tab that hears nothing for a second asks; and
 * where nothing is answered, it takes the lock away (`steal`). Each leader has a term, which is larger than those before;
 * what a former leader still tells is ignored. The leader answers in an event handler, as a browser slows down the
 * timers of hidden tabs, and not their events.
 *
 * A tab holds a second lock, of its own, for as long as it lives: by that the leader learns that it has gone.
 */

import { onAbort } from "./abort.js";
import { createDeadline, createTimer } from "./time.js";

/** @import { Net, Start, Advance } from "./internal.js" */

/** @typedef {{ tab: string, channels: Map<string, Start> }} Want */
/** @typedef {{ term?: number, lead?: true, want?: Want, ping?: true, event?: any[] }} Letter */

const SILENT_MS = 1_000; // to twice that: the first tab asks, and all hear the answer
const ANSWER_MS = 2_000; // in which this tab was not busy itself

/** Whether this browser can do it: both are missing on a page without TLS. */
export function canShare() {
  return Boolean(globalThis.document && navigator.locks && globalThis.BroadcastChannel);
}

/**
 * @param {Net} net
 * @param {{ cast: any, hear(...event: any[]): void, plan(): void, rest(): void,
 *   place(channel: string): Advance | null }} page
 */
export function createTabs(net, { cast, hear, plan, rest, place }) {
  const name = `oncecast ${net.url("")}`;
  const channel = new BroadcastChannel(name);
  const tab = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  /** What the other tabs want. @type {Map<string, Map<string, Start>>} */
  const wants = new Map();
  /** The tabs whose end is waited for. */
  const watched = new Set();
  /** What this tab wants. @type {Map<string, Start>} */
  let own = new Map();
  let lives = false; // whether the lock that says so is held
  let queued = false; // for the leader's lock
  let term = 0;
  const end = new AbortController();
  const { signal } = end;
  const silentTimer = createTimer();
  const answerTimer = createDeadline();
  const self = { leads: false, wants, want, tell, close };

  channel.onmessage = ({ data }) => read(data);
  request(`${name} ${tab}`, () => {
    lives = true;
    ask();
    queue();
    return ended();
  });
  return self;

  /** Say what this tab wants. @param {Map<string, Start>} channels */
  function want(channels) {
    own = channels;
    ask();
  }

  /** @param {Letter} letter to all other tabs */
  function tell(letter) {
    if (!signal.aborted) channel.postMessage(self.leads ? { ...letter, term } : letter);
  }

  function close() {
    want(new Map());
    expect();
    self.leads = false;
    end.abort();
    channel.close();
  }

  // The lock

  /** Resolves when this tab has closed its client. @returns {Promise<void>} */
  function ended() {
    return new Promise((resolve) => onAbort(signal, resolve));
  }

  /** @param {string} lock @param {() => any} held */
  function request(lock, held) {
    // It rejects when it is closed before.
    navigator.locks.request(lock, { signal }, () => (signal.aborted ? null : held())).catch(() => {});
  }

  /** Wait for the leader's lock. */
  function queue() {
    if (queued) return;
    queued = true;
    const held = () => {
      queued = false;
      return lead();
    };
    navigator.locks.request(name, { signal }, held).catch(robbed);
  }

  function steal() {
    net.say("the tab that listens for all does not answer");
    navigator.locks.request(name, { steal: true }, lead).catch(robbed);
  }

  /** The lock was taken away. */
  function robbed() {
    if (signal.aborted) return;
    follow();
    queue();
  }

  function lead() {
    if (signal.aborted) return;
    net.say("this tab listens for all");
    term = Math.max(term + 1, Date.now());
    self.leads = true;
    expect();
    plan();
    tell({ lead: true });
    return ended();
  }

  function follow() {
    if (!self.leads) return;
    net.say("another tab listens for all");
    self.leads = false;
    wants.clear();
    rest();
    plan();
  }

  // As one that follows

  function ask() {
    if (self.leads || !lives) return;
    tell({ want: { tab, channels: own } });
    expect();
  }

  /** Expect to hear something from the leader, if this tab wants anything. */
  function expect() {
    answerTimer();
    silentTimer();
    if (self.leads || !own.size) return;
    silentTimer(() => {
      answerTimer(steal, ANSWER_MS);
      tell({ ping: true });
    }, SILENT_MS * (1 + Math.random()));
  }

  /** @param {Letter} letter */
  function read({ term: theirs, lead, want, ping, event }) {
    if (theirs === undefined) {
      if (self.leads && want) wanted(want);
      if (self.leads && ping) tell({});
      return;
    }
    if (theirs < term) {
      if (self.leads) tell({ lead: true }); // a former leader, which does not know yet
      return;
    }
    term = theirs;
    follow();
    expect();
    if (lead) ask();
    if (event) hear(...event);
  }

  // As the leader

  /** @param {Want} want */
  function wanted({ tab, channels }) {
    if (!watched.has(tab)) {
      watched.add(tab);
      request(`${name} ${tab}`, () => {
        watched.delete(tab);
        wants.delete(tab);
        if (self.leads) plan();
      });
    }
    wants.set(tab, channels);
    plan();
    // Each of these events shows that this tab is not frozen.
    for (const name of ["state", "transport"]) {
      tell({ event: [name, { to: cast[name], reason: "another tab listens" }] });
    }
    for (const channel of channels.keys()) {
      const before = place(channel);
      if (before) tell({ event: ["advance", ...before] });
    }
  }
}
