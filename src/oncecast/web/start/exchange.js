/**
 * The exchange of one listener with the server, drawn as a time-sequence diagram: the server's side at the bottom, the
 * page's side at the top, time from left to right.
 *
 * The diagram shows what differs between the transports. A message is a line from its publish, on the server's side, to
 * its arrival, on the page's side: a flatter line is a longer delay. A request is a mark that points down. While the
 * server has a connection open for an answer or a stream, the band between the sides is filled. An answer without a
 * message is a hollow mark: the cost of polling.
 */

import { Surface } from "./canvas.js";

/** The time that is shown. */
export const SPAN_MS = 6_000;

const HEAD = 16; // room for the page's side and its marks
const FOOT = 16; // and for the server's
const MARK = 4; // half of a mark's width

/**
 * @typedef {object} Sample a message with a counter, as a listener heard it
 * @property {number} at when it was published: milliseconds, the server's clock
 * @property {number} arrival when it arrived: milliseconds, the server's clock
 * @property {number} n the publisher's counter
 * @property {boolean} late published while the listener was disconnected, and caught up
 * @property {boolean} afterGap whether a declared gap lies before it
 *
 * @typedef {object} Span a connection that the server held open, or a request that it was answering
 * @property {number} from milliseconds, this browser's clock
 * @property {number} to Infinity while it lasts
 * @property {number} messages the number in its answer; -1 for a stream, and while it lasts
 */

export class Exchange {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {number} [span] the milliseconds that it shows
   */
  constructor(canvas, span = SPAN_MS) {
    this.surface = new Surface(canvas);
    this.span = span;
  }

  /**
   * @param {readonly Sample[]} heard the messages that this listener has, in order
   * @param {readonly number[]} published when each message known to any listener was published
   * @param {readonly Span[]} spans in order
   * @param {number} now milliseconds, the server's clock: the right edge
   * @param {number} offset subtracted from a span's times, it gives the server's clock
   */
  draw(heard, published, spans, now, offset) {
    const { surface } = this;
    const context = surface.begin();
    if (!context) return;
    const { width } = surface;
    const top = HEAD;
    const bottom = surface.height - FOOT;
    const x = (/** @type {number} */ at) => width - 8 - ((now - at) / this.span) * (width - 8);
    const pen = surface.color("--pen");
    const oldest = now - this.span;

    // Held connections: what the server has open for this listener.
    for (const { from, to } of spans) {
      const left = x(from - offset);
      const right = Math.min(width - 8, x(to - offset));
      if (right < 0) continue;
      context.globalAlpha = 0.13;
      context.fillStyle = pen;
      context.fillRect(left, top, Math.max(1, right - left), bottom - top);
      context.globalAlpha = 1;
    }

    // The two sides.
    context.fillStyle = surface.color("--edge");
    context.fillRect(0, top, width, 1);
    context.fillRect(0, bottom, width, 1);

    // The publishes, each a tick on the server's side.
    context.fillStyle = surface.color("--ink");
    for (const at of published) if (at > oldest) context.fillRect(Math.round(x(at)), bottom - 2, 1, 6);

    // The messages on their way.
    context.lineWidth = 1.5;
    for (const [index, sample] of heard.entries()) {
      if (sample.arrival < oldest) continue;
      if (sample.afterGap && index > 0) {
        const left = x(heard[index - 1].at) + 2;
        surface.hatch(left, top, x(sample.at) - left - 2, bottom - top);
      }
      context.strokeStyle = sample.late ? surface.color("--late") : pen;
      context.beginPath();
      context.moveTo(x(sample.at), bottom);
      context.lineTo(x(sample.arrival), top);
      context.stroke();
    }

    // Requests point down to the server; answers stand on the page's side, hollow where they had nothing.
    for (const { from, to, messages } of spans) {
      const asked = x(from - offset);
      if (asked > -MARK) this.#mark(context, asked, bottom + 3, pen);
      if (to !== Infinity && messages >= 0) this.#answer(context, x(to - offset), top - MARK - 3, pen, messages > 0);
    }

    this.#name(context, "page", 0);
    this.#name(context, "server", surface.height - FOOT + 5);
  }

  /**
   * The name of a side, on a ground of its own, as marks pass below it.
   * @param {CanvasRenderingContext2D} context
   * @param {string} text
   * @param {number} y of its upper edge
   */
  #name(context, text, y) {
    context.fillStyle = this.surface.color("--sheet");
    context.fillRect(0, y, context.measureText(text).width + 5, 11);
    context.fillStyle = this.surface.color("--soft");
    context.textAlign = "left";
    context.fillText(text, 0, y + 8);
  }

  /**
   * A request: a triangle that points down.
   * @param {CanvasRenderingContext2D} context
   * @param {number} x
   * @param {number} y
   * @param {string} pen
   */
  #mark(context, x, y, pen) {
    context.beginPath();
    context.moveTo(x - MARK, y);
    context.lineTo(x + MARK, y);
    context.lineTo(x, y + MARK + 2);
    context.closePath();
    context.fillStyle = pen;
    context.fill();
  }

  /**
   * An answer: a disc, or a ring where it had no message.
   * @param {CanvasRenderingContext2D} context
   * @param {number} x
   * @param {number} y
   * @param {string} pen
   * @param {boolean} full
   */
  #answer(context, x, y, pen, full) {
    context.beginPath();
    context.arc(x, y, MARK - 0.5, 0, 2 * Math.PI);
    context.fillStyle = full ? pen : this.surface.color("--sheet");
    context.fill();
    context.lineWidth = 1.25;
    context.strokeStyle = pen;
    context.stroke();
  }
}
