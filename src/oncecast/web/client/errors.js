/**
 * The errors that an application gets, beside `TypeError` and `RangeError` for what it passed in.
 */

/** @import { Failure } from "./internal.js" */

/** A refusal for good: the same request would be refused again. */
export class Refused extends Error {
  /** @param {Failure} failure */
  constructor({ reason, code = null, status = 0, retry = 0 }) {
    super(reason);
    this.name = "Refused";
    this.code = code;
    this.status = status;
    this.retryAfter = retry > 0 ? retry : null;
  }
}

/** An error of the kinds that the platform's own functions reject with. @param {string} text @param {string} name */
export function platformError(text, name) {
  return new DOMException(text, name);
}

/**
 * What a listener threw, shown where the platform shows uncaught errors; nothing else of the client is harmed.
 * @param {unknown} error
 */
export function report(error) {
  const { reportError = console.error } = globalThis;
  reportError(error);
}

/** @param {unknown} error of whatever kind: what a hostile answer makes the code throw, too @returns {Failure} */
export function failureOf(error) {
  return error instanceof Error ? { reason: String(error) } : /** @type {Failure} */ (error);
}
