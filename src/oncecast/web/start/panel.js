/**
 * One panel: a listener with its own transport, its ledger, a diagram of its exchange with the server, and its numbers.
 *
 * Messages are entered when they arrive. `render` and `draw`, which the page calls a few times a second, update the
 * document, so that a flood of messages costs arithmetic but no layout.
 */

import { now } from "./clock.js";
import { find, write } from "./dom.js";
import { Exchange } from "./exchange.js";
import * as format from "./format.js";
import { Ledger } from "./ledger.js";

/** The number of deliveries in the median. */
const DELAYS = 40;

/** A live listener without a message for this time reports that nothing is published. */
const QUIET_MS = 3_000;

/** The time that the page draws: the tape of a wide window. */
const SPAN_MS = 60_000;

/** The picture's text alternative changes no more often than this. */
const DESCRIBE_MS = 15_000;

const STATES = {
  idle: "not started",
  connecting: "connecting",
  live: "live",
  waiting: "reconnecting",
  cut: "cut",
};

/**
 * @typedef {import("./transport.js").Message} Message
 * @typedef {import("./transport.js").Gap} Gap
 * @typedef {import("./transport.js").State} State
 *
 * @typedef {object} Delivery
 * @property {number} delay milliseconds from publish to arrival
 * @property {boolean} late it was published before the connection began, and caught up
 *
 * @typedef {object} Setting
 * @property {string} kind `short-poll`, `long-poll`, `sse` or `websocket`
 * @property {string} title
 * @property {string} how one line of code that says how it listens
 * @property {string} bytesNote what the number of bytes counts
 * @property {new (channels: readonly string[], listener: any) => import("./transport.js").Transport} Transport
 */

export class Panel {
  /** @type {import("./exchange.js").Sample[]} */
  samples = [];

  /** @type {Message | null} */
  newest = null;

  /** The newest data of the channel with the counter. @type {any} */
  machine = null;

  #delays = /** @type {number[]} */ ([]);
  #latest = /** @type {number | null} */ (null);
  #wasLive = false;
  #trouble = "";
  #announced = true;
  #described = -Infinity;

  /**
   * @param {Setting} setting
   * @param {object} page what the panels share
   * @param {DocumentFragment} page.template
   * @param {readonly string[]} page.channels the first is the one with the counter
   * @param {import("./clock.js").Clock} page.clock
   * @param {import("./announcer.js").Announcer} page.announcer
   * @param {(panel: Panel, message: Message, delivery: Delivery) => void} page.onDelivery
   * @param {(panel: Panel) => void} page.onState
   */
  constructor(setting, page) {
    this.kind = setting.kind;
    this.title = setting.title;
    this.page = page;
    this.ledger = new Ledger(page.channels[0]);
    this.transport = new setting.Transport(page.channels, this);

    const fragment = /** @type {DocumentFragment} */ (page.template.cloneNode(true));
    this.element = /** @type {HTMLElement} */ (fragment.firstElementChild);
    this.element.dataset.panel = this.kind;
    /** @type {Record<string, any>} */
    this.fields = {};
    for (const field of this.element.querySelectorAll("[data-field]")) {
      this.fields[field.getAttribute("data-field") ?? ""] = field;
    }
    this.fields.title.textContent = this.title;
    this.fields.title.id = `title-${this.kind}`;
    this.element.setAttribute("aria-labelledby", this.fields.title.id);
    this.fields.how.textContent = setting.how;
    this.fields.bytes.parentElement.title = setting.bytesNote;
    this.toggle = find("[data-action=toggle]", this.element);
    this.toggle.addEventListener("click", () => (this.isCut ? this.reconnect() : this.cut()));
    this.exchange = new Exchange(this.fields.exchange);
    this.#showState("idle", "");
  }

  get isCut() {
    return this.transport.state === "cut";
  }

  reconnect() {
    this.transport.start();
  }

  cut() {
    this.transport.cut();
    this.page.announcer.say(`${this.title} cut.`);
  }

  // Calls of the transport

  /** @param {Message} message */
  localTime(message) {
    return this.page.clock.local(message.time);
  }

  /** @param {Message[]} messages */
  onMessages(messages) {
    const arrival = now();
    for (const message of messages) {
      this.page.clock.observe(message.time, arrival);
      const at = this.localTime(message);
      const late = at <= this.transport.attachedAt;
      const { fresh, afterGap } = this.ledger.take(message, late);
      if (!fresh) continue;
      this.newest = message;
      if (!late) this.#time(arrival - at);
      if (message.channel === this.page.channels[0]) this.#sample(message, late, afterGap);
      this.page.onDelivery(this, message, { delay: arrival - at, late });
    }
    const { resume } = this.ledger;
    if (resume?.live && !this.#announced) {
      this.#announced = true;
      this.page.announcer.say(`${this.title}: ${this.#resumed(resume)}.`);
    }
  }

  /** @param {Gap} gap */
  onGap(gap) {
    this.ledger.gap(gap);
    if (this.#announced) this.page.announcer.say(`${this.title}: ${gapText(gap)}.`);
  }

  /**
   * @param {State} state
   * @param {string} [detail]
   */
  onState(state, detail = "") {
    if (state === "live" && this.#wasLive) {
      this.ledger.reopen();
      this.#announced = false;
    }
    if (state === "live") this.#wasLive = true;
    if (state === "waiting" && this.element.dataset.state === "live") {
      this.page.announcer.say(`${this.title} lost its connection, and will resume.`);
    }
    this.#trouble = detail;
    this.#showState(state, detail);
    this.page.onState(this);
  }

  /**
   * @param {State} state
   * @param {string} detail
   */
  #showState(state, detail) {
    const action = state === "cut" ? "Reconnect" : "Cut";
    this.element.dataset.state = state;
    this.fields.state.textContent = STATES[state];
    this.fields.state.title = detail;
    this.toggle.textContent = action;
    this.toggle.setAttribute("aria-label", `${action} ${this.title}`);
    this.#described = -Infinity;
  }

  // The document

  /** @param {number} head the newest counter that any panel has seen */
  render(head) {
    const { counters } = this.transport;
    const { fields } = this;
    const behind = this.behind(head);
    const middle = format.median(this.#delays);
    write(fields["newest-id"], this.newest?.id ?? "–");
    write(fields.messages, format.whole(counters.messages));
    write(fields.requests, format.whole(counters.requests));
    write(fields.empty, format.whole(counters.empty));
    write(fields.bytes, format.bytes(counters.bytes));
    write(fields.delay, format.duration(middle));
    write(fields.latest, format.duration(this.#latest));
    write(fields.integrity, this.#integrity());
    write(fields.resume, this.#story(behind));
    const { missed, repeated, disordered, declared } = this.ledger;
    Object.assign(fields.integrity.dataset, {
      missed,
      repeated,
      disordered,
      declared,
      sound: this.newest === null ? "unknown" : this.ledger.sound,
    });
    fields.resume.dataset.tone = this.#tone();
  }

  /**
   * @param {number} at milliseconds, the server's clock: the right edge of the picture
   * @param {readonly number[]} published when each known message was published
   */
  draw(at, published) {
    this.exchange.draw(this.samples, published, this.transport.spans, at, this.page.clock.offset);
    if (at - this.#described < DESCRIBE_MS) return;
    this.#described = at;
    const { requests, empty, messages } = this.transport.counters;
    const sum = [format.plural(requests, "request"), format.plural(messages, "message")];
    if (empty) sum.push(format.plural(empty, "empty answer"));
    const delay = `median delay ${format.duration(format.median(this.#delays))}`;
    this.fields.exchange.setAttribute("aria-label", `${this.title}: ${sum.join(", ")}; ${delay}.`);
  }

  /** Its place in a word or two, for the tape. @param {number} head @param {number} notable */
  standing(head, notable) {
    const behind = this.behind(head);
    switch (this.transport.state) {
      case "live":
        if (this.newest === null) return "waiting";
        return behind > notable ? `${format.whole(behind)} behind` : "reading";
      case "cut":
        return `${format.whole(behind)} behind`;
      case "waiting":
        return "no server";
      default:
        return "connecting";
    }
  }

  /** Whether it is live, and has had no message for longer than the demo's interval. */
  get hearsNothing() {
    return this.newest === null && this.transport.state === "live" && now() - this.transport.attachedAt > QUIET_MS;
  }

  /**
   * Whether a gap that was declared to this listener covers a message.
   * @param {string} channel
   * @param {string} id
   */
  lacks(channel, id) {
    return this.ledger.covers(channel, id);
  }

  /** When its oldest message was published: Unix seconds, the server's clock. */
  get begins() {
    return this.ledger.begins;
  }

  /** The number of counted messages that other panels have and this one lacks. @param {number} head */
  behind(head) {
    return this.ledger.counter === null ? 0 : Math.max(0, head - this.ledger.counter);
  }

  #integrity() {
    const { ledger } = this;
    if (this.newest === null) return this.hearsNothing ? "nothing published yet" : "waiting for the first message";
    const parts = [ledger.disordered ? `${ledger.disordered} out of order` : "in order"];
    const declared = ledger.declared
      ? `${format.whole(ledger.declared)} in a gap`
      : ledger.torn
        ? "a gap declared"
        : "";
    if (ledger.missed || !declared) parts.push(ledger.missed ? `${ledger.missed} missed` : "none missed");
    if (declared) parts.push(declared);
    parts.push(ledger.repeated ? `${ledger.repeated} repeated` : "none repeated");
    return parts.join(" · ");
  }

  /** @param {number} behind */
  #story(behind) {
    switch (this.transport.state) {
      case "cut":
        return `Cut. Messages go on without it: ${format.whole(behind)} behind.`;
      case "waiting":
        return `Lost: ${this.#trouble}. It will resume from its cursor.`;
      case "connecting":
        return this.#wasLive ? "Resuming from its cursor." : "Connecting.";
    }
    if (this.ledger.resume) return this.#resumed(this.ledger.resume);
    const gap = this.#chief(this.ledger.gaps);
    return gap ? gapText(gap) : "Cut it, wait a little, reconnect: it misses nothing.";
  }

  /** @param {import("./ledger.js").Resume} account */
  #resumed({ caughtUp, missed, repeated, gaps }) {
    const messages = format.plural(caughtUp, "message");
    const sum = `Resumed: ${messages} caught up, ${missed} missed, ${repeated} repeated`;
    const chief = this.#chief(gaps);
    return chief ? `${sum}. ${gapText(chief)}` : sum;
  }

  /**
   * The gap to show: the newest one of the channel with the counter, else the newest.
   * @param {Gap[]} gaps
   */
  #chief(gaps) {
    return gaps.findLast((gap) => gap.channel === this.ledger.channel) ?? gaps.at(-1);
  }

  #tone() {
    if (this.transport.state !== "live") return "away";
    const { resume, gaps } = this.ledger;
    if (resume ? resume.gaps.length : gaps.length) return "gap";
    return resume ? "resumed" : "hint";
  }

  /** @param {number} delay */
  #time(delay) {
    this.#latest = delay;
    this.#delays.push(delay);
    if (this.#delays.length > DELAYS) this.#delays.shift();
  }

  /**
   * @param {Message} message
   * @param {boolean} late
   * @param {boolean} afterGap
   */
  #sample({ data, time }, late, afterGap) {
    this.machine = data;
    const at = time * 1000;
    if (late && this.ledger.resume === null) afterGap = false; // the history that a page begins with
    const resumed = this.ledger.resume !== null; // the first history is not a resume
    this.samples.push({
      at,
      arrival: this.page.clock.serverNow,
      n: data.n,
      late: late && resumed,
      afterGap,
    });
    // One sample beyond the edge is kept, so that its line enters from outside.
    const edge = this.page.clock.serverNow - SPAN_MS;
    while (this.samples.length > 2 && this.samples[1].at < edge) this.samples.shift();
  }
}

/** @param {Gap} gap */
function gapText({ channel, reason, missed_from, missed_to }) {
  const end = missed_to ? `to ${missed_to}` : "on";
  return `Gap on ${channel}: ${reason}, from ${missed_from ?? "the start"} ${end}`;
}
