/**
 * Server-Sent Events by the browser's `EventSource`, which reconnects and resumes automatically.
 */

import { now } from "./clock.js";
import { eventText, size } from "./costs.js";
import { Transport } from "./transport.js";

/** Reads the log continuously, as events of one response that does not end. */
export class ServerSentEvents extends Transport {
  /** @type {EventSource | null} */
  #source = null;

  #names = new Set(["message", "gap", "open", "error"]);

  /**
   * Listen for a named event too. An `EventSource` dispatches a message with an `event` only to listeners of that
   * name, and can't listen for all names.
   * @param {string | null} name
   */
  listenFor(name) {
    if (!name || this.#names.has(name)) return;
    this.#names.add(name);
    this.#source?.addEventListener(name, this.#take);
  }

  open() {
    // A new EventSource takes no Last-Event-ID, so the cursor is in the URL. At an automatic reconnect the browser
    // sends its last Last-Event-ID, which takes precedence in the server.
    const url = this.url({ envelope: 1 }); // of one channel, an event's data would be the message's alone
    const source = new EventSource(url);
    this.#source = source;
    this.asked(now());
    this.listener.onSeen?.({ kind: "asked", url, accept: "text/event-stream" });
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
      this.counters.requests += 1; // the browser connects again after the pause of `retry:`
      this.enter("waiting", "the stream ended");
    });
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  /**
   * Take one event. A message may have the event name "open", "error" or "gap" too, so the kind follows from the
   * content: only messages and gaps are `MessageEvent`s, and only a gap has a reason.
   * @param {Event} event
   */
  #take = (event) => {
    if (!(event instanceof MessageEvent)) return;
    const shown = { type: event.type, id: event.lastEventId, data: event.data };
    this.counters.bytes += size(eventText(shown)); // without comments, heartbeats and `retry:`, which are not seen
    this.listener.onSeen?.({ kind: "event", ...shown });
    this.cursor = event.lastEventId || this.cursor;
    const content = JSON.parse(event.data);
    if (event.type === "gap" && "reason" in content) this.listener.onGap(content);
    else this.received([content]);
  };
}
