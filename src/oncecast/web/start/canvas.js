/**
 * The base of both drawings: a canvas in the screen's resolution, with colours from the style sheet.
 *
 * Colours are custom properties, so that light and dark are defined in one place. They are read again when the
 * scheme changes, not for each frame.
 */

const dark = matchMedia("(prefers-color-scheme: dark)");

export class Surface {
  width = 0;
  height = 0;

  /** @type {Map<string, string>} */
  #colors = new Map();

  /** @param {HTMLCanvasElement} canvas sized by the style sheet */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    new ResizeObserver(() => this.#fit()).observe(canvas);
    dark.addEventListener("change", () => this.#colors.clear());
  }

  /** Clear the canvas, and return its context with the text style set; `null` while it has no size. */
  begin() {
    if (this.width === 0 || this.height === 0) return null;
    const { context } = this;
    context.clearRect(0, 0, this.width, this.height);
    context.font = `10px ${this.color("--mono")}`;
    context.textBaseline = "alphabetic";
    return context;
  }

  /** @param {string} name of a custom property, as it applies to this canvas */
  color(name) {
    let value = this.#colors.get(name);
    if (value === undefined) {
      value = getComputedStyle(this.canvas).getPropertyValue(name).trim();
      this.#colors.set(name, value);
    }
    return value;
  }

  /**
   * Hatch a rectangle: a declared gap.
   * @param {number} left
   * @param {number} top
   * @param {number} width
   * @param {number} height
   */
  hatch(left, top, width, height) {
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(left, top, width, height);
    context.clip();
    context.beginPath();
    for (let x = left - height; x < left + width; x += 6) {
      context.moveTo(x, top + height);
      context.lineTo(x + height, top);
    }
    context.strokeStyle = this.color("--hatch");
    context.lineWidth = 1;
    context.stroke();
    context.restore();
  }

  #fit() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth;
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }
}
