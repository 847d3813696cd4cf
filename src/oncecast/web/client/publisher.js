/**
 * What the page publishes: in order, one request at a time with all that has come up meanwhile, repeated until it is
 * acknowledged. Invariant: a message keeps its key through all repetitions, so it is appended once.
 */

import { backoff, passes, sleep, within } from "./net.js";
import { checkChannel, dataFields } from "./wire.js";

/** @import { Failure, Net, Receipt } from "./types.js" */

/** @typedef {{ line: string, resolve: (receipt: Receipt) => void, reject: (error: Error) => void }} Letter */

const BATCH_CHARACTERS = 200_000; // each has at most 3 bytes in UTF-8, and a request's body at most 1 MiB
const BATCH_LINES = 1_000;
const ANSWER_MS = 15_000;

export class Publisher {
  /** @type {Letter[]} */
  #queue = [];
  #busy = false;
  #abort = new AbortController();

  /** @param {Net} net */
  constructor(net) {
    this.net = net;
  }

  /**
   * @param {string} channel
   * @param {unknown} data
   * @param {{ event?: string, key?: string }} options
   * @returns {Promise<Receipt>}
   */
  async publish(channel, data, { event, key = randomKey() } = {}) {
    const line = JSON.stringify({ channel: checkChannel(channel), ...dataFields(data), event, key });
    if (this.#abort.signal.aborted) throw new Error("it is closed");
    return new Promise((resolve, reject) => {
      this.#queue.push({ line, resolve, reject });
      if (!this.#busy) this.#send();
    });
  }

  close() {
    this.#abort.abort();
    for (const { reject } of this.#queue.splice(0)) reject(new Error("closed before it was acknowledged"));
  }

  async #send() {
    this.#busy = true;
    await null; // what is published in the same turn goes along
    for (let attempt = 0; this.#queue.length; ) {
      try {
        await this.#batch();
        attempt = 0;
      } catch (error) {
        const { reason, retry = 0 } = /** @type {Failure} */ (error);
        const pause = Math.max(backoff(this.net.timing.backoff, attempt++), retry);
        this.net.say(`publishing again in ${Math.round(pause)} ms: ${reason}`);
        await sleep(pause);
      }
    }
    this.#busy = false;
  }

  async #batch() {
    let size = 0;
    let count = 0;
    for (const { line } of this.#queue) {
      size += line.length;
      if (count && (size > BATCH_CHARACTERS || count === BATCH_LINES)) break;
      count += 1;
    }
    const batch = this.#queue.slice(0, count);
    const answers = await this.#ask(batch.map(({ line }) => line).join("\n"), count);
    const again = [];
    for (const [index, { id, durability, error }] of answers.entries()) {
      const { resolve, reject } = batch[index];
      if (id) resolve({ id, durability });
      else if (passes(error.code)) again.push(batch[index]);
      else reject(Object.assign(new Error(error.message), { code: error.code }));
    }
    if (this.#abort.signal.aborted) return;
    this.#queue.splice(0, count, ...again);
    if (again.length) throw { reason: "the server is busy" };
  }

  /** @param {string} body @param {number} count @returns {Promise<any[]>} an answer to each line */
  async #ask(body, count) {
    try {
      return await within(ANSWER_MS, this.#abort.signal, async (signal) => {
        const response = await this.net.ask(this.net.url("publish"), { method: "POST", body, signal });
        const answers = (await response.text()).split("\n").filter(Boolean).map((line) => JSON.parse(line));
        if (answers.length < count) throw Error();
        return answers;
      });
    } catch (error) {
      if (error instanceof Error) throw { reason: "the answer was cut off" };
      const { fatal, reason, code } = /** @type {Failure} */ (error);
      if (!fatal) throw error;
      return Array(count).fill({ error: { message: reason, code } });
    }
  }
}

function randomKey() {
  // crypto.randomUUID is missing on a page without TLS
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
