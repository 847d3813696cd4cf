/** What channels have, read by short polls: `history`. */

import { onAbort } from "./abort.js";
import { failureOf, platformError, Refused } from "./errors.js";
import { poll } from "./net.js";
import { backoff, createTimer, sleep } from "./time.js";
import { isGap } from "./wire.js";

/** @import { Net, Start } from "./internal.js" */
/** @import { History } from "./types.js" */

export const HISTORY_MAX = 100_000; // messages of one call: what it reads is in memory at once

/**
 * @param {Net} net
 * @param {string[]} channels
 * @param {Start} start
 * @param {number} limit messages
 * @param {{ signals: (AbortSignal | undefined)[], timeout: number }} until
 * @returns {Promise<History>}
 */
export async function readHistory(net, channels, start, limit, { signals, timeout }) {
  const end = new AbortController();
  const { signal } = end;
  const timer = createTimer();
  let why = "";
  const late = () => end.abort(platformError(`no answer within ${timeout} ms${why && `: ${why}`}`, "TimeoutError"));
  if (timeout < Infinity) timer(late, timeout);
  const offs = signals.map((outer) => onAbort(outer, () => end.abort(outer?.reason)));
  /** @type {History} */
  const history = { messages: [], gaps: [], cursor: "" };
  const last = channels.length > 1 && typeof start === "object" && "last" in start ? start.last : 0;
  // What follows a cut answer knows nothing of `last`: read to the end, and keep the last ones of each.
  const most = last ? Infinity : limit;
  try {
    for (let attempt = 0; ; ) {
      try {
        const more = await poll(net, channels, history.cursor || start, signal, {
          limit: last ? undefined : limit - history.messages.length,
        });
        attempt = 0;
        for (const [, item] of more.items) {
          if (isGap(item)) history.gaps.push(item);
          else history.messages.push(item);
        }
        history.cursor = more.cursor;
        if (history.messages.length > HISTORY_MAX) throw { reason: "the channels have too much", fatal: true };
        if (!more.items.length || history.messages.length >= most) return last ? newest(history, last, limit) : history;
      } catch (error) {
        const failure = failureOf(error);
        if (signal.aborted) throw signal.reason;
        if (failure.fatal) throw new Refused(failure);
        why = failure.reason;
        await sleep(Math.max(backoff(net.timing.backoff, attempt++), failure.retry ?? 0), signal);
        if (signal.aborted) throw signal.reason;
      }
    }
  } finally {
    timer();
    for (const off of offs) off();
  }
}

/** The last messages of each channel, and no more than `limit`. @param {History} history @param {number} last @param {number} limit */
function newest({ messages, gaps, cursor }, last, limit) {
  /** @type {Record<string, number>} */
  const counts = {};
  const kept = messages.reverse().filter(({ channel }) => (counts[channel] = (counts[channel] ?? 0) + 1) <= last);
  const given = kept.reverse().slice(0, limit);
  return { messages: given, gaps, cursor: given.length < kept.length ? given[limit - 1].id : cursor };
}
