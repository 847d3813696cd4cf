/** Listeners by the name of an event. */

import { report } from "./errors.js";

/** @param {string} names of the events, separated by spaces */
export function createEmitter(names) {
  /** @type {Record<string, Set<Function>>} */
  const listeners = {};
  for (const name of names.split(" ")) listeners[name] = new Set();
  return {
    /** @param {string} name @param {any} listener @returns {() => void} removes the listener */
    on(name, listener) {
      if (!Object.hasOwn(listeners, name)) throw new TypeError(`there is no event "${name}": listen to ${names}`);
      if (typeof listener !== "function") throw new TypeError("the listener must be a function");
      listeners[name].add(listener);
      return () => void listeners[name].delete(listener);
    },

    /** @param {string} name */
    hears: (name) => listeners[name].size > 0,

    /** @param {string} name @param {any} value */
    emit(name, value) {
      for (const listener of [...listeners[name]]) {
        try {
          listener(value);
        } catch (error) {
          report(error);
        }
      }
    },
  };
}
