/** A program that uses the client, closes it, and has nothing else to do: it must end at once. */

import { WebSocket } from "../peers/node_modules/ws/wrapper.mjs";

const [client, url, transport, works] = process.argv.slice(2);
const { connect } = await import(client);
const cast = connect(url, { WebSocket, transports: [transport], timing: { open: 30_000 } });
const settled = [];
const note = (name) => () => settled.push(name);
const calls = [
  cast.publish("news", 1).then(note("published"), note("publish")),
  cast.history("news").then(note("history"), note("history")),
];
const news = cast.subscribe(["news", "sport"], { last: 1 });
const messages = news[Symbol.asyncIterator]();
messages.next().then(note("next"));
process.on("warning", (warning) => console.log(`${warning}`));
// A server that works answers both; of another one nothing is awaited that would come.
await (works ? Promise.all(calls) : new Promise((resolve) => setTimeout(resolve, 300)));
cast.close();
const closed = performance.now();
process.on("exit", () => console.log(JSON.stringify({ settled: settled.sort(), after: performance.now() - closed })));
