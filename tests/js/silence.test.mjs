/** A connection that falls silent, or seems to: by a slow application, a slow heartbeat, a step of the clock, a dead line. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { channel, next, open, proxy, publish, SERVER, take, until } from "./support.mjs";

const STREAMS = ["websocket", "sse"];
const passes = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const busy = (milliseconds) => {
  for (const end = performance.now() + milliseconds; performance.now() < end; );
};

for (const transport of STREAMS) {
  describe(transport, { timeout: 30_000 }, () => {
    const transports = [transport];

    test("a slow listener costs a healthy connection nothing", async (t) => {
      const between = await proxy(t);
      const cast = open(t, between.url, { transports });
      const states = [];
      cast.on("state", ({ to }) => (states.push(to), busy(200)));
      const news = cast.subscribe(channel());
      news.on("message", () => busy(150));
      await next(news, "subscribed");
      for (let round = 0; round < 8; round += 1) {
        await publish(news.channel, round);
        await passes(300);
      }
      assert.deepEqual(states, ["connecting", "live"]);
      assert.equal(between.requests[transport], 1);
    });

    // A browser answers a server's Pings though its page is busy; `ws` does not, and the server cuts it off.
    if (transport === "sse") test("an application that was busy for long cuts nothing", async (t) => {
      const cast = open(t, SERVER, { transports });
      const news = cast.subscribe(channel());
      await next(news, "subscribed");
      await passes(500);
      const states = [];
      cast.on("state", (change) => states.push(change));
      await publish(news.channel, 1);
      busy(4_000);
      assert.equal((await take(news, 1))[0].data, 1);
      await passes(1_500);
      assert.deepEqual(states, []);
    });

    test("a server whose heartbeat is slower than assumed is asked, and the page notices nothing", async (t) => {
      const cast = open(t, SERVER, { transports, timing: { heartbeat: 60 } });
      const news = cast.subscribe(channel());
      await next(news, "subscribed");
      const states = [];
      cast.on("state", ({ to }) => states.push(to));
      await passes(1_500);
      await publish(news.channel, 1);
      assert.equal((await take(news, 1))[0].data, 1);
      assert.deepEqual(states, []);
    });

    test("a step of the wall clock changes nothing, and a dead line is noticed all the same", async (t) => {
      const between = await proxy(t);
      const cast = open(t, between.url, { transports });
      const news = cast.subscribe(channel());
      await next(news, "subscribed");
      await passes(500);
      const states = [];
      cast.on("state", ({ to }) => states.push(to));
      const { now } = Date;
      for (const hours of [1, -2]) {
        t.mock.method(Date, "now", () => now() + hours * 3_600_000);
        await passes(700);
      }
      assert.deepEqual(states, []);
      between.frozen = true;
      await until(cast, "state", () => states.includes("waiting"));
    });

    // A WebSocket that falls silent does not answer the server's Pings either, and is cut by the server.
    if (transport === "sse") test("a stream that falls silent again and again gives way to the next one", async (t) => {
      const between = await proxy(t, { sse: { stallBytes: 60 } });
      const cast = open(t, between.url, { transports: [transport, "short-poll"] });
      const news = cast.subscribe(channel(), { after: "earliest" });
      await until(cast, "transport", () => cast.transport === "short-poll");
      await publish(news.channel, 1);
      assert.equal((await take(news, 1))[0].data, 1);
    });
  });
}
