/**
 * What is done when an `AbortSignal` fires.
 * Invariant: a signal has at most one listener of this client, however many tasks wait for it, so Node does not warn
 * about a leak; the listener is removed with the last task.
 */

/** @type {WeakMap<AbortSignal, { tasks: Set<() => void>, fire(): void }>} */
const waiting = new WeakMap();

/**
 * Call `task` when the signal fires, at once if it has fired.
 * @param {AbortSignal | undefined} signal
 * @param {() => void} task
 * @returns {() => void} takes the task back
 */
export function onAbort(signal, task) {
  if (!signal || signal.aborted) {
    if (signal) task();
    return () => {};
  }
  let entry = waiting.get(signal);
  if (!entry) {
    /** @type {Set<() => void>} */
    const tasks = new Set();
    entry = { tasks, fire: () => [...tasks].forEach((each) => tasks.has(each) && each()) };
    waiting.set(signal, entry);
    signal.addEventListener("abort", entry.fire, { once: true });
  }
  const { tasks, fire } = entry;
  const own = () => task(); // the same function may wait twice
  tasks.add(own);
  return () => {
    if (!tasks.delete(own) || tasks.size) return;
    waiting.delete(signal);
    signal.removeEventListener("abort", fire);
  };
}
