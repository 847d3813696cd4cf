/**
 * One WebSocket for both directions, in the protocol `oncecast.v1`: JSON frames with a `type`. The client of oncecast.js
 * publishes by requests, which can be repeated until they are acknowledged. A game has no use for that: a direction of a
 * second ago is worth nothing. So this speaks the protocol itself, forgets what it could not send, and reconnects.
 */

const PAUSE_MS = 250; // before the first try to come back; doubled up to the longest
const LONGEST_MS = 4_000;
const ANSWER_MS = 2_000; // what is published is acknowledged within that, or the connection is cut
const SILENCE_MS = 40_000; // without an answer to wait for there is a heartbeat every 15 seconds

/**
 * `token()` returns that of the player, "" for one who watches. `hear` gets each frame, and its length.
 * @param {{ token(): string, hear(frame: any, size: number): void, show(text: string, live: boolean): void }} page
 */
export function openSocket({ token, hear, show }) {
  let socket = null;
  let attempt = 0;
  let timer = 0;
  let heard = 0;
  let waits = 0; // since when for an answer; 0 for none
  for (const change of ["online", "offline"]) addEventListener(change, open);
  setInterval(watch, 500);
  open();
  return { open, login, publish };

  /** Connect, or connect anew. */
  function open() {
    clearTimeout(timer);
    socket?.close();
    const url = new URL("./rt/v1/connect", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const mine = (socket = new WebSocket(url, "oncecast.v1"));
    heard = waits = performance.now();
    show("Connecting…", false);
    mine.onopen = () => {
      login();
      send({ type: "subscribe", channel: "arena", last: 1 });
    };
    mine.onmessage = ({ data }) => {
      if (mine !== socket) return;
      heard = performance.now();
      const frame = JSON.parse(data);
      if (frame.type !== "message") waits = 0;
      if (frame.type === "subscribed") {
        attempt = 0;
        show("Live by WebSocket", true);
      }
      hear(frame, data.length);
    };
    mine.onclose = () => {
      if (mine !== socket) return;
      waits = 0;
      heard = Infinity;
      show("Connection lost: trying again…", false);
      timer = setTimeout(open, Math.random() * Math.min(LONGEST_MS, PAUSE_MS * 2 ** attempt++));
    };
  }

  /** Say who plays. A page can't do so in a header of the handshake; the socket may become a player's at any time. */
  function login() {
    if (token()) send({ type: "auth", token: token() });
  }

  function publish(channel, data, ref) {
    send({ type: "publish", channel, data, ref });
  }

  function send(frame) {
    if (socket.readyState !== WebSocket.OPEN) return;
    waits ||= performance.now();
    socket.send(JSON.stringify(frame));
  }

  /** A connection that was cut says nothing at all: one that does not answer is replaced. */
  function watch() {
    const now = performance.now();
    if ((waits && now - waits > ANSWER_MS) || now - heard > SILENCE_MS) open();
  }
}
