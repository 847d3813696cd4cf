/** The log of one channel: its newest messages, those that come, a search in them, and publishes into it. */

import { element, find, write } from "./dom.js";
import { contentType } from "./publish.js";

const KEPT = 1_000; // messages on the page; the oldest leave it
const WAIT_SECONDS = 25;
const PAUSE_MS = 2_000; // after a failure

export class ChannelLog {
  #ask;
  #channel = "";
  #reading = new AbortController();
  #list = find("#messages");
  #state = find("#log-state");
  #form = find("#open-form");
  #more = find("#more");
  #cursor = ""; // after the last message that is shown

  /** The channel that is shown, "" while none is: the server has taken its name. */
  shown = "";

  /** @param {(path: string, how?: RequestInit) => Promise<Response>} ask */
  constructor(ask) {
    this.#ask = ask;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.open(this.#form.channel.value);
    });
    this.#form.follow.addEventListener("change", () => {
      if (this.#channel) this.open(this.#channel);
    });
    this.#more.addEventListener("click", () => this.#read(`after=${encodeURIComponent(this.#cursor)}`));
    find("#search").addEventListener("input", () => this.#filter());
    find("#publish-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#publish(event.target);
    });
  }

  /** Read a channel: its newest messages, or those since a time. @param {string} channel */
  open(channel) {
    this.#channel = this.#form.channel.value = channel.trim();
    this.shown = "";
    this.#list.replaceChildren();
    const since = new Date(this.#form.since.value).getTime() / 1_000;
    return this.#read(since >= 0 ? `since=${since}` : `last=${this.#form.last.value}`);
  }

  /** Show what comes from a start on, and follow it where that is ticked. @param {string} start */
  async #read(start) {
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    this.#more.hidden = true;
    write(this.#state, `Reading ${this.#channel}.`);
    const path = `v1/channels/${encodeURIComponent(this.#channel)}`;
    let query = `${start}&limit=${KEPT}`;
    while (!signal.aborted) {
      try {
        const answer = await this.#ask(`${path}?${query}`, { signal, headers: { Accept: "application/json" } });
        if (answer.status === 304) continue;
        const body = await answer.json();
        if (signal.aborted) return;
        if (!answer.ok) {
          write(this.#state, body.error?.message ?? `The server answers ${answer.status}.`);
          if (answer.status < 500 && answer.status !== 429) return;
          await pause();
          continue;
        }
        this.shown = this.#channel;
        this.#add(body);
        this.#cursor = body.cursor;
        const follows = this.#form.follow.checked;
        write(this.#state, `${this.#channel}, ${follows ? "followed live" : "as it was read"}.`);
        this.#more.hidden = follows || !body.messages.length; // how many came does not say whether there are more
        if (!follows) return;
        query = `after=${encodeURIComponent(body.cursor)}&wait=${WAIT_SECONDS}&limit=${KEPT}`;
      } catch {
        if (signal.aborted) return;
        write(this.#state, "The server does not answer; asking again.");
        await pause();
      }
    }
  }

  #add({ messages, gap = null, gaps = gap ? [gap] : [] }) {
    for (const each of gaps) {
      const line = element("li", `Messages from ${each.missed_from} on are gone: ${each.reason}.`, "gap");
      this.#list.prepend(line);
    }
    for (const message of messages) {
      const line = document.createElement("li");
      const time = element("time", new Date(message.time * 1000).toLocaleTimeString("en-GB"));
      time.title = message.id;
      line.append(time, element("span", message.event ?? "–", "event"), element("span", textOf(message), "body"));
      this.#list.prepend(line);
    }
    while (this.#list.children.length > KEPT) this.#list.lastElementChild.remove();
    if (!this.#list.children.length) write(this.#state, `${this.#channel} has no message.`);
    this.#filter();
  }

  #filter() {
    const wanted = find("#search").value.toLowerCase();
    for (const line of this.#list.children) line.hidden = !line.textContent.toLowerCase().includes(wanted);
  }

  /** @param {HTMLFormElement} form */
  async #publish(form) {
    const result = find("#publish-result");
    if (!this.#channel) {
      write(result, "Choose a channel first.");
      return;
    }
    const { data, event } = form;
    /** @type {Record<string, string>} */
    const headers = { "Content-Type": contentType(data.value), "Idempotency-Key": newKey() };
    if (event.value) headers["Oncecast-Event"] = String.fromCharCode(...new TextEncoder().encode(event.value));
    try {
      const path = `v1/channels/${encodeURIComponent(this.#channel)}`;
      const answer = await this.#ask(path, { method: "POST", headers, body: data.value });
      const body = await answer.json();
      write(result, answer.ok ? `Published as ${body.id}.` : (body.error?.message ?? `HTTP ${answer.status}`));
      if (answer.ok) data.value = "";
    } catch {
      write(result, "The server does not answer. The message may be in the log or not.");
    }
  }
}

/** A message's data as text. */
function textOf({ data, data64 }) {
  if (data64 !== undefined) return `base64 ${data64.base64}`;
  return typeof data === "string" ? data : JSON.stringify(data);
}

function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function pause() {
  return new Promise((done) => setTimeout(done, PAUSE_MS));
}
