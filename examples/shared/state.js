/** What the pages of all examples show: how the connection is, and by which transport messages come. */

const TEXTS = {
  idle: "Not connected",
  connecting: "Connecting…",
  live: "Live",
  waiting: "Connection lost: trying again…",
  closed: "Closed",
};
const TRANSPORTS = { websocket: "WebSocket", sse: "SSE", "long-poll": "long polling", "short-poll": "polling" };

/**
 * Keep `element` in step with a client: its text for people, and its `data-state` for the style and for tests.
 *
 * @param {import("./oncecast.js").Client} cast what `connect` has returned
 * @param {HTMLElement} element has the class `state` and the role `status`
 */
export function showState(cast, element) {
  const show = () => {
    const transport = cast.state === "live" ? TRANSPORTS[cast.transport] : undefined;
    element.dataset.state = cast.state;
    element.textContent = transport ? `${TEXTS.live} by ${transport}` : TEXTS[cast.state];
  };
  cast.on("state", show);
  cast.on("transport", show);
  show();
}
