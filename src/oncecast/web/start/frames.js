/**
 * The clock of a page that draws: texts twice to four times a second, pictures more often, unless motion is not wanted.
 *
 * Both stop while the page is hidden, as the browser requests no frames then. Listening continues.
 */

import { now } from "./clock.js";

const DRAW_MS = 50;
const CALM_DRAW_MS = 1_000; // with prefers-reduced-motion

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/**
 * @param {number} renderMs milliseconds between two calls of `render`, which writes texts
 * @param {() => void} render
 * @param {() => void} draw draws the pictures
 */
export function keepDrawing(renderMs, render, draw) {
  let rendered = -Infinity;
  let drawn = -Infinity;
  const frame = () => {
    requestAnimationFrame(frame);
    const at = now();
    if (at - rendered >= renderMs) {
      rendered = at;
      render();
    }
    if (at - drawn >= (calm.matches ? CALM_DRAW_MS : DRAW_MS)) {
      drawn = at;
      draw();
    }
  };
  requestAnimationFrame(frame);
}
