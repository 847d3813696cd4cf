/**
 * A lane of the comparison: one listener, what it has heard, what it has cost, and its picture.
 *
 * The page publishes the messages too, so their times and their arrivals are on one clock. A distance is added to each
 * way of a request, and to what comes on a stream; the order of the messages is kept when it changes.
 */

import { now } from "./clock.js";
import { answerHead, eventText, frameHeadBytes, percentile, requestHead, size, switchingHead } from "./costs.js";
import { find, write } from "./dom.js";
import { Exchange } from "./exchange.js";
import * as format from "./format.js";

const SPAN_MS = 10_000;
const KEPT = 400; // messages, for the picture and the percentiles
const STREAMS = new Set(["sse", "websocket"]);

/** @typedef {import("./transport.js").Message} Message */
/** @typedef {import("./transport.js").Seen} Seen */

/**
 * @typedef {object} Kind
 * @property {string} kind
 * @property {string} title
 * @property {string} how
 * @property {new (channels: string[], listener: import("./transport.js").Listener) => any} Transport
 */

export class Lane {
  /** @type {import("./exchange.js").Sample[]} */
  samples = [];

  /** Milliseconds from publish to arrival of the messages that were not caught up. @type {number[]} */
  delays = [];

  counts = { messages: 0, late: 0, missed: 0, repeated: 0, gaps: 0, up: 0, down: 0, connections: 0, heads: 0, polls: 0 };

  /** What went over the connection last, for the inspector. @type {Seen[]} */
  seen = [];

  /** The number of the message that came last. */
  newest = 0;

  #next = 1; // the number of the message that must come; 0 after a declared gap, where any may

  /** What came on a stream and is on its way. @type {{due: number, act: () => void}[]} */
  #underway = [];

  #timer = 0;

  /**
   * @param {Kind} setting
   * @param {string} channel
   * @param {HTMLTemplateElement} template
   * @param {ReadonlySet<number>} doubtful numbers that may be in the log or not
   */
  constructor(setting, channel, template, doubtful) {
    this.doubtful = doubtful;
    this.kind = setting.kind;
    this.title = setting.title;
    this.element = /** @type {HTMLElement} */ (/** @type {Element} */ (template.content.firstElementChild).cloneNode(true));
    this.element.dataset.pen = this.kind;
    this.element.dataset.lane = this.kind;
    find("[data-field=title]", this.element).textContent = setting.title;
    find("[data-field=how]", this.element).textContent = setting.how;
    this.canvas = find("canvas", this.element);
    this.exchange = new Exchange(this.canvas, SPAN_MS);
    this.transport = new setting.Transport([channel], {
      onMessages: (messages) => this.#afterDistance(() => messages.forEach((message) => this.#take(message))),
      onGap: () => this.#afterDistance(() => this.#gap()),
      onState: (state) => {
        if (state === "connecting") this.counts.connections += 1;
      },
      localTime: (message) => message.data.at,
      onSeen: (seen) => this.#note(seen),
    });
  }

  get isCut() {
    return this.transport.state === "cut";
  }

  /** @param {number} milliseconds each way */
  set distance(milliseconds) {
    this.transport.distance = milliseconds;
  }

  /** Bytes of heads that one poll costs; of a stream, what each message has beside its data. */
  get overhead() {
    const { heads, polls } = this.counts;
    return polls ? heads / polls : 0;
  }

  /** What the table shows of it, by the names of its columns. */
  get figures() {
    const { messages, up, down, connections } = this.counts;
    const { requests, empty } = this.transport.counters;
    const each = (/** @type {number} */ count) => (messages ? format.bytes(count / messages) : "–");
    return {
      p50: format.duration(percentile(this.delays, 0.5)),
      p99: format.duration(percentile(this.delays, 0.99)),
      max: format.duration(this.delays.length ? Math.max(...this.delays) : null),
      requests: format.whole(requests),
      empty: format.whole(empty),
      up: each(up),
      down: each(down),
      connections: STREAMS.has(this.kind) ? format.whole(connections) : "kept alive",
    };
  }

  /** Whether each message came once and in order, as a sentence. */
  get integrity() {
    const { messages, late, missed, repeated, gaps } = this.counts;
    if (messages === 0) return "waiting for the first message";
    if (missed || repeated) return `${format.plural(missed, "message")} missing, ${repeated} repeated`;
    const caught = late ? `; ${format.plural(late, "message")} caught up after a cut` : "";
    const gone = gaps ? `; ${format.plural(gaps, "gap")} declared` : "";
    return `${format.plural(messages, "message")}, in order, none missing, none twice${caught}${gone}`;
  }

  get isSound() {
    return this.counts.missed === 0 && this.counts.repeated === 0;
  }

  /** @param {readonly number[]} published when each message was published */
  draw(published) {
    this.exchange.draw(this.samples, published, this.transport.spans, now(), 0);
  }

  /** @param {string} p50 of `figures` */
  render(p50) {
    const { state } = this.transport;
    this.element.dataset.state = state;
    write(find("[data-field=state]", this.element), state);
    write(find("[data-field=p50]", this.element), p50);
    write(find("[data-field=integrity]", this.element), this.integrity);
    find("[data-field=integrity]", this.element).dataset.sound = String(this.counts.messages ? this.isSound : "unknown");
    this.canvas.setAttribute("aria-label", `${this.title}, the last ten seconds: ${this.integrity}.`);
  }

  /** @param {() => void} act */
  #afterDistance(act) {
    if (!STREAMS.has(this.kind)) return act(); // a poll has waited already
    this.#underway.push({ due: now() + this.transport.distance, act });
    this.#arrive();
  }

  /** Take what is due, in the order in which it came: none overtakes another where the distance has become less. */
  #arrive() {
    clearTimeout(this.#timer);
    while (this.#underway.length && this.#underway[0].due <= now()) this.#underway.shift()?.act();
    if (this.#underway.length) this.#timer = setTimeout(() => this.#arrive(), this.#underway[0].due - now());
  }

  /** The server has said that messages are gone. */
  #gap() {
    this.counts.gaps += 1;
    this.#next = 0;
  }

  /** @param {Message} message */
  #take({ data }) {
    const arrival = now();
    if (data.n < this.#next) {
      this.counts.repeated += 1;
      return;
    }
    for (let n = this.#next || data.n; n < data.n; n += 1) if (!this.doubtful.has(n)) this.counts.missed += 1;
    this.newest = data.n;
    this.#next = data.n + 1;
    this.counts.messages += 1;
    const late = this.counts.connections > 1 && data.at < this.transport.attachedAt;
    if (late) this.counts.late += 1;
    else this.delays.push(arrival - data.at);
    this.samples.push({ at: data.at, arrival, n: data.n, late, afterGap: false });
    if (this.samples.length > KEPT) this.samples.shift();
    if (this.delays.length > KEPT) this.delays.shift();
  }

  /** @param {Seen} seen */
  #note(seen) {
    const { counts } = this;
    switch (seen.kind) {
      case "asked": {
        const head = size(requestHead(seen.url, seen.accept, navigator));
        counts.up += head;
        if (!STREAMS.has(this.kind)) counts.heads += head;
        this.seen = [seen, ...this.seen.filter(({ kind }) => kind === "answered")]; // it shows until the next answer
        break;
      }
      case "answered": {
        const { response, body } = seen;
        const head = size(answerHead(response.status, response.statusText, response.headers));
        counts.down += head + size(body);
        counts.heads += head;
        counts.polls += 1;
        this.#keep(seen);
        break;
      }
      case "event": {
        const bytes = size(eventText(seen));
        counts.down += bytes;
        counts.heads += bytes - size(seen.data);
        counts.polls += 1;
        this.#keep(seen);
        break;
      }
      case "opened":
        counts.down += size(switchingHead());
        this.seen.push(seen);
        break;
      case "frame": {
        const payload = size(seen.data);
        const head = frameHeadBytes(payload, seen.sent);
        if (seen.sent) counts.up += head + payload;
        else counts.down += head + payload;
        counts.heads += head;
        counts.polls += 1;
        this.#keep(seen);
      }
    }
  }

  /** Keep what was asked, and the newest of what came. @param {Seen} seen */
  #keep(seen) {
    this.seen = [...this.seen.filter(({ kind }) => kind !== seen.kind), seen];
  }
}
