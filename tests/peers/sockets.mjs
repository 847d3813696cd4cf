/**
 * What a raw socket makes of `ws`: node sockets.mjs URL
 *
 * Prints what came of each attempt. Data comes back to its publisher, so each socket hears itself.
 */

import { once } from "node:events";
import WebSocket from "ws";

const [, , url] = process.argv;
const MIB = 1 << 20;

async function open(...options) {
  const socket = new WebSocket(url, ...options);
  await once(socket, "open");
  return socket;
}

async function hear(socket) {
  const [data, binary] = await once(socket, "message");
  return binary ? [...data] : data.toString();
}

async function closing(socket) {
  const [code, reason] = await once(socket, "close");
  return [code, reason.toString()];
}

const socket = await open();
const seen = { extensions: socket.extensions, protocol: socket.protocol };

socket.send("text ü");
seen.text = await hear(socket);
socket.send(Buffer.from([0, 255]));
seen.binary = await hear(socket);

socket.send("frag", { fin: false });
socket.ping("between");
seen.pong = (await once(socket, "pong"))[0].toString();
socket.send("ments", { fin: true });
seen.fragments = await hear(socket);

socket.send("z".repeat(MIB));
seen.largest = (await hear(socket)).length;
const over = closing(socket);
socket.send("z".repeat(MIB + 1));
seen.over = (await over)[0];

const polite = await open();
polite.close(4321, "bye");
seen.close = (await closing(polite))[0];

const refused = new WebSocket(url, "mqtt");
const [, answer] = await once(refused, "unexpected-response");
seen.refused = answer.statusCode;
answer.destroy();

console.log(JSON.stringify(seen));
