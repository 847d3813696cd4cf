/** What a channel has, read by short polls: `history`. */

import { onAbort } from "./abort.js";
import { failureOf, platformError, Refused } from "./errors.js";
import { poll } from "./net.js";
import { backoff, createTimer, sleep } from "./time.js";
import { isGap } from "./wire.js";

/** @import { Net, Start } from "./internal.js" */
/** @import { History } from "./types.js" */

/**
 * @param {Net} net
 * @param {string} channel
 * @param {Start} start
 * @param {number} limit messages
 * @param {{ signals: (AbortSignal | undefined)[], timeout: number }} until
 * @returns {Promise<History>}
 */
export async function readHistory(net, channel, start, limit, { signals, timeout }) {
  const end = new AbortController();
  const { signal } = end;
  const timer = createTimer();
  let last = "";
  const late = () => end.abort(platformError(`no answer within ${timeout} ms${last && `: ${last}`}`, "TimeoutError"));
  if (timeout < Infinity) timer(late, timeout);
  const offs = signals.map((outer) => onAbort(outer, () => end.abort(outer?.reason)));
  /** @type {History} */
  const history = { messages: [], gaps: [], cursor: "" };
  try {
    for (let attempt = 0; ; ) {
      try {
        const more = await poll(net, [channel], history.cursor || start, signal, {
          limit: limit - history.messages.length,
        });
        attempt = 0;
        for (const [, item] of more.items) {
          if (isGap(item)) history.gaps.push(item);
          else history.messages.push(item);
        }
        history.cursor = more.cursor;
        if (!more.items.length || history.messages.length >= limit) return history;
      } catch (error) {
        const failure = failureOf(error);
        if (signal.aborted) throw signal.reason;
        if (failure.fatal) throw new Refused(failure);
        last = failure.reason;
        await sleep(Math.max(backoff(net.timing.backoff, attempt++), failure.retry ?? 0), signal);
        if (signal.aborted) throw signal.reason;
      }
    }
  } finally {
    timer();
    for (const off of offs) off();
  }
}
