/**
 * The ledger of one listener: it counts missed, repeated and misplaced messages.
 *
 * It checks the product's promise: every message once and in order, or a gap that names the missing ones. It uses
 * the ids, none of which may repeat, and the counter `n` in the messages of one channel, which must increase by
 * one. After a declared gap `n` may jump exactly once.
 */

/** Ids remembered to find repeats: several times the history that a listener starts with. */
const MEMORY = 4_000;

/** Gaps remembered, to be shown. */
const GAPS = 20;

/**
 * @typedef {import("./transport.js").Message} Message
 * @typedef {import("./transport.js").Gap} Gap
 *
 * @typedef {object} Resume the account of one reconnect
 * @property {number} caughtUp
 * @property {number} missed
 * @property {number} repeated
 * @property {Gap[]} gaps
 * @property {boolean} live whether the listener is live again
 */

export class Ledger {
  /** Messages that were neither received nor declared missing. */
  missed = 0;
  repeated = 0;
  disordered = 0;

  /** Messages that declared gaps cover. */
  declared = 0;

  /** @type {Gap[]} */
  gaps = [];

  /** @type {Resume | null} */
  resume = null;

  /** The newest value of the counter. @type {number | null} */
  counter = null;

  /** When the oldest received message was published: Unix seconds. */
  begins = Infinity;

  #ids = new Set();
  #time = -Infinity;
  #excused = false;

  /** @param {string} channel the one whose data has a counter `n` */
  constructor(channel) {
    this.channel = channel;
  }

  /** A further connection begins: open a new account. */
  reopen() {
    this.resume = { caughtUp: 0, missed: 0, repeated: 0, gaps: [], live: false };
  }

  /** @param {Gap} gap */
  gap(gap) {
    this.gaps.push(gap);
    if (this.gaps.length > GAPS) this.gaps.shift();
    this.resume?.gaps.push(gap);
    if (gap.channel !== this.channel) return;
    this.#excused = true;
    if (gap.reason === "epoch") this.counter = null; // another life of the log: its counter starts again
  }

  /**
   * Enter one message.
   * @param {Message} message
   * @param {boolean} late whether it was published before the present connection
   * @returns {{fresh: boolean, afterGap: boolean}} `afterGap`: a declared gap ends with this message
   */
  take(message, late) {
    const account = this.resume && !this.resume.live ? this.resume : null;
    if (this.#ids.has(message.id)) {
      this.repeated += 1;
      if (account) account.repeated += 1;
      return { fresh: false, afterGap: false };
    }
    this.#remember(message.id);
    this.begins = Math.min(this.begins, message.time);
    if (account && late) account.caughtUp += 1;

    const n = message.channel === this.channel ? message.data?.n : undefined;
    if (!Number.isInteger(n)) return { fresh: true, afterGap: false };
    const afterGap = this.#excused;
    const missed = this.#count(n, message.time);
    if (account) {
      account.missed += missed;
      account.live = !late;
    }
    return { fresh: true, afterGap };
  }

  /**
   * Whether a declared gap covers a message.
   * @param {string} channel
   * @param {string} id
   */
  covers(channel, id) {
    const [epoch, seq] = place(id);
    return this.gaps.some((gap) => {
      if (gap.channel !== channel) return false;
      const [first, from] = place(gap.missed_from);
      const [last, to] = place(gap.missed_to);
      if (gap.reason === "epoch" && epoch === first) return seq >= from;
      return (first === "" || first === epoch) && seq >= from && (last === "" || (last === epoch && seq <= to));
    });
  }

  /** Whether a gap was declared where the counter stands. */
  get torn() {
    return this.gaps.some((gap) => gap.channel === this.channel);
  }

  /** Whether the promise was kept: a declared gap keeps it. */
  get sound() {
    return this.missed + this.repeated + this.disordered === 0;
  }

  /**
   * Move the counter to `n`. Returns the number of messages that are missing without a gap.
   * @param {number} n
   * @param {number} time
   */
  #count(n, time) {
    const skipped = this.counter === null ? 0 : n - this.counter - 1;
    const older = time < this.#time;
    const excused = this.#excused;
    this.#excused = false;
    if (skipped < 0 && older) {
      this.disordered += 1; // the counter is unchanged
      return 0;
    }
    // A smaller number in a later message: the publisher was restarted and counts from 1 again.
    this.counter = n;
    this.#time = time;
    if (skipped <= 0) return 0;
    if (excused) {
      this.declared += skipped;
      return 0;
    }
    this.missed += skipped;
    return skipped;
  }

  /** @param {string} id */
  #remember(id) {
    this.#ids.add(id);
    if (this.#ids.size > MEMORY) this.#ids.delete(this.#ids.values().next().value);
  }
}

/**
 * An id's two parts: the epoch, and the number in it. Of none, an empty epoch.
 * @param {string | null} id
 * @returns {[string, number]}
 */
function place(id) {
  const at = id?.lastIndexOf("-") ?? -1;
  return id && at > 0 ? [id.slice(0, at), Number(id.slice(at + 1))] : ["", 0];
}
