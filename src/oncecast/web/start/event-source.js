/**
 * Server-Sent Events, with the browser's own `EventSource`, which reconnects by itself and says where it was.
 */

import { now } from "./clock.js";
import { Transport } from "./transport.js";

const utf8 = new TextEncoder();

/** Reads the log for ever, as events of one response that never ends. */
export class ServerSentEvents extends Transport {
  /** @type {EventSource | null} */
  #source = null;

  #names = new Set(["message", "gap", "open", "error"]);

  /**
   * Hear a named event, too. An `EventSource` gives a message with an `event` only to those who listen for
   * that name, and has no way to listen for all of them.
   * @param {string | null} name
   */
  listenFor(name) {
    if (!name || this.#names.has(name)) return;
    this.#names.add(name);
    this.#source?.addEventListener(name, this.#take);
  }

  open() {
    // A new EventSource can't be given a Last-Event-ID, so the cursor goes into the URL. Whenever the browser
    // reconnects by itself, it sends the Last-Event-ID that it has seen, and the server lets that win.
    const source = new EventSource(this.url());
    this.#source = source;
    this.asked(now());
    for (const name of this.#names) source.addEventListener(name, this.#take);
    source.addEventListener("open", (event) => {
      if (event instanceof MessageEvent) return;
      if (!this.isHeld) this.held(now());
      this.opened(now());
    });
    source.addEventListener("error", (event) => {
      if (event instanceof MessageEvent) return;
      if (source.readyState === EventSource.CLOSED) return this.lost("the stream was refused");
      this.ended();
      this.counters.requests += 1; // the browser will ask again, after the pause that `retry:` named
      this.enter("waiting", "the stream ended");
    });
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  /**
   * One event. A message may be called "open", "error" or "gap" as well, so what an event is, is read from
   * what it carries: only messages and gaps are `MessageEvent`s, and only a gap has a reason.
   * @param {Event} event
   */
  #take = (event) => {
    if (!(event instanceof MessageEvent)) return;
    this.counters.bytes += sseBytes(event);
    this.cursor = event.lastEventId || this.cursor;
    const content = JSON.parse(event.data);
    if (event.type === "gap" && "reason" in content) this.listener.onGap(content);
    else this.received([content]);
  };
}

/**
 * The bytes of an event as it stood on the wire. `EventSource` shows no bytes, but an event's fields
 * determine them; comments, heartbeats and `retry:` stay unseen.
 * @param {MessageEvent} event
 */
function sseBytes({ type, data, lastEventId }) {
  const lines = /** @type {string[]} */ (data.split("\n"));
  const name = type === "message" ? 0 : utf8.encode(type).length + "event: \n".length;
  const text = lines.reduce((sum, line) => sum + utf8.encode(line).length + "data: \n".length, 0);
  return "id: \n".length + lastEventId.length + name + text + "\n".length;
}
