/** The client against a server: each transport by itself, where to start, gaps, slow readers, refusals, publishing. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { MOVES } from "../../src/oncecast/web/client/states.js";
import { channel, next, open, proxy, publish, SERVER, take, until } from "./support.mjs";

const URL = `${SERVER}/v1`;
const TRANSPORTS = ["websocket", "sse", "long-poll", "short-poll"];
const data = (messages) => messages.map((message) => message.data);
const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

for (const transport of TRANSPORTS) {
  describe(transport, { timeout: 20_000 }, () => {
    const options = { transports: [transport] };

    test("JSON, text and bytes come as they were published, each once and in order", async (t) => {
      const cast = open(t, URL, options);
      const name = channel();
      const news = cast.subscribe(name, { after: "earliest" });
      const sent = [{ t: 1.5 }, "text ü", null, new Uint8Array([0, 255])];
      const receipts = await Promise.all(sent.map((item) => cast.publish(name, item, { event: "tick" })));
      const messages = await take(news, 4);
      assert.deepEqual(data(messages), sent);
      assert.deepEqual(messages.map(({ id }) => id), receipts.map(({ id }) => id));
      assert.equal(receipts[0].durability, "memory");
      assert.deepEqual(messages.map(({ event }) => event), Array(4).fill("tick"));
      assert.equal(news.cursor, receipts[3].id);
      assert.equal(cast.transport, transport);
    });

    test("a subscription starts where it is asked to", async (t) => {
      const name = channel();
      const ids = await publish(name, 0, 1, 2, 3);
      for (const [start, expected] of [
        [{ after: "earliest" }, [0, 1, 2, 3]],
        [{ after: ids[1] }, [2, 3]],
        [{ last: 3 }, [1, 2, 3]],
        [{ since: 1 }, [0, 1, 2, 3]],
      ]) {
        const news = open(t, URL, options).subscribe(name, start);
        assert.deepEqual(data(await take(news, expected.length)), expected, JSON.stringify(start));
        news.close();
      }
      const latest = open(t, URL, options).subscribe(name);
      await next(latest, "subscribed");
      await publish(name, "new");
      assert.deepEqual(data(await take(latest, 1)), ["new"]);
    });

    test("many channels with starts of their own, subscribed at different times", async (t) => {
      const cast = open(t, URL, options);
      const [a, b, c] = [channel("a"), channel("b"), channel("c")];
      await publish(a, 0, 1, 2);
      await publish(b, 0, 1, 2);
      const first = cast.subscribe(a, { last: 2 });
      const second = cast.subscribe(b, { after: "earliest" });
      assert.deepEqual(data(await take(first, 2)), [1, 2]);
      const third = cast.subscribe(c);
      await next(third, "subscribed");
      for (const name of [c, a, b]) await publish(name, 3, 4);
      assert.deepEqual(data(await take(third, 2)), [3, 4]);
      assert.deepEqual(data(await take(first, 2)), [3, 4]);
      assert.deepEqual(data(await take(second, 5)), [0, 1, 2, 3, 4]);
    });

    test("two subscriptions of one channel each have their own place", async (t) => {
      const cast = open(t, URL, options);
      const name = channel();
      await publish(name, 0, 1);
      const late = cast.subscribe(name);
      await next(late, "subscribed");
      const early = cast.subscribe(name, { after: "earliest" });
      await publish(name, 2);
      assert.deepEqual(data(await take(early, 3)), [0, 1, 2]);
      assert.deepEqual(data(await take(late, 1)), [2]);
      early.close();
      await publish(name, 3);
      assert.deepEqual(data(await take(late, 1)), [3]);
    });

    test("a channel that is given up and taken again elsewhere has what lies between", async (t) => {
      const cast = open(t, URL, options);
      const name = channel();
      const ids = await publish(name, 0, 1, 2);
      cast.subscribe(channel());
      const before = cast.subscribe(name);
      await next(before, "subscribed");
      before.close();
      const again = cast.subscribe(name, { after: ids[0] });
      await publish(name, 3); // which the connection may still bring for the first one
      assert.deepEqual(data(await take(again, 3)), [1, 2, 3]);
    });

    test("a gap stands where it is, between the messages around it", async (t) => {
      const name = channel();
      await publish(name, 0, 1);
      const news = open(t, URL, options).subscribe(name, { after: "other-7" });
      const seen = [];
      news.on("gap", ({ reason, missed_from }) => seen.push([reason, missed_from]));
      for await (const message of news) {
        seen.push(message.data);
        if (message.data === 1) break;
      }
      assert.deepEqual(seen, [["epoch", "other-8"], 0, 1]);
      assert.ok(news.cursor);
    });

    test("a slow reader misses nothing, and at most the buffer waits", async (t) => {
      const name = channel();
      const news = open(t, URL, { ...options, buffer: 8 }).subscribe(name, { after: "earliest" });
      await publish(name, ...numbers(0, 100));
      const got = [];
      for await (const message of news) {
        got.push(message.data);
        if (got.length === 1) await publish(name, ...numbers(100, 120));
        if (got.length % 30 === 0) await new Promise((resolve) => setTimeout(resolve, 60));
        if (got.length === 120) break;
      }
      assert.deepEqual(got, numbers(0, 120));
    });

    test("listeners get what came before they listened", async (t) => {
      const name = channel();
      await publish(name, 0, 1, 2);
      const news = open(t, URL, options).subscribe(name, { after: "earliest" });
      await next(news, "subscribed");
      await publish(name, 3);
      const got = [];
      news.on("message", (message) => got.push(message.data));
      await until(news, "message", () => got.length === 4);
      assert.deepEqual(got, [0, 1, 2, 3]);
    });

    test("cut again and again, it resumes without loss", async (t) => {
      const between = await proxy(t);
      const name = channel();
      const cast = open(t, between.url, options);
      const news = cast.subscribe(name);
      await next(news, "subscribed");
      const reading = take(news, 60);
      for (let part = 0; part < 6; part += 1) {
        await publish(name, ...numbers(part * 10, part * 10 + 10));
        between.cut();
        if (cast.state !== "live") await until(cast, "state", () => cast.state === "live");
      }
      assert.deepEqual(data(await reading), numbers(0, 60));
    });

    test("a connection that falls silent is given up", async (t) => {
      const between = await proxy(t);
      const name = channel();
      const cast = open(t, between.url, { ...options, timing: { wait: 300 } });
      const news = cast.subscribe(name);
      await next(news, "subscribed");
      if (cast.state !== "live") await until(cast, "state", () => cast.state === "live");
      between.frozen = true;
      const { reason } = await next(cast, "state");
      assert.match(reason, /nothing came for|no answer came in time/);
      await publish(name, 1);
      between.frozen = false;
      assert.deepEqual(data(await take(news, 1)), [1]);
    });
  });
}

describe("refusals", { timeout: 20_000 }, () => {
  test("what is no channel and no place is refused at once", (t) => {
    const cast = open(t, URL);
    assert.throws(() => cast.subscribe("no spaces"), TypeError);
    assert.throws(() => cast.subscribe("news", { after: "yesterday" }), TypeError);
    assert.throws(() => open(t, URL, { transports: ["pigeon"] }), TypeError);
    assert.throws(() => open(t, URL, { transports: [] }), TypeError);
  });

  for (const transport of TRANSPORTS) {
    test(`${transport}: refused once, and not tried again`, async (t) => {
      const between = await proxy(t);
      const cast = open(t, `${SERVER}/v2`, { transports: [transport] });
      const news = cast.subscribe("news");
      const errors = [];
      news.on("error", (error) => errors.push(error));
      if (transport === "websocket") {
        // A browser does not show the status of a refused handshake: only another transport could.
        await until(cast, "state", () => cast.state === "waiting");
        return;
      }
      await assert.rejects(take(news, 1), { code: "not_found", status: 404 });
      assert.equal(cast.state, "idle");
      assert.equal(errors.length, 1);
      assert.equal(between.requests[transport], undefined);
    });
  }

  test("behind a refused WebSocket the next transport learns why", async (t) => {
    const news = open(t, `${SERVER}/v2`).subscribe("news");
    await assert.rejects(take(news, 1), { code: "not_found" });
  });

  test("of many channels only the one too many is refused", async (t) => {
    const cast = open(t, URL, { transports: ["websocket"] });
    const all = numbers(0, 65).map(() => cast.subscribe(channel()));
    const error = await next(all[64], "error");
    assert.equal(error.code, "request_invalid");
    await publish(all[63].channel, 1);
    assert.deepEqual(data(await take(all[63], 1)), [1]);
  });
});

describe("tokens", { timeout: 20_000 }, () => {
  for (const transport of ["sse", "long-poll", "short-poll"]) {
    test(`${transport}: a token is sent, and renewed once when it is refused`, async (t) => {
      const between = await proxy(t);
      const kind = transport === "long-poll" ? "short-poll" : transport;
      between.rules[kind] = () => (between.last[kind].headers.authorization === "Bearer new" ? {} : { status: 401 });
      const asked = [];
      const getToken = async (renew) => (asked.push(renew), renew ? "new" : "old");
      const news = open(t, between.url, { transports: [transport], getToken }).subscribe(channel());
      await next(news, "subscribed");
      assert.deepEqual(asked, [false, true]);
    });
  }

  test("a token that stays refused is reported", async (t) => {
    const between = await proxy(t, { sse: { status: 401 } });
    const news = open(t, between.url, { transports: ["sse"], getToken: () => "old" }).subscribe(channel());
    await assert.rejects(take(news, 1), { status: 401 });
    assert.equal(between.requests.sse, 2);
  });
});

describe("publishing", { timeout: 20_000 }, () => {
  test("what was published in order is in order, and once, though acknowledgements are lost", async (t) => {
    let count = 0;
    const faults = [{ lost: true }, { cutBytes: 60 }, { status: 503 }, {}];
    const between = await proxy(t, { publish: () => faults[count++ % faults.length] });
    const cast = open(t, between.url);
    const name = channel();
    const sent = [];
    for (const number of numbers(0, 12)) {
      sent.push(cast.publish(name, number));
      if (number % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const receipts = await Promise.all(sent);
    const messages = await take(open(t, URL).subscribe(name, { after: "earliest" }), 12);
    assert.deepEqual(data(messages), numbers(0, 12));
    assert.deepEqual(messages.map(({ id }) => id), receipts.map(({ id }) => id));
    assert.ok(count >= 4);
  });

  test("a key of one's own makes a repetition the same message", async (t) => {
    const cast = open(t, URL);
    const name = channel();
    const first = await cast.publish(name, 1, { key: "k" });
    assert.deepEqual(await cast.publish(name, 2, { key: "k" }), first);
  });

  test("what the server refuses is rejected, the rest is not", async (t) => {
    const cast = open(t, URL);
    const name = channel();
    const [good, bad] = await Promise.allSettled([cast.publish(name, 1), cast.publish(name, 1, { event: "a\nb" })]);
    assert.equal(good.status, "fulfilled");
    assert.equal(bad.reason.code, "event_invalid");
    await assert.rejects(cast.publish("no spaces", 1), TypeError);
  });

  test("closing rejects what was not acknowledged", async (t) => {
    const between = await proxy(t, { publish: { silent: true } });
    const cast = open(t, between.url);
    const sent = cast.publish(channel(), 1);
    setTimeout(() => cast.close(), 50);
    await assert.rejects(sent, /closed/);
    await assert.rejects(cast.publish(channel(), 1), /closed/);
    assert.throws(() => cast.subscribe("news"), /closed/);
  });
});

test("every state can be left for another, but the last; and each move leads to a state", () => {
  for (const [state, moves] of Object.entries(MOVES)) {
    assert.equal(Object.keys(moves).length === 0, state === "closed");
    for (const to of Object.values(moves)) assert.ok(to in MOVES);
  }
});

test("without a WebSocket class the client begins with events", { skip: "WebSocket" in globalThis }, async (t) => {
  const cast = open(t, URL, { WebSocket: undefined });
  const news = cast.subscribe(channel());
  await next(news, "subscribed");
  await until(cast, "transport", () => cast.transport);
  assert.equal(cast.transport, "sse");
});

test("an exception of a listener is reported, and costs no message", async (t) => {
  const name = channel();
  const cast = open(t, URL);
  const news = cast.subscribe(name, { after: "earliest" });
  const seen = [];
  const reported = t.mock.method(console, "error", () => {});
  cast.on("state", () => {
    throw new Error("state");
  });
  news.on("message", (message) => {
    seen.push(message.data);
    if (message.data === 0) throw new Error("mine");
  });
  await publish(name, 0, 1);
  await until(news, "message", () => seen.length === 2);
  assert.deepEqual(new Set(reported.mock.calls.map((call) => call.arguments[0].message)), new Set(["state", "mine"]));
});
