/**
 * Which transport worked here last time, so that the next page need not find out again. Owns one item of
 * `localStorage` for each server; without that, nothing is remembered.
 */

/** @import { Net } from "./internal.js" */
/** @import { TransportName } from "./types.js" */

/** The transport that worked last, if that is not long ago. @param {Net} net @returns {any} */
export function recall(net) {
  try {
    const { name, until } = JSON.parse(memory()[keyOf(net)]);
    const left = until - Date.now();
    return left > 0 && left <= net.timing.memory ? name : null; // the clock may have been set back
  } catch {
    return null; // nothing is kept, or there is nowhere to keep it
  }
}

/** @param {Net} net @param {TransportName | null} name */
export function remember(net, name) {
  try {
    memory()[keyOf(net)] = JSON.stringify({ name, until: Date.now() + net.timing.memory });
  } catch {
    // The page may not keep anything.
  }
}

/** Only a page remembers: workers can't, and Node's `localStorage` would warn. @returns {any} */
function memory() {
  return globalThis.document && localStorage;
}

/** @param {Net} net */
function keyOf(net) {
  return `oncecast ${net.url("")}`;
}
