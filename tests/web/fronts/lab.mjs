/** What the tests' applications share: their client, and what a view shows. */

import { connect } from "oncecast";

const { token, ...options } = globalThis.options;
export const cast = connect("/", token ? { ...options, getToken: () => token } : options);
globalThis.cast = cast;
globalThis.warnings = [];
console.warn = (text) => warnings.push(text);

/** The text of a view. @param {any} state of its channel @param {boolean} blind whether it does not look at gaps */
export function textOf(state, blind) {
  const { messages, last, dropped, error, status } = state;
  const heard = messages.map(({ data }) => data);
  const shown = { heard, last: last?.data ?? null, dropped, status, error: error?.code ?? error?.message ?? null };
  return JSON.stringify(blind ? shown : { ...shown, gap: state.gap?.reason ?? null });
}
