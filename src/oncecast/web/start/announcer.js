/**
 * Announcements for screen readers: an action of the user and its result, but not each message.
 *
 * Sentences of one moment are joined, so that "cut all" is one announcement and not four that interrupt each
 * other.
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
