/**
 * Publishing: one POST with a key, which is safe to repeat.
 *
 * If its answer is lost, the message may or may not be in the log. Sent again with the same key, it is in the log
 * once.
 */

import { now } from "./clock.js";
import { address, element, find } from "./dom.js";
import * as format from "./format.js";
import { backoff } from "./transport.js";

const ATTEMPTS = 4;

/** The error for a missing answer. The message may be in the log. */
const UNHEARD = {
  code: "no_answer",
  message: "The server could not be reached. Try again in a while.",
  docs: undefined,
};

/** A refusal: the server's code and its advice. */
class Refused extends Error {
  /**
   * @param {{code?: string, message?: string, docs?: string}} error
   * @param {number} status
   */
  constructor({ code, message, docs }, status) {
    super(message ?? `HTTP ${status}`);
    this.code = code ?? `http_${status}`;
    this.docs = docs;
  }
}

/**
 * Publish one message.
 * @param {string} channel
 * @param {string} text the data as it was typed
 * @param {string} [event]
 * @returns {Promise<{id: string, durability: string}>}
 */
export async function publish(channel, text, event = "") {
  /** @type {Record<string, string>} */
  const headers = { "Content-Type": contentType(text), "Idempotency-Key": key() };
  // A header's value is bytes, which the server reads as UTF-8; `fetch` takes them as characters of Latin-1.
  if (event) headers["Oncecast-Event"] = String.fromCharCode(...new TextEncoder().encode(event));
  for (let attempt = 0; ; attempt += 1) {
    try {
      const response = await fetch(address(`v1/channels/${encodeURIComponent(channel)}`), {
        method: "POST",
        headers,
        body: text,
      });
      const body = await response.json().catch(() => ({}));
      if (!response.ok) throw new Refused(body.error ?? {}, response.status);
      return body;
    } catch (error) {
      const unheard = error instanceof TypeError && navigator.onLine; // no answer came at all
      if (!unheard || attempt + 1 === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, backoff(attempt)));
    }
  }
}

/** The type that the text is published with. @param {string} text */
export function contentType(text) {
  try {
    JSON.parse(text);
    return "application/json";
  } catch {
    return "text/plain; charset=utf-8";
  }
}

/**
 * Attach the form's handlers.
 * @param {HTMLFormElement} form
 * @param {HTMLElement} result a live region
 * @param {object} page
 * @param {string} page.heard the channel that the page's listeners hear
 * @param {(event: string) => void} page.onBefore
 * @param {(id: string, data: unknown, channel: string) => void} page.onPublished
 */
export function bringToLife(form, result, { heard, onBefore, onPublished }) {
  const { channel, data, event } = /** @type {any} */ (form.elements);
  const hint = find("[data-field=content-type]", form);
  const describe = () => {
    hint.textContent = `sent as ${contentType(data.value).split(";")[0]}`;
  };
  data.addEventListener("input", describe);
  describe();

  form.addEventListener("submit", async (submit) => {
    submit.preventDefault();
    const name = channel.value.trim();
    onBefore(event.value.trim());
    const started = now();
    try {
      const { id, durability } = await publish(name, data.value, event.value.trim());
      const took = format.duration(now() - started);
      const unheard = name === heard ? "" : ` This page listens to ${heard} only.`;
      const rest = ` · durability ${durability} · answered in ${took}.${unheard}`;
      show(result, "published", ["Published as ", element("strong", id), rest]);
      onPublished(id, parsed(data.value), name);
    } catch (error) {
      const { code, message, docs } = error instanceof Refused ? error : UNHEARD;
      show(result, "refused", ["Not published: ", element("strong", code), `. ${message} `, ...link(docs)]);
    }
  });
}

/** @param {string} text */
function parsed(text) {
  return contentType(text) === "application/json" ? JSON.parse(text) : text;
}

/**
 * @param {HTMLElement} result
 * @param {string} outcome
 * @param {(string | Node)[]} content
 */
function show(result, outcome, content) {
  result.dataset.outcome = outcome;
  result.replaceChildren(...content);
}

/**
 * A link to the explanation of an error, if the server names one.
 * @param {string | undefined} docs
 */
function link(docs) {
  if (!docs || new URL(docs, location.href).origin !== location.origin) return [];
  const anchor = /** @type {HTMLAnchorElement} */ (element("a", "About this error"));
  anchor.href = docs;
  return [anchor];
}

/**
 * 128 random bits. A page over plain HTTP from another machine has no `crypto.randomUUID`.
 */
function key() {
  const bits = crypto.getRandomValues(new Uint8Array(16));
  return [...bits].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
