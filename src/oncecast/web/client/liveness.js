/**
 * Whether a connection lives: how long the server's heartbeat is, and whether the silence has become too long.
 *
 * The interval is what the server has announced, or else the largest of the last spacings between heartbeats. When a
 * heartbeat is read late, because the application was busy, one spacing is too long and the next one too short; so a
 * single spacing proves nothing, and a value below the default is believed only after several. Heartbeats that are read
 * together, without a tick between them, tell nothing. A tick that comes late says that the thread was busy or suspended:
 * the connection is asked then, and not cut.
 */

import { now } from "./time.js";

/** @import { Net } from "./internal.js" */

const SILENT_BEATS = 2.5;
const SPACINGS = 4; // the last ones are kept
const ENOUGH = 3; // spacings before an interval below the default is believed
const TICK_MS = 1_000;
const SLEPT_MS = 3_000; // a tick that is later than this: the machine has slept, or the page was frozen

/**
 * @param {Net} net
 * @param {(reason: string, silent: boolean) => void} suspect asks the connection whether it lives
 */
export function createLiveness(net, suspect) {
  let heardAt = 0;
  let beatAt = 0; // 0: no heartbeat has come on this connection
  let beats = 0; // on this connection
  let ticked = false; // since the last heartbeat
  let tickAt = 0;
  let wallAt = 0;
  /** @type {number[]} */
  const spacings = [];
  /** @type {any} */
  let ticker;
  return {
    start,
    stop,
    heard,
    interval,
    /** When something came last. */
    get at() {
      return heardAt;
    },
  };

  /** A connection has been opened. */
  function start() {
    heardAt = tickAt = now();
    wallAt = Date.now();
    beatAt = beats = 0;
    ticker ??= setInterval(tick, Math.min(TICK_MS, net.timing.heartbeat / 5));
  }

  function stop() {
    clearInterval(ticker);
    ticker = null;
  }

  /**
   * Something has come. Returns whether this connection has brought several heartbeats.
   * @param {boolean} beat whether it was a heartbeat
   */
  function heard(beat) {
    heardAt = now();
    if (!beat) return beats > ENOUGH;
    beats += 1;
    if (beatAt && ticked) spacings.push(heardAt - beatAt);
    if (spacings.length > SPACINGS) spacings.shift();
    beatAt = heardAt;
    ticked = false;
    return beats > ENOUGH;
  }

  /** The milliseconds between two heartbeats of the server, as far as is known. */
  function interval() {
    const longest = Math.max(0, ...spacings);
    return net.announced || spacings.length < ENOUGH ? Math.max(net.heartbeat, longest) : longest;
  }

  function tick() {
    const [time, wall] = [now(), Date.now()];
    const late = time - tickAt > SLEPT_MS;
    // On some systems the monotonic clock stands still while the machine sleeps.
    const slept = wall - wallAt - (time - tickAt) > SLEPT_MS;
    [tickAt, wallAt] = [time, wall];
    ticked = true;
    const silent = time - heardAt;
    if (slept || (late && silent > interval())) return suspect("the clock has jumped", false);
    if (silent < SILENT_BEATS * interval()) return;
    if (!spacings.length) net.heartbeat *= 2; // perhaps this server's heartbeat is only slower than was assumed
    suspect(`nothing came for ${Math.round(silent / 1000)} s`, true);
  }
}
