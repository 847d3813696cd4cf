/**
 * What the page publishes: in order, one request at a time with all that has come up meanwhile, repeated until it is
 * acknowledged. Invariant: a message keeps its key through all repetitions, so it is appended once.
 */

import { backoff, failureOf, passes, sleep, within } from "./net.js";
import { checkChannel, dataFields } from "./wire.js";

/** @import { Net, Receipt } from "./types.js" */

/** @typedef {{ line: string, resolve: (receipt: Receipt) => void, reject: (error: Error) => void }} Letter */

const BATCH_CHARACTERS = 200_000; // each has at most 3 bytes in UTF-8, and a request's body at most 1 MiB
const BATCH_LINES = 1_000;
const ANSWER_MS = 15_000;

/** @param {Net} net */
export function createPublisher(net) {
  /** @type {Letter[]} */
  const queue = [];
  let busy = false;
  const abort = new AbortController();

  return {
    /**
     * @param {string} channel
     * @param {unknown} data
     * @param {{ event?: string, key?: string }} options
     * @returns {Promise<Receipt>}
     */
    async publish(channel, data, { event, key = randomKey() } = {}) {
      const line = JSON.stringify({ channel: checkChannel(channel), ...dataFields(data), event, key });
      if (abort.signal.aborted) throw new Error("it is closed");
      return new Promise((resolve, reject) => {
        queue.push({ line, resolve, reject });
        if (!busy) send();
      });
    },

    close() {
      abort.abort();
      for (const { reject } of queue.splice(0)) reject(new Error("closed before it was acknowledged"));
    },
  };

  async function send() {
    busy = true;
    await null; // what is published in the same turn goes along
    for (let attempt = 0; queue.length; ) {
      try {
        await sendBatch();
        attempt = 0;
      } catch (error) {
        const { reason, retry = 0 } = failureOf(error);
        const pause = Math.max(backoff(net.timing.backoff, attempt++), retry);
        net.say(`publishing again in ${Math.round(pause)} ms: ${reason}`);
        await sleep(pause);
      }
    }
    busy = false;
  }

  async function sendBatch() {
    let size = 0;
    let count = 0;
    for (const { line } of queue) {
      size += line.length;
      if (count && (size > BATCH_CHARACTERS || count === BATCH_LINES)) break;
      count += 1;
    }
    const batch = queue.slice(0, count);
    const answers = await ask(batch);
    const again = batch.filter(({ resolve, reject }, index) => {
      const { id, durability, error } = answers[index]; // where none is, this throws, and all is sent again
      if (id) resolve({ id, durability });
      else if (passes(error.code)) return true;
      else reject(Object.assign(new Error(error.message), { code: error.code }));
      return false;
    });
    if (abort.signal.aborted) return;
    queue.splice(0, count, ...again);
    if (again.length) throw { reason: "the server is busy" };
  }

  /** @param {Letter[]} batch @returns {Promise<any[]>} an answer to each */
  async function ask(batch) {
    const body = batch.map(({ line }) => line).join("\n");
    try {
      return await within(ANSWER_MS, abort.signal, async (signal) => {
        const response = await net.ask(net.url("publish"), { method: "POST", body, signal });
        return (await response.text()).trim().split("\n").map((line) => JSON.parse(line));
      });
    } catch (error) {
      const { fatal, reason, code } = failureOf(error);
      if (!fatal) throw error;
      return batch.map(() => ({ error: { message: reason, code } }));
    }
  }
}

function randomKey() {
  // crypto.randomUUID is missing on a page without TLS
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
