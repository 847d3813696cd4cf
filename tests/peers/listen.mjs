/**
 * Listen with `ws`: node listen.mjs URL COUNT
 *
 * Subscribes to the URL in `oncecast.v1`, comes back at once whenever it is cut off, after the last id that it has,
 * and prints {data, connections} once COUNT messages were heard.
 */

import WebSocket from "ws";

const [, , address, count] = process.argv;
const url = new URL(address);
const data = [];
let connections = 0;

function connect() {
  connections += 1;
  const socket = new WebSocket(url, "oncecast.v1");
  socket.on("error", () => {}); // a close follows
  socket.on("close", () => {
    if (data.length < Number(count)) return setImmediate(connect);
    console.log(JSON.stringify({ data, connections }));
  });
  socket.on("message", (text) => {
    const frame = JSON.parse(text);
    url.searchParams.set("after", frame.type === "message" ? frame.id : frame.cursor);
    if (frame.type === "message" && data.push(frame.data) === Number(count)) socket.close();
  });
}

connect();
