/**
 * A WebSocket that speaks `oncecast.v1`. What a server sends may be anything: where it makes this code throw, the link
 * is lost.
 */

import { failureOf } from "./errors.js";
import { passes, pauseOf, refuses } from "./net.js";
import { createTimer, now } from "./time.js";
import { itemOf, startFields } from "./wire.js";

/** @import { Failure, Host, Link, Place } from "./internal.js" */

const PROTOCOL = "oncecast.v1";
const NOBODY = "oncecast:alive"; // nobody subscribes to it, and the answer to its unsubscribe shows life
const AUTH = 0; // the `ref` of a token; those of channels count from 1
const FRAMES = 90; // in a second; the server allows 200 a second, and two of these windows may meet in one second
const CLOSE_MS = 1_000; // for the closing handshake, where the class can cut the connection (`ws`, which waits 30 s)

/** @typedef {{ ref: number, place: Place, attached: boolean }} Subscribed */

/** @param {Host} host @returns {Link} */
export function openSocket(host) {
  const { net, places } = host;
  /** What the server was asked for, by channel. @type {Map<string, Subscribed>} */
  const asked = new Map();
  let lastRef = 0;
  let ready = false; // for `subscribe`: it is open, and the token has been sent
  let sent = 0; // frames, since `sentAt`
  let sentAt = 0;
  const paceTimer = createTimer();
  /** @type {any} */
  let socket = null;
  const link = { beats: true, lingers: true, adjust, check, close };
  const lose = (/** @type {Failure} */ failure) => host.lost(link, failure);

  const url = net.url("connect");
  url.protocol = url.protocol.replace("http", "ws");
  try {
    socket = new net.WebSocket(url, PROTOCOL);
  } catch (error) {
    queueMicrotask(() => lose(failureOf(error))); // a policy of the page forbids it
    return link;
  }
  socket.onopen = begin;
  socket.onmessage = (/** @type {{ data: string }} */ { data }) => {
    try {
      if (socket) read(JSON.parse(data));
    } catch (error) {
      lose(failureOf(error));
    }
  };
  socket.onerror = () => {};
  socket.onclose = (/** @type {CloseEvent} */ { code, reason }) => {
    const status = code - 4000;
    // The server's own codes are 4000 + status. What breaks the frames, 1002 or 1007, may stand in between.
    lose({ reason: `closed with ${code}${reason && `, ${reason}`}`, fatal: refuses(status), status, code: `${code}` });
  };
  return link;

  async function begin() {
    try {
      // No header can be set here. A server without access rules answers with an error, which is ignored.
      const token = await net.token();
      if (token) send({ type: "auth", token, ref: AUTH });
      ready = true;
      adjust();
    } catch (error) {
      lose(failureOf(error));
    }
  }

  /** Send what makes the server's subscriptions those of `places`, as far as the pace allows now. */
  function adjust() {
    if (!ready || socket?.readyState !== 1) return;
    for (const [channel, { place }] of asked) {
      if (places.get(channel) === place) continue;
      if (!maySend()) return;
      asked.delete(channel);
      send({ type: "unsubscribe", channel });
    }
    for (const [channel, place] of places) {
      if (asked.has(channel)) continue;
      if (!maySend()) return;
      const ref = ++lastRef;
      asked.set(channel, { ref, place, attached: false });
      send({ type: "subscribe", channel, ...startFields(place.at), ref });
    }
  }

  /** Whether another frame may be sent now; if not, `adjust` is called again when it may. */
  function maySend() {
    const time = now();
    if (time - sentAt >= 1_000) [sent, sentAt] = [0, time];
    if (sent < FRAMES) return Boolean(++sent);
    paceTimer(adjust, sentAt + 1_000 - time);
    return false;
  }

  function check() {
    if (socket?.readyState === 1) send({ type: "unsubscribe", channel: NOBODY });
  }

  function close() {
    const open = socket;
    socket = null;
    paceTimer();
    if (!open) return;
    open.close(1000);
    if (!open.terminate) return;
    /** @type {any} */ (setTimeout(() => open.terminate(), CLOSE_MS)).unref?.();
  }

  /** @param {object} frame */
  function send(frame) {
    socket?.send(JSON.stringify(frame));
  }

  /** The subscription of a channel, unless it has been given up since. @param {string} channel */
  function current(channel) {
    const subscribed = asked.get(channel);
    return subscribed?.place === places.get(channel) ? subscribed : undefined;
  }

  /** @param {any} frame */
  function read(frame) {
    const { type, channel, cursor, ref, code } = frame;
    host.alive(link, type === "cursor");
    const subscribed = current(channel);
    if (type === "subscribed" && subscribed && subscribed.ref === ref) {
      subscribed.attached = true;
      host.opened(link);
      host.raise(link, [channel], cursor);
    } else if (type === "message" || type === "gap") {
      if (subscribed?.attached) host.item(link, channel, cursor ?? frame.id, itemOf(frame));
    } else if (type === "cursor") {
      host.raise(link, [...asked.keys()].filter((name) => current(name)?.attached), cursor);
    } else if (type === "drain") {
      lose({ reason: "the server is about to stop", retry: pauseOf(frame.retry_after_ms), calm: true });
    } else if (type === "expiring") {
      net.renew().then((token) => token && send({ type: "auth", token, ref: AUTH }), () => {}); // the end will ask again
    } else if (type === "error" && ref === AUTH) {
      // A server without keys refuses any token, and asks for none.
      if (code !== "request_invalid") lose({ reason: `${code}: ${frame.message}`, fatal: true, status: 401, code: "4401" });
    } else if (type === "error") {
      refused(ref, { reason: `${code}: ${frame.message}`, code, fatal: true });
    }
  }

  /** @param {unknown} ref @param {Failure} failure */
  function refused(ref, failure) {
    for (const [channel, subscribed] of asked) {
      if (subscribed.ref !== ref) continue;
      if (passes(/** @type {string} */ (failure.code))) return lose({ ...failure, fatal: false, calm: true });
      const wanted = current(channel);
      asked.delete(channel);
      if (wanted) host.refused(link, channel, failure);
      else adjust();
    }
  }
}
