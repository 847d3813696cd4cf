/**
 * Two clocks: the server's, which stamps a message when it is appended, and this browser's, which sees it
 * arrive.
 *
 * A delay is the difference of the two, so it is wrong by the difference of the clocks. That difference is
 * estimated without a request: a message can't arrive before its publish, and the fastest of hundreds of
 * deliveries in a minute takes almost no time. So the smallest recent difference is about that of the clocks.
 */

/**
 * Up to this, the smallest difference is attributed to the network; above it, or below 0, the clocks disagree.
 */
/** A message's time may be rounded to a whole millisecond, so a delay may seem to be a little below 0. */
const ROUNDING_MS = 2;

const PLAUSIBLE_MS = 250;

/** The minimum is taken over one to two spans of this length, so that a corrected clock is noticed. */
const SPAN_MS = 60_000;

/** This browser's time in milliseconds since 1970, finer than `Date.now()`. */
export function now() {
  return performance.timeOrigin + performance.now();
}

/**
 * The time of observation before an estimate: the first messages may all be old ones, which look like a slow
 * clock.
 */
const OBSERVED_MS = 2_000;

export class Clock {
  #since = Infinity;
  #spanStart = -Infinity;
  #current = Infinity;
  #previous = Infinity;

  /**
   * Learn from one delivery.
   * @param {number} time the message's time: Unix seconds, the server's clock
   * @param {number} arrival milliseconds, this browser's clock
   */
  observe(time, arrival) {
    this.#since = Math.min(this.#since, arrival);
    if (arrival - this.#spanStart > SPAN_MS) {
      this.#previous = this.#current;
      this.#current = Infinity;
      this.#spanStart = arrival;
    }
    this.#current = Math.min(this.#current, arrival - time * 1000);
  }

  /** Milliseconds by which this browser's clock is ahead of the server's; 0 if they plausibly agree. */
  get offset() {
    const smallest = Math.min(this.#current, this.#previous);
    const behind = smallest < -ROUNDING_MS;
    const ahead = smallest > PLAUSIBLE_MS && now() - this.#since > OBSERVED_MS;
    return Number.isFinite(smallest) && (behind || ahead) ? smallest : 0;
  }

  /** The present on the server's clock, in milliseconds. Drawings are placed by that clock. */
  get serverNow() {
    return now() - this.offset;
  }

  /**
   * A message's time on this browser's clock, in milliseconds.
   * @param {number} time Unix seconds, the server's clock
   */
  local(time) {
    return time * 1000 + this.offset;
  }
}
