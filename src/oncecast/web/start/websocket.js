/**
 * WebSocket, with the subprotocol `oncecast.v1`: JSON frames, each with a type.
 */

import { now } from "./clock.js";
import { size } from "./costs.js";
import { address } from "./dom.js";
import { Transport } from "./transport.js";

/** Heartbeats come more often than this. Silence for longer means a connection that died unnoticed. */
const SILENCE_MS = 75_000;

/** Reads the log for ever, in frames. Could publish on the same connection, too. */
export class WebSockets extends Transport {
  /** @type {WebSocket | null} */
  #socket = null;

  #watchdog = 0;

  open() {
    // The first time, the URL names the channels. To resume, each channel is subscribed to from its own
    // cursor: during a catch-up one channel can be ahead of another, and a single cursor would skip what the
    // other lacks.
    const places = /** @type {Record<string, string> | null} */ (this.cursor);
    const url = places ? address("v1/connect") : this.url();
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url, "oncecast.v1");
    this.#socket = socket;
    this.asked(now());
    this.listener.onSeen?.({ kind: "asked", url, accept: "" });
    socket.onopen = () => {
      this.listener.onSeen?.({ kind: "opened", extensions: socket.extensions });
      for (const channel of places ? this.channels : []) {
        const frame = JSON.stringify({ type: "subscribe", channel, after: places?.[channel] });
        socket.send(frame);
        this.listener.onSeen?.({ kind: "frame", sent: true, data: frame });
      }
      this.opened(now());
      this.#watch();
    };
    socket.onmessage = ({ data }) => {
      this.#watch();
      this.counters.bytes += size(data);
      this.listener.onSeen?.({ kind: "frame", sent: false, data });
      this.#frame(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => this.lost(`closed, ${code}${reason && `: ${reason}`}`);
  }

  close() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** @param {any} frame of the subprotocol oncecast.v1 */
  #frame(frame) {
    switch (frame.type) {
      case "message":
        this.#move(frame.channel, frame.id);
        return this.received([frame]);
      case "gap":
        this.#move(frame.channel, frame.cursor);
        return this.listener.onGap(frame);
      case "subscribed":
        return this.#move(frame.channel, frame.cursor);
      case "cursor":
        for (const channel of this.channels) this.#move(channel, frame.cursor);
        return;
      case "drain":
        return this.lost("the server is about to stop", frame.retry_after_ms);
      case "error":
        return this.lost(`${frame.code}: ${frame.message}`);
    }
  }

  /**
   * @param {string} channel
   * @param {string} cursor
   */
  #move(channel, cursor) {
    this.cursor = { .../** @type {object} */ (this.cursor), [channel]: cursor };
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.lost("silent for too long"), SILENCE_MS);
  }
}
