/** A client in a worker thread: tells its parent what it hears, and publishes what it is asked to. */

import { parentPort, workerData } from "node:worker_threads";

import { WebSocket } from "../peers/node_modules/ws/wrapper.mjs";

const { client, url, channel, options } = workerData;
const { connect } = await import(client);
const cast = connect(url, { WebSocket, ...options });
const news = cast.subscribe(channel);
news.on("subscribed", () => parentPort.postMessage("ready"));
news.on("message", ({ data }) => parentPort.postMessage(data));
news.on("gap", ({ reason }) => parentPort.postMessage(reason));
parentPort.on("message", async (data) => {
  if (data !== "close") return cast.publish(channel, data);
  cast.close();
  parentPort.close();
});
