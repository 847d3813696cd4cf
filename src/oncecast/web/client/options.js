/**
 * Checks of what an application passes in. Each error names the option and says what it may be.
 */

import { TIMER_MAX_MS } from "./time.js";

/**
 * The options of a function, of which it must know each.
 * @template {object} T
 * @param {string} of the function's name
 * @param {T | undefined} given
 * @param {string} known the names, separated by spaces
 * @returns {T}
 */
export function optionsOf(of, given, known) {
  if (given === undefined) return /** @type {T} */ ({});
  if (typeof given !== "object" || !given) throw new TypeError(`the options of ${of} must be an object`);
  for (const name in given) {
    if (!known.split(" ").includes(name)) throw new TypeError(`${of} has no option "${name}": use ${known}`);
  }
  return given;
}

/**
 * @param {string} name
 * @param {unknown} value
 * @param {number} least
 * @param {number} most
 * @param {boolean} [whole]
 * @returns {number}
 */
export function numberOf(name, value, least, most, whole) {
  if (typeof value !== "number") throw new TypeError(`${name} must be a number`);
  if (!(value >= least && value <= most) || (whole && value % 1)) {
    throw new RangeError(`${name} must be ${whole ? "a whole number " : ""}from ${least} to ${most}, not ${value}`);
  }
  return value;
}

/** A time limit: milliseconds, or `Infinity` for none. @param {unknown} value */
export function timeoutOf(value) {
  return value === Infinity ? Infinity : numberOf("timeout", value, 1, TIMER_MAX_MS);
}

/** @param {string} name @param {any} value @returns {any} */
export function functionOf(name, value) {
  if (value !== undefined && typeof value !== "function") throw new TypeError(`${name} must be a function`);
  return value;
}

/** @param {any} value @returns {AbortSignal | undefined} not yet aborted: else its reason is thrown */
export function signalOf(value) {
  if (value === undefined) return;
  if (typeof value?.addEventListener !== "function") throw new TypeError("signal must be an AbortSignal");
  if (value.aborted) throw value.reason;
  return value;
}
