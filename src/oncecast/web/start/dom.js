/** Helpers for the document. */

/**
 * The URL of one of the server's paths. It is taken from this page's own, as a proxy may have put both below a prefix.
 * @param {string} path without a slash in front
 */
export function address(path) {
  return new URL(path, document.baseURI);
}

/**
 * The one element that matches. Throws if there is none, as that is a bug of the page.
 * @param {string} selector
 * @param {ParentNode} [root]
 * @returns {any} an element of whatever type its caller knows it to be
 */
export function find(selector, root = document) {
  const found = root.querySelector(selector);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}

/**
 * @param {string} tag
 * @param {string} text
 * @param {string} [className]
 */
export function element(tag, text, className = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/**
 * Set an element's text, touching the document only if it changed.
 * @param {Element} field
 * @param {string} text
 */
export function write(field, text) {
  if (field.textContent !== text) field.textContent = text;
}
