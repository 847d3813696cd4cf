/**
 * What a network may do to each transport, and what the client makes of it: the first message in bounded time, all of
 * them once and in order, and the better transport back soon after the obstacle has gone. A tenth of the real times.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { compare } from "../../src/oncecast/web/client/wire.js";
import { channel, next, open, proxy, publish, take, until } from "./support.mjs";

const TIMING = { open: 500, early: 1_500, probe: 800, backoff: 50, poll: 50, wait: 2_000, heartbeat: 400 };
const FIRST_MS = 5_000; // of five seconds on the internet, with a busy machine's share
const SOON_MS = 12_000; // of a minute

const KINDS = ["websocket", "sse", "long-poll", "short-poll"];
const only = (...kinds) =>
  Object.fromEntries(KINDS.filter((kind) => !kinds.includes(kind)).map((kind) => [kind, { status: 403 }]));

const MATRIX = [
  ["nothing in the way", {}, "websocket"],
  ["WebSocket refused with 403", { websocket: { status: 403 } }, "sse"],
  ["WebSocket refused with 400", { websocket: { status: 400 } }, "sse"],
  ["WebSocket never answered", { websocket: { silent: true } }, "sse"],
  ["WebSocket's frames swallowed", { websocket: { stallBytes: 170 } }, "sse"],
  ["WebSocket cut after a moment", { websocket: { cutMs: 200 } }, "sse"],
  ["events held back to the end", { websocket: { status: 403 }, sse: { hold: true } }, "long-poll"],
  ["events cut after a moment", { websocket: { status: 403 }, sse: { cutMs: 400 } }, "long-poll"],
  ["events answered with a page", { websocket: { silent: true }, sse: { status: 502 } }, "long-poll"],
  ["only polls", only("long-poll", "short-poll"), "long-poll"],
  ["only short requests", only("short-poll"), "short-poll"],
  ["waiting never answered", { ...only("short-poll"), "long-poll": { silent: true } }, "short-poll"],
];

describe("obstacles", { concurrency: true, timeout: 45_000 }, () => {
  for (const [obstacle, rules, transport] of MATRIX) {
    test(`${obstacle}: ${transport}`, async (t) => {
      const between = await proxy(t, rules);
      const name = channel();
      await publish(name, 0);
      const cast = open(t, between.url, { timing: TIMING });
      const changes = [];
      cast.on("transport", (change) => changes.push(change));
      const began = Date.now();
      const news = cast.subscribe(name, { after: "earliest" });
      const got = [];
      news.on("message", (message) => got.push(message.data));
      news.on("gap", (gap) => got.push(gap));
      await until(news, "message", () => got.length);
      const first = Date.now() - began;
      let sent = 1;
      let sending = Promise.resolve(); // one after the other: requests side by side overtake each other
      const publishing = setInterval(() => {
        const number = sent++;
        sending = sending.then(() => publish(name, number));
      }, 30);
      t.after(() => clearInterval(publishing));
      await until(cast, "transport", () => cast.transport === transport);
      assert.ok(first < FIRST_MS, `the first message took ${first} ms`);

      between.rules = {};
      const unblocked = Date.now();
      await until(cast, "transport", () => cast.transport === "websocket");
      const back = Date.now() - unblocked;
      assert.ok(back < SOON_MS, `WebSocket was back after ${back} ms`);

      clearInterval(publishing);
      await sending;
      const [last] = await publish(name, "end");
      await until(news, "message", () => got.at(-1) === "end");
      assert.deepEqual(got.slice(0, -1), Array.from({ length: sent }, (_, number) => number));
      assert.ok(compare(news.cursor, last) >= 0); // a heartbeat may have raised it since
      assert.ok(changes.every(({ from, reason }, index) => reason && from === (changes[index - 1]?.to ?? null)));
    });
  }

  test("a WebSocket that is refused later, in the middle of things", async (t) => {
    const between = await proxy(t);
    const name = channel();
    const cast = open(t, between.url, { timing: TIMING });
    const news = cast.subscribe(name);
    await until(cast, "transport", () => cast.transport === "websocket");
    between.rules = { websocket: { silent: true } };
    between.cut();
    await until(cast, "transport", () => cast.transport === "sse");
    await publish(name, 1);
    assert.deepEqual((await take(news, 1))[0].data, 1);
  });

  test("a server that is away for a while is no reason to stay on a worse transport", async (t) => {
    const between = await proxy(t);
    const cast = open(t, between.url, { timing: TIMING });
    const news = cast.subscribe(channel());
    await until(cast, "transport", () => cast.transport === "websocket");
    between.rules = { websocket: { status: 502 }, sse: { status: 502 }, "short-poll": { status: 502 } };
    between.cut();
    let losses = 0;
    await until(cast, "state", () => cast.state === "waiting" && ++losses > 5);
    between.rules = {};
    await until(cast, "state", () => cast.state === "live");
    if (cast.transport !== "websocket") await until(cast, "transport", () => cast.transport === "websocket");
    await publish(news.channel, 1);
    assert.deepEqual((await take(news, 1))[0].data, 1);
  });

  test("Retry-After is obeyed, and is no reason to change the transport", async (t) => {
    const between = await proxy(t, { websocket: { status: 403 }, sse: { status: 503, retryAfter: 1 } });
    const cast = open(t, between.url, { timing: TIMING });
    const news = cast.subscribe(channel());
    await until(cast, "state", () => between.requests.sse && cast.state === "waiting");
    const refused = Date.now();
    between.rules = { websocket: { status: 403 } };
    await next(news, "subscribed");
    assert.ok(Date.now() - refused > 950);
    assert.deepEqual(Object.keys(between.requests), ["websocket", "sse"]);
  });

  for (const transport of ["long-poll", "short-poll"]) {
    test(`${transport}: a server that stops is obeyed, and its answer counts`, async (t) => {
      const asked = [];
      const rule = () => (asked.push(Date.now()), asked.length === 1 ? { retryAfter: 1 } : {});
      const between = await proxy(t, { "long-poll": rule, "short-poll": rule });
      const name = channel();
      await publish(name, 1);
      const cast = open(t, between.url, { transports: [transport], timing: TIMING });
      const news = cast.subscribe(name, { after: "earliest" });
      assert.deepEqual((await take(news, 1))[0].data, 1);
      await publish(name, 2);
      assert.deepEqual((await take(news, 1))[0].data, 2);
      assert.ok(asked[1] - asked[0] > 950);
    });
  }

  test("a page whose policy forbids WebSocket has the next transport", async (t) => {
    class Forbidden {
      constructor() {
        throw new Error("forbidden");
      }
    }
    const between = await proxy(t);
    const cast = open(t, between.url, { WebSocket: Forbidden, timing: TIMING });
    cast.subscribe(channel());
    const { to, reason } = await next(cast, "transport");
    assert.deepEqual([to, reason], ["sse", "websocket does not work: Error: forbidden"]);
  });

  test("a wait that the network cuts is made shorter", async (t) => {
    const between = await proxy(t, { "long-poll": { cutMs: 0 } });
    const lines = [];
    t.mock.method(console, "debug", (line) => lines.push(line));
    const cast = open(t, between.url, { transports: ["long-poll"], debug: true, timing: { ...TIMING, wait: 100_000 } });
    const news = cast.subscribe(channel());
    await until(cast, "state", () => cast.state === "live");
    setTimeout(() => between.cut(), 300);
    await until(cast, "state", () => cast.state === "connecting");
    await until(cast, "state", () => cast.state === "live");
    assert.ok(lines.some((line) => line.includes("the next one waits")));
    await publish(news.channel, 1);
    assert.deepEqual((await take(news, 1))[0].data, 1);
  });
});
