/** Numbers for people. Every function returns a short string of bounded width. */

const WHOLE = new Intl.NumberFormat("en");
const UNITS = ["B", "kB", "MB", "GB", "TB"];
const NONE = "–";

/** @param {number} count */
export function whole(count) {
  return WHOLE.format(count);
}

/**
 * Bytes, in decimal units as on the wire: `812 B`, `4.31 kB`, `12.0 MB`.
 * @param {number | null | undefined} count
 */
export function bytes(count) {
  if (!known(count)) return NONE;
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(value) : value.toPrecision(3)} ${UNITS[unit]}`;
}

/**
 * A duration: `0.8 ms`, `14 ms`, `2.3 s`, `4 min`.
 * @param {number | null | undefined} milliseconds
 */
export function duration(milliseconds) {
  if (!known(milliseconds)) return NONE;
  const value = Math.max(0, milliseconds);
  if (value < 9.95) return `${value.toFixed(1)} ms`;
  if (value < 999.5) return `${Math.round(value)} ms`;
  if (value < 99_950) return `${(value / 1000).toFixed(1)} s`;
  return `${Math.round(value / 60_000)} min`;
}

/** @param {number | null | undefined} value 0 to 100 */
export function percent(value) {
  return known(value) ? `${value.toFixed(1)} %` : NONE;
}

/**
 * `1 message`, `37 messages`.
 * @param {number} count
 * @param {string} noun
 */
export function plural(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * The median of some numbers; `null` of none.
 * @param {readonly number[]} values
 */
export function median(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * @param {number | null | undefined} value
 * @returns {value is number}
 */
function known(value) {
  return Number.isFinite(value);
}
