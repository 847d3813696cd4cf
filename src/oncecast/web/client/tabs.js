/**
 * The tabs of one origin on one connection. A lock elects the leader, which listens to what any tab wants and tells all
 * of them; each tab takes what continues its own place, and polls for what does not (`subscription.js`). So when the
 * leader goes, the next one begins where the tabs are, and nothing is lost or repeated.
 *
 * A tab holds a second lock, of its own, for as long as it lives: by that the leader learns that it has gone.
 */

/** @import { Net, Start, Told } from "./types.js" */

/** @typedef {{ tab: string, channels: Record<string, Start> }} Want */
/** @typedef {{ lead?: true, want?: Want, event?: any[] }} Letter */

const ANSWER_MS = 2_000; // a leader that has not answered by then may be frozen: the tab polls meanwhile
const FROZEN_BEATS = 3; // silence for so long, and the tab asks: it may be that there is nothing to tell

/** Whether this browser can do it: both are missing on a page without TLS. */
export function canShare() {
  return Boolean(globalThis.document && globalThis.navigator?.locks && globalThis.BroadcastChannel);
}

export class Tabs {
  leads = false;
  /** What the other tabs want. @type {Map<string, Record<string, Start>>} */
  wants = new Map();
  #tab = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  /** @type {Record<string, Start>} */
  #own = {};
  #lives = false; // whether the lock that says so is held
  #end = new AbortController();
  /** @type {any} */
  #timer;

  /**
   * @param {Net} net
   * @param {{ hear(...event: any[]): void, is(name: string): any, plan(): void, fill(): void,
   *   place(channel: string): Told | null }} cast
   */
  constructor(net, cast) {
    this.net = net;
    this.cast = cast;
    const name = `oncecast ${net.url("")}`;
    this.name = name;
    this.channel = new BroadcastChannel(name);
    this.channel.onmessage = ({ data }) => this.#read(data);
    this.#hold(`${name} ${this.#tab}`, () => {
      this.#lives = true;
      this.#ask();
      this.#hold(name, () => this.#lead());
    });
  }

  /** Say what this tab wants. @param {Record<string, Start>} channels */
  want(channels) {
    this.#own = channels;
    this.#ask();
  }

  /** @param {Letter} letter to all other tabs */
  tell(letter) {
    if (!this.#end.signal.aborted) this.channel.postMessage(letter);
  }

  close() {
    this.want({});
    clearTimeout(this.#timer);
    this.#end.abort();
    this.channel.close();
  }

  /** Hold a lock until the end. @param {string} name @param {() => void} held */
  #hold(name, held) {
    const { signal } = this.#end;
    const until = () => new Promise((resolve) => signal.addEventListener("abort", resolve));
    const request = navigator.locks.request(name, { signal }, () => {
      if (!signal.aborted) held();
      return signal.aborted ? null : until();
    });
    request.catch(() => {}); // it was closed before
  }

  #lead() {
    this.net.say("this tab listens for all");
    this.leads = true;
    clearTimeout(this.#timer);
    this.cast.plan();
    this.tell({ lead: true });
  }

  #ask() {
    if (this.leads || !this.#lives) return;
    this.tell({ want: { tab: this.#tab, channels: this.#own } });
    this.#expect(ANSWER_MS, () => {
      this.cast.fill();
      this.#ask();
    });
  }

  /** @param {number} milliseconds within which the leader should tell something @param {() => void} otherwise */
  #expect(milliseconds, otherwise) {
    clearTimeout(this.#timer);
    if (!this.leads && Object.keys(this.#own).length) this.#timer = setTimeout(otherwise, milliseconds);
  }

  /** @param {Letter} letter */
  #read({ lead, want, event }) {
    if (want) return this.#wanted(want);
    if (this.leads) return;
    this.#expect(FROZEN_BEATS * this.net.timing.heartbeat, () => this.#ask());
    if (lead) this.#ask();
    if (event) this.cast.hear(...event);
  }

  /** @param {Want} want */
  #wanted({ tab, channels }) {
    if (!this.leads) return;
    if (!this.wants.has(tab)) {
      const gone = () => {
        this.wants.delete(tab);
        this.cast.plan();
      };
      navigator.locks.request(`${this.name} ${tab}`, { signal: this.#end.signal }, gone).catch(() => {});
    }
    this.wants.set(tab, channels);
    this.cast.plan();
    // Whatever is told shows that this tab is not frozen.
    for (const name of ["state", "transport"]) {
      this.tell({ event: [name, { to: this.cast.is(name), reason: "another tab listens" }] });
    }
    for (const channel in channels) {
      const told = this.cast.place(channel);
      if (told) this.tell({ event: ["told", ...told] });
    }
  }
}
