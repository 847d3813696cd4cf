/** The states of a connection, and the events that move it from one to another. */

/** @import { State, StateChange } from "./types.js" */

/** The legal moves: from a state, by an event, to a state. @type {Record<State, Record<string, State>>} */
export const MOVES = {
  idle: { wanted: "connecting", closed: "closed" },
  connecting: { opened: "live", lost: "waiting", unwanted: "idle", closed: "closed" },
  live: { lost: "waiting", unwanted: "idle", closed: "closed" },
  waiting: { due: "connecting", opened: "live", unwanted: "idle", closed: "closed" },
  closed: {},
};

/** @param {(change: StateChange) => void} moved */
export function createStates(moved) {
  const states = { now: /** @type {State} */ ("idle"), move };
  return states;

  /** @param {string} event @param {string} reason */
  function move(event, reason) {
    const [from, to] = [states.now, MOVES[states.now][event]];
    if (!to) return; // a loss while waiting, or a probe that opens while live, moves nothing
    states.now = to;
    moved({ from, to, reason });
  }
}
