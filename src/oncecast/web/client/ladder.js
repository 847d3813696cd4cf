/**
 * The transports in the order of preference, which of them is in use, and what speaks against it.
 * Invariant: one failure is no proof against a transport that has worked before; three in a row are.
 */

import { recall } from "./memory.js";
import { now } from "./time.js";

/** @import { Net } from "./internal.js" */
/** @import { TransportName } from "./types.js" */

const STRIKES = 3;
const OPEN_MAX_MS = 20_000;

/**
 * @param {Net} net
 * @param {TransportName[]} names best first
 */
export function createLadder(net, names) {
  let strikes = 0;
  let silences = 0; // links in a row that have fallen silent
  /** The rungs that have worked. */
  const proven = new Set();
  /** The rungs that were cut early: a probe of one has to stand for a while. */
  const cut = new Set();
  const ladder = {
    names,
    cut,
    rung: Math.max(0, names.indexOf(recall(net))),
    /** Why this transport is in use. */
    why: "the first choice",
    opened,
    proved,
    failed,
    silent,
  };
  if (ladder.rung) ladder.why = "it worked here last time";
  return ladder;

  /** A link of this rung has been opened. @param {number} rung */
  function opened(rung) {
    if (rung !== ladder.rung) ladder.why = `${names[rung]} works by now`;
    ladder.rung = rung;
    proven.add(rung);
  }

  /** The part of the transport that is easily cut has worked. @param {boolean} [beats] heartbeats have come */
  function proved(beats) {
    if (beats) silences = 0;
    else strikes = 0;
  }

  /** A link has fallen silent. Returns whether the next transport is used, as this happens again and again. */
  function silent() {
    silences += 1;
    if (silences < STRIKES) return false;
    cut.add(ladder.rung);
    step("it falls silent again and again");
    return true;
  }

  /**
   * Count a failure; at the third one the next transport is used.
   * @param {string} reason
   * @param {number} openedAt when the link was opened, or 0
   */
  function failed(reason, openedAt) {
    if (globalThis.navigator?.onLine === false) return;
    const { rung } = ladder;
    if (!openedAt) {
      strikes += proven.has(rung) ? 1 : STRIKES;
    } else if (now() - openedAt < net.timing.early) {
      strikes += 1;
      cut.add(rung);
    } else {
      strikes = 0;
    }
    if (strikes >= STRIKES) step(reason);
  }

  /** Use the next transport. @param {string} reason */
  function step(reason) {
    strikes = silences = 0;
    ladder.why = `${names[ladder.rung]} does not work: ${reason}`;
    ladder.rung = (ladder.rung + 1) % names.length;
    // None works, perhaps because the network is slow.
    if (!ladder.rung) net.open = Math.min(net.open * 2, OPEN_MAX_MS);
  }
}
