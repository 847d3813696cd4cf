/**
 * What is said aloud to those who use a screen reader: what somebody did and what came of it, never each
 * message.
 *
 * What is said within a moment is said in one piece, so that "cut all" is one announcement, not four that cut
 * each other off.
 */

const GATHER_MS = 300;

export class Announcer {
  /** @type {string[]} */
  #sentences = [];

  /** @param {HTMLElement} region with role=status */
  constructor(region) {
    this.region = region;
  }

  /** @param {string} sentence */
  say(sentence) {
    if (this.#sentences.push(sentence) > 1) return;
    setTimeout(() => {
      this.region.textContent = this.#sentences.join(" ");
      this.#sentences = [];
    }, GATHER_MS);
  }
}
