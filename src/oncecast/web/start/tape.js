/**
 * The log itself, as a tape: one tick for each message, and below it four readers with a cursor each.
 *
 * The tape runs whether it is read or not. The cursor of a disconnected reader stays at its place; after a
 * reconnect the reader reads the messages that it lacks. The top row has every message that any reader knows.
 */

import { Surface } from "./canvas.js";

/** The speed of the tape, in pixels a second. A wider window shows a longer past. */
const SPEED = 26;

/** Numbers are written at every tick divisible by this. */
const NUMBERED = 20;

const LABEL = 44; // the room that a number needs
const ROW = 22; // must match --row in the style sheet

/**
 * @typedef {object} Reader
 * @property {readonly import("./exchange.js").Sample[]} samples in order
 * @property {string} color the custom property with its colour
 * @property {boolean} live
 */

export class Tape {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.surface = new Surface(canvas);
  }

  /**
   * @param {readonly Reader[]} readers from top to bottom
   * @param {number} now milliseconds, the server's clock: the right edge
   */
  draw(readers, now) {
    const { surface } = this;
    const context = surface.begin();
    if (!context) return;
    const right = surface.width - 10;
    const x = (/** @type {number} */ at) => right - ((now - at) / 1000) * SPEED;
    const oldest = now - (surface.width / SPEED) * 1000;
    const visible = readers.map(({ samples }) => samples.filter((sample) => sample.at > oldest));

    this.#log(context, union(visible), x);

    for (const [index, reader] of readers.entries()) {
      const middle = (index + 1) * ROW + ROW / 2;
      this.#lane(context, reader, visible[index], x, middle, right);
    }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {readonly import("./exchange.js").Sample[]} samples
   * @param {(at: number) => number} x
   */
  #log(context, samples, x) {
    const { surface } = this;
    context.fillStyle = surface.color("--ink");
    context.textAlign = "left";
    for (const sample of samples) {
      const numbered = sample.n % NUMBERED === 0;
      const tall = numbered ? 14 : sample.n % 4 === 0 ? 8 : 5;
      context.globalAlpha = numbered ? 1 : 0.6;
      const left = Math.round(x(sample.at));
      context.fillRect(left, ROW - tall, 1, tall);
      const fits = left + LABEL < surface.width;
      if (numbered && fits) context.fillText(`n ${sample.n}`, left + 4, ROW - 10);
    }
    context.globalAlpha = 1;
    context.fillStyle = surface.color("--rule");
    context.fillRect(0, ROW, surface.width, 1);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Reader} reader
   * @param {readonly import("./exchange.js").Sample[]} samples
   * @param {(at: number) => number} x
   * @param {number} middle
   * @param {number} right
   */
  #lane(context, reader, samples, x, middle, right) {
    const { surface } = this;
    const pen = surface.color(reader.color);
    const newest = reader.samples.at(-1);
    const caret = newest ? Math.max(6, x(newest.at)) : 6;

    context.fillStyle = surface.color("--grid");
    context.fillRect(0, Math.round(middle), surface.width, 1);

    for (const [index, sample] of samples.entries()) {
      const left = Math.round(x(sample.at));
      if (sample.afterGap && index > 0) {
        const from = Math.round(x(samples[index - 1].at)) + 3;
        surface.hatch(from, middle - 5, Math.max(0, left - from - 1), 11);
      }
      context.fillStyle = sample.late ? surface.color("--late") : pen;
      context.fillRect(left, middle - 4, 2, 9);
    }

    // What this reader has not read: from its cursor to the end of the tape.
    context.strokeStyle = pen;
    context.lineWidth = 1.5;
    context.setLineDash([1.5, 4]);
    context.beginPath();
    context.moveTo(caret + 6, middle + 0.5);
    context.lineTo(right, middle + 0.5);
    context.stroke();
    context.setLineDash([]);

    context.beginPath();
    context.moveTo(caret + 1, middle - 7);
    context.lineTo(caret + 8, middle + 0.5);
    context.lineTo(caret + 1, middle + 8);
    context.closePath();
    context.fillStyle = reader.live ? pen : surface.color("--paper");
    context.strokeStyle = pen;
    context.fill();
    context.stroke();
  }
}

/**
 * Every message that any reader knows, each once.
 * @param {readonly (readonly import("./exchange.js").Sample[])[]} lists
 */
function union(lists) {
  const known = new Map();
  for (const samples of lists) for (const sample of samples) known.set(sample.at, sample);
  return [...known.values()];
}
