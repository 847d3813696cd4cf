/** Numbers for people. */

export const percent = (share) => `${Math.round(share)} %`;

/** Bytes with three digits at most: 950 B, 1.2 kB, 34 MB. */
export function amount(bytes) {
  let value = Math.abs(bytes);
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

/** The next of 1, 2, 5, 10, 20 … that is not below a number: a scale that does not change with each sample. */
export function roundUp(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 5, 10].find((step) => step * power >= number * 0.999) * power;
}
