/**
 * The tabs of one origin on one connection. A lock elects the leader, which listens to what any tab wants and tells all
 * of them; each tab takes what continues its own place, and polls for what does not (`subscription.js`). So when the
 * leader goes, the next one begins where the tabs are, and nothing is lost or repeated.
 *
 * A tab holds a second lock, of its own, for as long as it lives: by that the leader learns that it has gone.
 */

import { createTimer } from "./net.js";

/** @import { Net, Start, Told } from "./types.js" */

/** @typedef {{ tab: string, channels: Map<string, Start> }} Want */
/** @typedef {{ lead?: true, want?: Want, event?: any[] }} Letter */

const LEADER_MS = 2_000; // a leader that has not answered by then may be frozen: the tab polls meanwhile
const FROZEN_BEATS = 3; // silence for so long, and the tab asks: it may be that there is nothing to tell

/** Whether this browser can do it: both are missing on a page without TLS. */
export function canShare() {
  return Boolean(globalThis.document && navigator.locks && globalThis.BroadcastChannel);
}

/**
 * @param {Net} net
 * @param {{ cast: any, hear(...event: any[]): void, plan(): void, fill(): void,
 *   place(channel: string): Told | null }} page
 */
export function createTabs(net, { cast, hear, plan, fill, place }) {
  const name = `oncecast ${net.url("")}`;
  const channel = new BroadcastChannel(name);
  const tab = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  /** What the other tabs want. @type {Map<string, Map<string, Start>>} */
  const wants = new Map();
  /** What this tab wants. @type {Map<string, Start>} */
  let own = new Map();
  let lives = false; // whether the lock that says so is held
  const end = new AbortController();
  const { signal } = end;
  const timer = createTimer();
  const self = { leads: false, wants, want, tell, close };

  channel.onmessage = ({ data }) => read(data);
  hold(`${name} ${tab}`, () => {
    lives = true;
    ask();
    hold(name, lead);
  });
  return self;

  /** Say what this tab wants. @param {Map<string, Start>} channels */
  function want(channels) {
    own = channels;
    ask();
  }

  /** @param {Letter} letter to all other tabs */
  function tell(letter) {
    if (!signal.aborted) channel.postMessage(letter);
  }

  function close() {
    want(new Map());
    timer();
    end.abort();
    channel.close();
  }

  /** Hold a lock until the end. @param {string} lock @param {() => void} held */
  function hold(lock, held) {
    request(lock, () => {
      if (signal.aborted) return;
      held();
      return new Promise((resolve) => signal.addEventListener("abort", resolve));
    });
  }

  /** @param {string} lock @param {() => any} held */
  function request(lock, held) {
    navigator.locks.request(lock, { signal }, held).catch(() => {}); // it was closed before
  }

  function lead() {
    net.say("this tab listens for all");
    self.leads = true;
    timer();
    plan();
    tell({ lead: true });
  }

  function ask() {
    if (self.leads || !lives) return;
    tell({ want: { tab, channels: own } });
    expect(LEADER_MS, () => {
      fill();
      ask();
    });
  }

  /** @param {number} milliseconds within which the leader should tell something @param {() => void} otherwise */
  function expect(milliseconds, otherwise) {
    timer(own.size ? otherwise : undefined, milliseconds);
  }

  /** @param {Letter} letter */
  function read({ lead, want, event }) {
    if (self.leads && want) wanted(want);
    if (self.leads || want) return;
    expect(FROZEN_BEATS * net.timing.heartbeat, ask);
    if (lead) ask();
    if (event) hear(...event);
  }

  /** @param {Want} want */
  function wanted({ tab, channels }) {
    if (!wants.has(tab)) {
      request(`${name} ${tab}`, () => {
        wants.delete(tab);
        plan();
      });
    }
    wants.set(tab, channels);
    plan();
    // Whatever is told shows that this tab is not frozen.
    for (const name of ["state", "transport"]) {
      tell({ event: [name, { to: cast[name], reason: "another tab listens" }] });
    }
    for (const channel of channels.keys()) {
      const told = place(channel);
      if (told) tell({ event: ["told", ...told] });
    }
  }
}
