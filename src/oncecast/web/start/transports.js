/** The four ways to listen. */

export { ServerSentEvents } from "./event-source.js";
export { LongPoll, ShortPoll } from "./polling.js";
export { backoff } from "./transport.js";
export { WebSockets } from "./websocket.js";
