/** Publishing where something is wrong: no server, a message that something in between refuses, too much at once. */

import assert from "node:assert/strict";
import http from "node:http";
import { describe, test } from "node:test";

import { channel, next, open, proxy, publish, Refused, SERVER, take } from "./support.mjs";

const NOWHERE = "http://127.0.0.1:2/v1"; // nothing listens there, and no server of another test is given that port
const numbers = (to) => Array.from({ length: to }, (_, index) => index);

/** A server that acknowledges each line, unless `fault` says what to do with the request or the line. */
async function peer(t, fault) {
  const lines = [];
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const texts = body ? body.split("\n") : [];
    const done = fault(body, response);
    if (done) return;
    const answers = texts.map((text) => {
      const error = fault(text);
      if (error) return { error };
      lines.push(JSON.parse(text).data);
      return { id: `e-${lines.length}`, durability: "process" };
    });
    response.end(answers.map((answer) => `${JSON.stringify(answer)}\n`).join(""));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${server.address().port}`, lines };
}

describe("a server that is not there", { timeout: 20_000 }, () => {
  test("each failure is an event, and the promise rejects in time", async (t) => {
    const cast = open(t, NOWHERE);
    const events = [];
    cast.on("publishing", (failure) => events.push(failure));
    await assert.rejects(cast.publish("news", 1, { timeout: 1_500 }), { name: "TimeoutError", message: /ECONNREFUSED/ });
    assert.ok(events.length >= 2, `${events.length}`);
    assert.deepEqual(events.slice(0, 2).map(({ attempts, waiting }) => [attempts, waiting]), [[1, 1], [2, 1]]);
    assert.ok(events.every(({ reason, retry }) => reason.startsWith("no connection") && retry >= 0));
  });

  test("by default a publish is given up, too", async (t) => {
    const cast = open(t, NOWHERE, { timing: { publish: 1_000 } });
    const calls = [cast.publish("news", 1), cast.history("news")];
    const expected = { name: "TimeoutError", message: /within 1000 ms: no connection/ };
    await Promise.all(calls.map((call) => assert.rejects(call, expected)));
  });

  test("a signal ends it, with its reason, and ends nothing else", async (t) => {
    const between = await proxy(t, { publish: { silent: true } });
    const cast = open(t, between.url);
    const controller = new AbortController();
    const name = channel();
    const ended = cast.publish(name, 1, { signal: controller.signal });
    const many = cast.publishMany([{ channel: name, data: 2 }], { signal: controller.signal });
    const other = cast.publish(name, 3);
    await new Promise((resolve) => setTimeout(resolve, 50));
    between.rules = {};
    controller.abort(new Error("enough"));
    await assert.rejects(ended, /enough/);
    await assert.rejects(many, (error) => error instanceof AggregateError && error.results[0].message === "enough");
    between.cut();
    assert.ok((await other).id);
    const [message] = await take(open(t, SERVER).subscribe(name, { after: "earliest" }), 1);
    assert.equal(message.data, 3);
    await assert.rejects(cast.publish(name, 1, { signal: controller.signal }), /enough/);
  });

  test("what waits is bounded", async (t) => {
    const cast = open(t, NOWHERE);
    const waiting = cast.publishMany(numbers(10_000).map((data) => ({ channel: "news", data })));
    waiting.catch(() => {});
    await assert.rejects(cast.publish("news", 1), (error) => error instanceof Refused && error.code === "queue_full");
    const large = open(t, NOWHERE);
    large.publish("news", "x".repeat(2 ** 23)).catch(() => {});
    await assert.rejects(large.publish("news", "x".repeat(2 ** 23)), { code: "queue_full" });
    cast.close();
    await assert.rejects(waiting, (error) => error.results.every(({ name }) => name === "AbortError"));
  });
});

describe("a message that is refused on the way", { timeout: 30_000 }, () => {
  const FAULTS = {
    "the connection breaks": (body, response) => body.includes("poison") && (response?.destroy(), true),
    "a proxy answers 500": (body, response) => body.includes("poison") && (response?.writeHead(500).end(), true),
    "the answer is no answer": (body, response) => body.includes("poison") && (response?.end("<p>"), true),
    "a proxy answers 413": (body, response) => body.includes("poison") && (response?.writeHead(413).end(), true),
    "a firewall answers 403": (body, response) => body.includes("poison") && (response?.writeHead(403).end(), true),
  };
  for (const [what, fault] of Object.entries(FAULTS)) {
    test(`${what}: it is given up, and the others arrive in order`, async (t) => {
      const server = await peer(t, fault);
      const cast = open(t, server.url, { timing: { backoff: 5 } });
      const sent = [0, 1, 2, "poison", 4, 5].map((data) => cast.publish("news", data, { timeout: Infinity }));
      await assert.rejects(sent[3], (error) => error instanceof Refused);
      const receipts = await Promise.all(sent.filter((_, index) => index !== 3));
      assert.deepEqual(server.lines, [0, 1, 2, 4, 5]);
      assert.deepEqual(receipts[4], { id: "e-5", durability: "process" });
      assert.ok((await cast.publish("news", 6)).id);
    });
  }

  test("an internal error that stays is given up; a busy server is waited for", async (t) => {
    let busy = 4;
    const server = await peer(t, (text, response) => {
      if (response) return false;
      if (text.includes("broken")) return { code: "internal", message: "no" };
      return text.includes("patient") && busy-- > 0 ? { code: "unavailable", message: "later" } : null;
    });
    const cast = open(t, server.url, { timing: { backoff: 5 } });
    const broken = cast.publish("news", "broken", { timeout: Infinity });
    const patient = cast.publish("news", "patient", { timeout: Infinity });
    await assert.rejects(broken, { code: "internal" });
    assert.ok((await patient).id);
  });

  test("a server that is away for long loses nothing, and keeps the order", async (t) => {
    let away = true;
    const server = await peer(t, (_, response) => away && (response?.writeHead(502).end(), true));
    const cast = open(t, server.url, { timing: { backoff: 2 } });
    const sent = numbers(20).map((data) => cast.publish("news", data));
    let failures = 0;
    await new Promise((resolve) => cast.on("publishing", () => ++failures === 12 && resolve()));
    away = false;
    await Promise.all(sent);
    assert.deepEqual(server.lines, numbers(20));
  });

  test("what a server asks for with Retry-After is obeyed", async (t) => {
    const times = [];
    const server = await peer(t, (_, response) => {
      if (!response) return null;
      times.push(performance.now());
      return times.length === 1 && (response.writeHead(503, { "Retry-After": 1 }).end(), true);
    });
    const cast = open(t, server.url);
    const failed = next(cast, "publishing");
    const sent = cast.publish("news", 1);
    assert.ok((await failed).retry >= 1_000);
    const other = cast.publish("news", 2);
    await Promise.all([sent, other]);
    assert.ok(times[1] - times[0] >= 990, `${times}`);
  });
});

describe("many at once", { timeout: 20_000 }, () => {
  test("each has its receipt, in few requests", async (t) => {
    const between = await proxy(t);
    const cast = open(t, between.url);
    const name = channel();
    const receipts = await cast.publishMany(numbers(3_000).map((data) => ({ channel: name, data })));
    assert.equal(new Set(receipts.map(({ id }) => id)).size, 3_000);
    assert.ok(between.requests.publish <= 5, `${between.requests.publish}`);
  });

  test("those that are refused are named", async (t) => {
    const cast = open(t, SERVER);
    const name = channel();
    const messages = [{ channel: name, data: 1 }, { channel: name, data: 2, event: "gap" }, { channel: name, data: 3 }];
    await assert.rejects(cast.publishMany(messages), (error) => {
      assert.ok(error instanceof AggregateError);
      assert.deepEqual(error.results.map(({ id, code }) => Boolean(id) || code), [true, "event_invalid", true]);
      return /^1 of 3/.test(error.message);
    });
    assert.deepEqual(await cast.publishMany([]), []);
    await assert.rejects(cast.publishMany([{ channel: name, data: 1 }, { channel: name, data: NaN }]), TypeError);
    const { messages: kept } = await cast.history(name);
    assert.deepEqual(kept.map(({ data }) => data), [1, 3]);
  });
});

test("keys and events arrive as they are", { timeout: 20_000 }, async (t) => {
  const cast = open(t, SERVER);
  const name = channel();
  const keys = ["order 7", "order  7", "é", "✓", "😀"];
  const receipts = await Promise.all(keys.map((key) => cast.publish(name, key, { key, event: key })));
  assert.equal(new Set(receipts.map(({ id }) => id)).size, keys.length);
  const messages = await take(open(t, SERVER).subscribe(name, { after: "earliest" }), keys.length);
  assert.deepEqual(messages.map(({ event }) => event), keys);
  for (const [index, key] of keys.entries()) {
    assert.deepEqual(await cast.publish(name, "again", { key }), receipts[index]);
  }
  for (const label of ["order 7 ", " order 7", "\t", "a\nb"]) {
    await assert.rejects(cast.publish(name, 1, { key: label }), { code: "key_invalid" });
    await assert.rejects(cast.publish(name, 1, { event: label }), { code: "event_invalid" });
  }
});

describe("history", { timeout: 20_000 }, () => {
  test("what a channel has, and where to go on", async (t) => {
    const cast = open(t, SERVER);
    const name = channel();
    const ids = await publish(name, ...numbers(2_500));
    const data = (history) => history.messages.map((message) => message.data);
    assert.deepEqual(data(await cast.history(name, { limit: 2_200 })), numbers(2_200));
    assert.deepEqual(data(await cast.history(name, { last: 3 })), [2_497, 2_498, 2_499]);
    assert.deepEqual(data(await cast.history(name, { last: 2_500 })), numbers(2_500));
    const { messages, gaps, cursor } = await cast.history(name, { after: ids[1], limit: 2 });
    assert.deepEqual([messages.map(({ id }) => id), gaps, cursor], [[ids[2], ids[3]], [], ids[3]]);
    assert.deepEqual(data(await cast.history(channel())), []);
    const other = channel();
    await publish(other, "a", "b");
    assert.deepEqual(data(await cast.history([other, name], { after: ids[2_498] })), [2_499, "a", "b"]);
    assert.equal((await cast.history(name, { after: "other-7", limit: 1 })).gaps[0].reason, "epoch");
  });

  test("the last messages of each of several channels, however much there is", async (t) => {
    const cast = open(t, SERVER);
    const [a, b] = [channel("a"), channel("b")];
    await publish(a, ...numbers(1_500));
    await publish(b, ...numbers(1_500));
    await publish(a, "end");
    const all = await cast.history([a, b], { last: 1_200 });
    const of = (name) => all.messages.filter((message) => message.channel === name).map(({ data }) => data);
    assert.deepEqual(of(a), [...numbers(1_500).slice(301), "end"]);
    assert.deepEqual(of(b), numbers(1_500).slice(300));
    const some = await cast.history([a, b], { last: 1_200, limit: 5 });
    assert.deepEqual(some.messages, all.messages.slice(0, 5));
    assert.equal(some.cursor, all.messages[4].id);
  });

  test("it repeats what fails, and rejects what is refused", async (t) => {
    let count = 0;
    const between = await proxy(t, { "short-poll": () => (count++ ? {} : { status: 502 }) });
    const name = channel();
    await publish(name, 1);
    assert.equal((await open(t, between.url).history(name)).messages.length, 1);
    await assert.rejects(open(t, `${SERVER}/v2`).history(name), (error) => error instanceof Refused && error.status === 404);
    const cast = open(t, NOWHERE);
    const waiting = [cast.history(name), cast.history(name, { signal: AbortSignal.timeout(30) })];
    await assert.rejects(waiting[1], { name: "TimeoutError" });
    cast.close();
    await assert.rejects(waiting[0], { name: "AbortError" });
  });
});
