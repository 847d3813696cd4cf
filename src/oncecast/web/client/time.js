/**
 * Durations: the clock, timers, pauses.
 * Invariant: no duration is measured by the wall clock, which may be set while it runs; and a deadline for the network
 * does not count the time in which this thread was busy with something else.
 */

import { onAbort } from "./abort.js";

/** The largest delay that `setTimeout` takes; a longer one would fire at once. */
export const TIMER_MAX_MS = 2 ** 31 - 1;

const BACKOFF_MAX_MS = 15_000;
const SLICES = 4;
const UNCOUNTED = 3; // slices at most: a background tab whose timers are slowed down has deadlines, too

/** Milliseconds of the monotonic clock. */
export const now = () => performance.now();

/**
 * A timer of which at most one is set. A call replaces the task; a call without a task clears it.
 * @returns {(task?: () => void, milliseconds?: number) => void}
 */
export function createTimer() {
  /** @type {any} */
  let timer;
  return (task, milliseconds) => {
    clearTimeout(timer);
    if (task) timer = setTimeout(task, milliseconds);
  };
}

/**
 * A timer for what the network has to do in time. The time is divided into slices, and a slice that took twice its
 * length is not counted: this thread was busy or suspended, and what has arrived meanwhile is still to be read.
 * @returns {(task?: () => void, milliseconds?: number) => void} as of `createTimer`
 */
export function createDeadline() {
  const timer = createTimer();
  return (task, milliseconds = 0) => {
    const slice = milliseconds / SLICES;
    let left = SLICES;
    let uncounted = 0;
    let began = now();
    timer(task && next, slice);

    function next() {
      const ended = now();
      if (ended - began < 2 * slice || uncounted++ >= UNCOUNTED) left -= 1;
      began = ended;
      if (left) timer(next, slice);
      else task?.();
    }
  };
}

/**
 * Resolves after a time, or as soon as the signal fires.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => (off(), resolve()), milliseconds);
    const off = onAbort(signal, () => (clearTimeout(timer), resolve()));
  });
}

/**
 * The pause before the next attempt: a random time below a ceiling that doubles with each attempt, so that clients
 * which lost the same server do not return at once.
 * @param {number} first the ceiling of the first pause, in milliseconds
 * @param {number} attempt from 0
 */
export function backoff(first, attempt) {
  return Math.random() * Math.min(BACKOFF_MAX_MS, first * 2 ** Math.min(attempt, 16));
}
