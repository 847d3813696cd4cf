/**
 * A server that answers with anything at all, and one whose log goes on under another epoch: the client takes the first
 * for a broken connection and comes back after a pause, and the second for what it is.
 */

import assert from "node:assert/strict";
import http from "node:http";
import { describe, test } from "node:test";

import { WebSocketServer } from "../peers/node_modules/ws/wrapper.mjs";
import { open, take, until } from "./support.mjs";

const TRANSPORTS = ["websocket", "sse", "long-poll", "short-poll"];
const deep = (depth = 20_000) => "[".repeat(depth) + "]".repeat(depth);
const BAD = {
  "no JSON": "{",
  "nested too deeply": `{"type":"message","messages":${deep()},"cursor":${deep()},"channel":"c","id":"e-1"}`,
  "nothing": "null",
  "a number": "5",
  "a list": "[[]]",
  "a text": '"text"',
  "numbers for everything": '{"type":"message","id":1,"channel":"c","data":3,"cursor":4,"messages":5,"gaps":6}',
  "no cursor": '{"type":"subscribed","channel":"c","ref":1,"cursor":"no cursor","messages":[],"data":1,"id":{}}',
  "a list for a cursor": '{"type":"subscribed","channel":"c","ref":1,"cursor":["e-1"],"messages":[],"data":1,"id":["e-1"]}',
  "no base64": '{"type":"message","channel":"c","id":"e-1","cursor":"e-1","data64":{"base64":"*"},"messages":[{"data64":{}}]}',
  "a drain for ever": '{"type":"drain","retry_after_ms":"x","cursor":1}',
};

const message = (id, data = id) => ({ id, channel: "c", data, event: null, time: 1 });

/** A server that answers each request with the next of some answers: a text as it is, a list of messages as it should. */
async function peer(t, answers) {
  const asked = [];
  const times = [];
  const next = (start) => {
    asked.push(start);
    times.push(Date.now());
    return answers.length > 1 ? answers.shift() : answers[0];
  };
  const server = http.createServer((request, response) => {
    const url = new URL(request.url, "http://h");
    const start = url.searchParams.get("after");
    const answer = next(start);
    const events = request.headers.accept?.includes("text/event-stream");
    response.setHeader("Content-Type", events ? "text/event-stream" : "application/json");
    if (typeof answer === "string") return events ? response.write(`data: ${answer}\n\n`) : response.end(answer);
    const cursor = answer.at(-1)?.id ?? start;
    if (!events) return response.end(JSON.stringify({ messages: answer, cursor, gap: null }));
    response.write(`id: ${start}\n\n`);
    for (const item of answer) response.write(`id: ${item.id}\ndata: ${JSON.stringify(item)}\n\n`);
    if (answers.length > 1) response.end();
  });
  const sockets = new WebSocketServer({ server, handleProtocols: () => "oncecast.v1" });
  sockets.on("connection", (socket) => {
    socket.on("message", (text) => {
      const { type, channel, after, ref } = JSON.parse(text);
      if (type !== "subscribe") return;
      const answer = next(after);
      const subscribed = JSON.stringify({ type: "subscribed", channel, cursor: after, ref });
      if (typeof answer === "string") {
        if (!answer.includes("subscribed")) socket.send(subscribed);
        socket.send(answer);
        return setTimeout(() => socket.close(1001), 100); // it may be a frame of a later version, to a client
      }
      socket.send(subscribed);
      for (const item of answer) socket.send(JSON.stringify({ type: "message", ...item }));
      if (answers.length > 1) socket.close(1001);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    sockets.close();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}/v1`, asked, times };
}

// What nobody handles fails the test that caused it: Node's test runner sees to that.
for (const transport of TRANSPORTS) {
  describe(transport, { concurrency: true, timeout: 20_000 }, () => {
    for (const [what, bad] of Object.entries(BAD)) {
      test(`${what} breaks the connection, and costs nothing`, async (t) => {
        const server = await peer(t, [bad, bad, bad, [message("e-1"), message("e-2")]]);
        const timing = { backoff: 30, wait: 100, open: 300 };
        const news = open(t, server.url, { transports: [transport], timing }).subscribe("c", { after: "e-0" });
        assert.deepEqual((await take(news, 2)).map(({ id }) => id), ["e-1", "e-2"]);
        assert.ok(server.asked.every((start) => start === "e-0"), server.asked);
      });
    }

    test("an epoch that ends without a gap", async (t) => {
      const ids = ["E1-50", "E2-51", "E2-52", "E3-53"];
      const log = ids.map((id) => message(id));
      const server = await peer(t, [log.slice(0, 1), log.slice(1, 3), log.slice(3), []]);
      const news = open(t, server.url, { transports: [transport] }).subscribe("c", { after: "E1-49" });
      const gaps = [];
      news.on("gap", (gap) => gaps.push(gap));
      assert.deepEqual((await take(news, 4)).map(({ id }) => id), ids);
      assert.deepEqual(gaps, []);
      assert.equal(news.cursor, "E3-53");
      await until(news, "message", () => true);
      assert.deepEqual(server.asked.slice(0, 3), ["E1-49", "E1-50", "E2-52"]);
    });
  });
}

test("a server that never says anything sensible is asked ever more rarely", { timeout: 20_000 }, async (t) => {
  const server = await peer(t, ["{"]);
  const cast = open(t, server.url, { transports: ["short-poll"], timing: { backoff: 8 } });
  t.mock.method(Math, "random", () => 1); // each pause as long as it may be
  cast.subscribe("c", { after: "e-0" });
  await until(cast, "state", () => server.times.length === 6);
  const pauses = server.times.slice(1).map((time, index) => time - server.times[index]);
  [8, 16, 32, 64, 128].forEach((least, index) => assert.ok(pauses[index] >= least - 2, `${pauses}`));
});

for (const [name, transport, answer] of [
  ["a long poll that is not held", "long-poll", []],
  ["a full page that is repeated, by a long poll", "long-poll", Array.from({ length: 100 }, (_, n) => message(`e-${n + 1}`))],
  ["a full page that is repeated, by a short poll", "short-poll", Array.from({ length: 100 }, (_, n) => message(`e-${n + 1}`))],
]) {
  test(`${name} is asked for with pauses`, { timeout: 20_000 }, async (t) => {
    const server = await peer(t, [answer]);
    const cast = open(t, server.url, { transports: [transport], timing: { poll: 100, open: 600 } });
    cast.subscribe("c", { after: "e-0" });
    await new Promise((resolve) => {
      const look = () => (server.times.length >= 6 ? resolve() : setImmediate(look));
      look();
    });
    const pauses = server.times.slice(3).map((time, index) => time - server.times[index + 2]);
    for (const pause of pauses) assert.ok(pause >= 75, `${pauses}`);
  });
}

test("a wait that no timer could hold is no wait for nothing", { timeout: 20_000 }, async (t) => {
  const server = http.createServer((_, response) => response.writeHead(503, { "Retry-After": "9".repeat(12) }).end());
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const lines = [];
  t.mock.method(console, "debug", (line) => lines.push(line));
  const url = `http://127.0.0.1:${server.address().port}/v1`;
  const cast = open(t, url, { transports: ["short-poll"], debug: true });
  cast.subscribe("c");
  await until(cast, "state", () => cast.state === "waiting");
  await new Promise((resolve) => setImmediate(resolve));
  const [, pause] = /in (\d+) ms/.exec(lines.find((line) => line.includes("is next")));
  assert.ok(pause >= 3_600_000 && pause <= 4_320_000, pause);
});
