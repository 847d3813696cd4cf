/**
 * What the page publishes: in order, one request at a time with all that has come up meanwhile, repeated until it is
 * acknowledged, refused, or its time is over.
 * Invariants: a message keeps its key through all repetitions, so it is appended once. What waits is bounded. A message
 * that fails again and again while the server answers is isolated and given up, and delays those behind it by seconds.
 */

import { onAbort } from "./abort.js";
import { failureOf, platformError, Refused } from "./errors.js";
import { passes, pauseOf, within } from "./net.js";
import { backoff, createTimer, now, sleep } from "./time.js";
import { lineOf } from "./wire.js";

/** @import { Failure, Net } from "./internal.js" */
/** @import { Draft, Publishing, Receipt } from "./types.js" */

/**
 * A message on its way.
 * @typedef {{ line: string, done: boolean, failures: number, resolve(receipt: Receipt): void,
 *   reject(error: unknown): void }} Letter
 */

const BATCH_CHARACTERS = 200_000; // each has at most 3 bytes in UTF-8, and a request's body at most 1 MiB
const BATCH_LINES = 1_000;
const QUEUE_LINES = 10_000;
const QUEUE_CHARACTERS = 2 ** 24;
const ANSWER_MS = 15_000;
const CHARACTERS_PER_MS = 10; // the slowest network that a large message is not given up on
const SAME = 3; // failures in a row with one reason, before the messages may be the cause
const ALONE = 3; // failures of a message that is sent by itself, while the server answers

/**
 * @param {Net} net
 * @param {(failure: Publishing) => void} failing
 */
export function createPublisher(net, failing) {
  /** @type {Letter[]} */
  let queue = [];
  let lines = 0; // of the queue that are not done
  let characters = 0;
  let busy = false;
  let closed = false;
  let most = BATCH_LINES; // lines of the next batch; fewer while a message is searched that fails
  let attempts = 0;
  let same = 0;
  let reason = "";
  let notBefore = 0; // the server has asked to be left alone until then
  /** Ends the request or the pause. */
  let flight = new AbortController();

  return { post, close };

  /**
   * @param {Draft[]} drafts
   * @param {AbortSignal | undefined} signal
   * @param {number} timeout milliseconds
   * @returns {Promise<PromiseSettledResult<Receipt>[]>}
   */
  async function post(drafts, signal, timeout) {
    const texts = drafts.map((draft) => lineOf({ ...draft, key: draft.key ?? randomKey() }));
    if (closed) throw platformError("the client is closed", "AbortError");
    const size = texts.reduce((sum, { length }) => sum + length, 0);
    if (lines + texts.length > QUEUE_LINES || characters + size > QUEUE_CHARACTERS) {
      throw new Refused({
        reason: `${lines} messages wait to be published: publish more when they are acknowledged`,
        code: "queue_full",
      });
    }
    /** @type {Letter[]} */
    const letters = [];
    const results = Promise.allSettled(
      texts.map(
        (line) =>
          new Promise((resolve, reject) => void letters.push({ line, done: false, failures: 0, resolve, reject })),
      ),
    );
    queue.push(...letters);
    lines += letters.length;
    characters += size;
    const giveUp = (/** @type {unknown} */ error) => {
      for (const letter of letters) finish(letter, error);
      queue = queue.filter(({ done }) => !done);
      if (!queue.length) flight.abort();
    };
    const timer = createTimer();
    const late = () => `not acknowledged within ${timeout} ms${reason && `: ${reason}`}`;
    if (timeout < Infinity) timer(() => giveUp(platformError(late(), "TimeoutError")), timeout);
    const off = onAbort(signal, () => giveUp(signal?.reason));
    if (!busy) send();
    return results.finally(() => (timer(), off()));
  }

  function close() {
    closed = true;
    for (const letter of queue) finish(letter, platformError("closed before it was acknowledged", "AbortError"));
    queue = [];
    flight.abort();
  }

  /** @param {Letter} letter @param {unknown} error @param {Receipt} [receipt] instead of the error */
  function finish(letter, error, receipt) {
    if (letter.done) return;
    letter.done = true;
    lines -= 1;
    characters -= letter.line.length;
    if (receipt) letter.resolve(receipt);
    else letter.reject(error);
  }

  async function send() {
    busy = true;
    await null; // what is published in the same turn goes along
    while (queue.length) {
      flight = new AbortController();
      const { signal } = flight;
      if (notBefore > now()) await sleep(notBefore - now(), signal);
      if (signal.aborted) continue;
      const batch = next();
      try {
        await deliver(batch, signal);
        attempts = same = 0;
        reason = "";
        most = Math.min(BATCH_LINES, 2 * most);
      } catch (error) {
        if (!signal.aborted) await failed(batch, failureOf(error), signal);
      }
      queue = queue.filter(({ done }) => !done);
    }
    busy = false;
  }

  /** The first letters, as many as fit into a request. */
  function next() {
    let size = 0;
    let count = 0;
    for (const { line } of queue) {
      size += line.length + 1;
      if (count && (size > BATCH_CHARACTERS || count === most)) break;
      count += 1;
    }
    return queue.slice(0, count);
  }

  /** @param {Letter[]} batch @param {AbortSignal} signal */
  async function deliver(batch, signal) {
    const body = batch.map(({ line }) => line).join("\n");
    const answers = await ask(body, signal);
    if (answers.length !== batch.length) throw { reason: `${answers.length} answers to ${batch.length} messages` };
    /** @type {Failure | null} */
    let again = null;
    batch.forEach((letter, index) => {
      const { id, durability, error } = answers[index];
      if (id) return finish(letter, null, { id, durability });
      const { code, message, retry_after_ms: retry } = error;
      // An internal error may be about this message: it is not repeated for ever.
      if (passes(code) && (code !== "internal" || ++letter.failures < ALONE)) {
        again = { reason: `${code}: ${message}`, retry: pauseOf(retry), calm: true };
      } else {
        finish(letter, new Refused({ reason: `${code}: ${message}`, code }));
      }
    });
    if (again) throw again;
  }

  /** @param {string} body @param {AbortSignal} signal @returns {Promise<any[]>} an answer to each line */
  function ask(body, signal) {
    return within(ANSWER_MS + body.length / CHARACTERS_PER_MS, signal, async (inner) => {
      const response = await net.ask(net.url("publish"), { method: "POST", body, signal: inner });
      const text = (await response.text()).trim();
      return text ? text.split("\n").map((line) => JSON.parse(line)) : [];
    });
  }

  /**
   * A request has failed: refuse its messages, look for the one that makes it fail, or wait.
   * @param {Letter[]} batch @param {Failure} failure @param {AbortSignal} signal
   */
  async function failed(batch, failure, signal) {
    const { fatal, calm, status = 0, code, retry = 0 } = failure;
    if (fatal) {
      // One message may be the cause, unless it is the sender or the address that is refused.
      const all = batch.length === 1 || (code && [401, 403, 404, 405].includes(status));
      if (!all) most = Math.ceil(batch.length / 2);
      else for (const letter of batch) finish(letter, new Refused(failure));
      return;
    }
    same = failure.reason === reason ? same + 1 : 1;
    reason = failure.reason;
    attempts += 1;
    let pause = Math.max(backoff(net.timing.backoff, attempts - 1), retry);
    if (!calm && same >= SAME && (await answers(signal))) {
      pause = backoff(net.timing.backoff, 0);
      if (batch.length > 1) {
        most = Math.ceil(batch.length / 2);
      } else if (++batch[0].failures >= ALONE) {
        const text = `given up after ${attempts} attempts, as the server answers otherwise: ${reason}`;
        finish(batch[0], new Refused({ ...failure, reason: text }));
        return;
      }
    }
    if (signal.aborted) return;
    notBefore = now() + pause;
    net.say(`publishing again in ${Math.round(pause)} ms: ${reason}`);
    failing({ reason, attempts, retry: pause, waiting: lines });
  }

  /** Whether the server takes a batch without messages. @param {AbortSignal} signal */
  async function answers(signal) {
    try {
      await ask("", signal);
      return true;
    } catch (error) {
      const { status = 0 } = failureOf(error);
      return status >= 400 && status < 500;
    }
  }
}

function randomKey() {
  // crypto.randomUUID is missing on a page without TLS
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("-");
}
