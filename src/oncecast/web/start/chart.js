/**
 * A strip chart of the last minute: processor as a solid line, memory as a dashed one.
 *
 * Time runs by the messages' own time, so what arrives late is drawn where it belongs. What was caught up
 * after a reconnect has another tint; what a gap declared missing is hatched; what has not arrived yet is
 * left empty.
 */

import { Surface } from "./canvas.js";

/** How much of the past is shown. */
export const SPAN_MS = 60_000;

/** Vertical lines of the paper. */
const GRID_MS = 10_000;

const FOOT = 14; // room for the time scale
const HEAD = 14; // and for what the topmost line means, clear of the curve

/**
 * @typedef {object} Sample
 * @property {number} at milliseconds, the server's clock
 * @property {number} n the publisher's counter
 * @property {number} cpu 0 to 100
 * @property {number} memory 0 to 100
 * @property {boolean} late caught up after a reconnect
 * @property {boolean} afterGap whether a declared gap lies before it
 */

export class Chart {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.surface = new Surface(canvas);
  }

  /**
   * @param {readonly Sample[]} samples in order
   * @param {number} now milliseconds, the server's clock: the right edge
   */
  draw(samples, now) {
    const { surface } = this;
    const context = surface.begin();
    if (!context) return;
    const { width } = surface;
    const bottom = surface.height - FOOT;
    const x = (/** @type {number} */ at) => width - ((now - at) / SPAN_MS) * width;
    const y = (/** @type {number} */ value) => bottom - (value / 100) * (bottom - HEAD);

    this.#paper(context, now, x, y, bottom);

    const first = Math.max(0, samples.findIndex((sample) => now - sample.at < SPAN_MS) - 1);
    const shown = samples.slice(first);
    for (const [index, sample] of shown.entries()) {
      const before = shown[index - 1];
      if (before && sample.afterGap) {
        const left = Math.max(0, x(before.at));
        surface.hatch(left, HEAD, x(sample.at) - left, bottom - HEAD);
      }
    }

    for (const run of runs(shown)) {
      const path = line(run, x, (sample) => y(sample.cpu));
      const end = run[run.length - 1];
      const ends = [x(run[0].at), x(end.at)];
      const { late } = end;
      if (late) {
        context.fillStyle = surface.color("--late-wash");
        context.fillRect(ends[0], HEAD, ends[1] - ends[0], bottom - HEAD);
      }
      const area = new Path2D(path);
      area.lineTo(ends[1], bottom);
      area.lineTo(ends[0], bottom);
      context.globalAlpha = late ? 0.1 : 0.12;
      context.fillStyle = surface.color(late ? "--late" : "--pen");
      context.fill(area);
      context.globalAlpha = 1;

      context.setLineDash([3, 3]);
      context.lineWidth = 1;
      context.strokeStyle = surface.color("--soft");
      context.stroke(line(run, x, (sample) => y(sample.memory)));
      context.setLineDash([]);
      context.lineWidth = 1.75;
      context.lineJoin = "round";
      context.strokeStyle = surface.color(late ? "--late" : "--pen");
      context.stroke(path);
    }

    const newest = shown.at(-1);
    if (newest && now - newest.at < SPAN_MS) {
      context.beginPath();
      context.arc(x(newest.at) - 1, y(newest.cpu), 2.75, 0, 2 * Math.PI);
      context.fillStyle = surface.color(newest.late ? "--late" : "--pen");
      context.fill();
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {number} now
   * @param {(at: number) => number} x
   * @param {(value: number) => number} y
   * @param {number} bottom
   */
  #paper(context, now, x, y, bottom) {
    const { surface } = this;
    context.lineWidth = 1;
    context.strokeStyle = surface.color("--grid");
    context.beginPath();
    for (let at = now - (now % GRID_MS); at > now - SPAN_MS; at -= GRID_MS) {
      context.moveTo(Math.round(x(at)) + 0.5, HEAD);
      context.lineTo(Math.round(x(at)) + 0.5, bottom);
    }
    for (const value of [25, 50, 75, 100]) {
      context.moveTo(0, Math.round(y(value)) + 0.5);
      context.lineTo(surface.width, Math.round(y(value)) + 0.5);
    }
    context.stroke();
    context.strokeStyle = surface.color("--rule");
    context.beginPath();
    context.moveTo(0, bottom + 0.5);
    context.lineTo(surface.width, bottom + 0.5);
    context.stroke();

    context.fillStyle = surface.color("--soft");
    context.textAlign = "left";
    context.fillText("−60 s", 0, surface.height - 2);
    context.fillText("100 %", 0, HEAD - 4);
    context.textAlign = "right";
    context.fillText("now", surface.width, surface.height - 2);
  }
}

/**
 * Stretches to be drawn in one tint. Neighbours share a sample, so that the line is unbroken, except at a
 * gap.
 * @param {readonly Sample[]} samples
 */
function runs(samples) {
  /** @type {Sample[][]} */
  const result = [];
  /** @type {Sample[]} */
  let run = [];
  for (const [index, sample] of samples.entries()) {
    const before = samples[index - 1];
    if (before && !sample.afterGap && sample.late === before.late) {
      run.push(sample);
      continue;
    }
    run = before && !sample.afterGap ? [before, sample] : [sample];
    result.push(run);
  }
  return result;
}

/**
 * @param {readonly Sample[]} samples
 * @param {(at: number) => number} x
 * @param {(sample: Sample) => number} y
 */
function line(samples, x, y) {
  const path = new Path2D();
  for (const sample of samples) path.lineTo(x(sample.at), y(sample));
  return path;
}
