/** What the client leaves behind, and what it keeps: timers, listeners, sockets, waiting promises, frames. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { getEventListeners } from "node:events";
import http from "node:http";
import { describe, test } from "node:test";
import { promisify } from "node:util";

import { compare } from "../../src/oncecast/web/client/wire.js";
import { channel, CLIENT, connect, next, open, proxy, publish, SERVER, take, until } from "./support.mjs";

const TRANSPORTS = ["websocket", "sse", "long-poll", "short-poll"];
const numbers = (to) => Array.from({ length: to }, (_, index) => index);

/** A server that answers nothing, or what it is given; to a WebSocket's handshake `upgraded` says what. */
async function unable(t, answer, upgraded) {
  const server = http.createServer((request, response) => answer?.(response));
  server.on("upgrade", (request, socket) => {
    socket.on("error", () => {}); // the client's process has ended
    upgraded?.(request, socket);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const sockets = new Set();
  server.on("connection", (socket) => sockets.add(socket));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

describe("after close() Node ends", { concurrency: 4, timeout: 30_000 }, () => {
  const servers = {
    "a server that works": async () => SERVER,
    "a server that is busy for a minute": (t) =>
      unable(
        t,
        (response) => response.writeHead(503, { "Retry-After": 60 }).end(),
        (_, socket) => socket.end("HTTP/1.1 503 No\r\nRetry-After: 60\r\n\r\n"),
      ),
    "a server that takes a WebSocket and falls silent": (t) =>
      unable(t, null, ({ headers }, socket) => {
        // RFC 6455 §4.2.2
        const key = `${headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
        const accept = createHash("sha1").update(key).digest("base64");
        socket.write(
          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
            `Sec-WebSocket-Protocol: oncecast.v1\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
        );
      }),
    "a server that never answers": (t) => unable(t),
  };
  for (const [what, start] of Object.entries(servers)) {
    for (const transport of TRANSPORTS) {
      test(`${what}, ${transport}`, async (t) => {
        const program = new URL("closing.mjs", import.meta.url).pathname;
        const url = await start(t);
        const works = what === "a server that works";
        const args = [program, CLIENT, url, transport, works ? "works" : ""];
        const { stdout } = await promisify(execFile)(process.execPath, args);
        const { settled, after } = JSON.parse(stdout);
        assert.deepEqual(settled, ["history", "next", works ? "published" : "publish"]);
        assert.ok(after < 6_000, `it took ${after} ms`); // of 30 or 60 s; alone, 1 s at most
      });
    }
  }
});

describe("listeners", { timeout: 20_000 }, () => {
  test("forty channels that begin with their last message raise no warning, and share a signal", async (t) => {
    const warnings = [];
    const note = (warning) => warnings.push(`${warning}`);
    process.on("warning", note);
    t.after(() => process.off("warning", note));
    const controller = new AbortController();
    const { signal } = controller;
    const names = numbers(40).map(() => channel());
    await Promise.all(names.map((name) => publish(name, 1)));
    for (const transports of TRANSPORTS.map((name) => [name])) {
      const cast = open(t, SERVER, { transports });
      const all = names.map((name) => cast.subscribe(name, { last: 1, signal }));
      cast.publish(names[0], 0, { signal }).catch(() => {});
      assert.equal(getEventListeners(signal, "abort").length, 1);
      for (const news of all) assert.equal((await take(news, 1))[0].channel, news.channel);
      cast.close();
    }
    assert.equal(getEventListeners(signal, "abort").length, 0);
    assert.deepEqual(warnings, []);
  });

  test("a signal closes a subscription, and one that has fired opens none", async (t) => {
    const cast = open(t, SERVER);
    const controller = new AbortController();
    const news = cast.subscribe(channel(), { signal: controller.signal });
    const ended = take(news, 1);
    controller.abort();
    assert.deepEqual(await ended, [undefined]);
    assert.throws(() => cast.subscribe("news", { signal: controller.signal }), { name: "AbortError" });
  });
});

test("a call of next() settles when its iterator is returned, or the subscription closed", { timeout: 20_000 }, async (t) => {
  const cast = open(t, SERVER);
  const first = cast.subscribe(channel())[Symbol.asyncIterator]();
  const waiting = [first.next(), first.next()];
  assert.deepEqual(await first.return("value"), { value: "value", done: true });
  assert.deepEqual(await Promise.all(waiting), Array(2).fill({ value: undefined, done: true }));
  const news = cast.subscribe(channel());
  const second = news.events().next();
  news.close();
  assert.deepEqual(await second, { value: undefined, done: true });
});

describe("a WebSocket without a subscription", { timeout: 20_000 }, () => {
  test("a page that changes its channel does not reconnect", async (t) => {
    const between = await proxy(t);
    const cast = open(t, between.url, { transports: ["websocket"] });
    const states = [];
    cast.on("state", ({ to }) => states.push(to));
    for (let click = 0; click < 5; click += 1) {
      const news = cast.subscribe(channel());
      await next(news, "subscribed");
      await publish(news.channel, click);
      assert.equal((await take(news, 1))[0].data, click);
      news.close();
    }
    assert.equal(between.requests.websocket, 1);
    assert.deepEqual(states, ["connecting", "live"]);
  });

  test("it is closed after a while", async (t) => {
    const cast = open(t, SERVER, { transports: ["websocket"], timing: { linger: 100 } });
    const news = cast.subscribe(channel());
    await next(news, "subscribed");
    const began = performance.now();
    news.close();
    assert.equal((await next(cast, "state")).to, "idle");
    assert.ok(performance.now() - began >= 95);
  });

  test("channels that come and go fast are paced", async (t) => {
    const between = await proxy(t);
    const cast = open(t, between.url, { transports: ["websocket"] });
    const states = [];
    const keep = cast.subscribe(channel());
    await next(keep, "subscribed");
    cast.on("state", ({ to }) => states.push(to));
    const name = channel();
    await publish(name, 0);
    let last;
    for (let turn = 0; turn < 600; turn += 1) {
      last?.close();
      last = cast.subscribe(name, { after: turn % 2 ? "earliest" : "latest" });
      if (turn % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await take(last, 1))[0].data, 0);
    await publish(keep.channel, "still");
    assert.equal((await take(keep, 1))[0].data, "still");
    assert.deepEqual([states, between.requests.websocket], [[], 1]);
  });
});

describe("gaps", { timeout: 20_000 }, () => {
  test("each that nobody listens to is warned of, and no other", async (t) => {
    const warned = t.mock.method(console, "warn", () => {});
    const name = channel();
    await publish(name, 1);
    const after = "other-7";
    const cast = open(t, SERVER);
    await take(cast.subscribe(name, { after }), 1);
    await next(cast.subscribe(name, { after }), "message");
    const text = `oncecast: messages of ${name} are missing (epoch, from other-8 to an unknown id).`;
    const texts = warned.mock.calls.map((call) => call.arguments[0]);
    assert.deepEqual(texts.map((line) => line.slice(0, text.length)), [text, text]);
    const listening = cast.subscribe(name, { after });
    listening.on("gap", () => {});
    await take(listening, 1);
    const items = cast.subscribe(name, { after }).events();
    assert.equal((await items.next()).value.reason, "epoch");
    assert.equal((await items.next()).value.data, 1);
    assert.equal(warned.mock.callCount(), 2);
  });

  test("a subscription that ends unheard is warned of", async (t) => {
    const warned = t.mock.method(console, "warn", () => {});
    const cast = open(t, `${SERVER}/v2`, { transports: ["short-poll"] });
    cast.subscribe("news").on("message", () => {});
    await until(cast, "state", () => cast.state === "idle");
    assert.match(warned.mock.calls[0].arguments[0], /^oncecast: a subscription has ended: not_found/);
  });
});

test("several channels are one subscription, with a cursor each", { timeout: 20_000 }, async (t) => {
  for (const transports of TRANSPORTS.map((name) => [name])) {
    const cast = open(t, SERVER, { transports, buffer: 2 });
    const [a, b] = [channel("a"), channel("b")];
    const ids = { [a]: (await publish(a, 0, 1, 2)).at(-1), [b]: (await publish(b, 0, 1, 2)).at(-1) };
    const both = cast.subscribe([a, b, a], { last: 2 });
    assert.deepEqual(both.channels, [a, b]);
    const messages = await take(both, 4);
    for (const name of [a, b]) {
      assert.deepEqual(messages.filter((message) => message.channel === name).map(({ data }) => data), [1, 2]);
    }
    assert.deepEqual(Object.keys(both.cursors).sort(), [a, b].sort());
    // A heartbeat may have raised one since.
    for (const name of [a, b]) assert.ok(compare(both.cursors[name], ids[name]) >= 0, name);
    assert.equal(both.cursor, both.cursors[a]);
    both.close();
  }
});

test("the server's URL may end with /v1 or not", { timeout: 20_000 }, async (t) => {
  const name = channel();
  await publish(name, 1);
  for (const url of [SERVER, `${SERVER}/`, `${SERVER}/v1`, `${SERVER}/v1/`, new URL(SERVER), `${SERVER}?x=1#y`]) {
    assert.equal((await open(t, url).history(name)).messages.length, 1, `${url}`);
  }
});

test("a value that an option cannot have is refused by its name", async (t) => {
  const cast = open(t, SERVER);
  const cases = [
    [() => connect(SERVER, { shareTab: true }), TypeError, /no option "shareTab"/],
    [() => connect(SERVER, 5), TypeError, /options of connect/],
    [() => connect("ftp://example.org"), TypeError, /http/],
    [() => connect(SERVER, { transports: "sse" }), TypeError, /transports/],
    [() => connect(SERVER, { transports: ["toString"] }), TypeError, /toString/],
    [() => connect(SERVER, { getToken: "secret" }), TypeError, /getToken/],
    [() => connect(SERVER, { fetch: 1 }), TypeError, /fetch/],
    [() => connect(SERVER, { WebSocket: {} }), TypeError, /WebSocket/],
    ...[0, -1, 1.5, NaN, Infinity, 1e9].map((buffer) => [() => connect(SERVER, { buffer }), RangeError, /^buffer/]),
    [() => connect(SERVER, { buffer: "8" }), TypeError, /^buffer/],
    ...[0, -1, NaN, Infinity, 2 ** 31].map((open) => [
      () => connect(SERVER, { timing: { open } }),
      RangeError,
      /^timing.open/,
    ]),
    [() => connect(SERVER, { timing: { opne: 1 } }), TypeError, /opne/],
    [() => cast.subscribe("news", { afer: "latest" }), TypeError, /afer/],
    [() => cast.subscribe([]), TypeError, /channel/],
    [() => cast.subscribe(["a", "no spaces"]), TypeError, /no spaces/],
    [() => cast.subscribe("news", { signal: {} }), TypeError, /^signal/],
    [() => cast.on("mesage", () => {}), TypeError, /mesage/],
    [() => cast.on("state"), TypeError, /function/],
    [() => cast.publish("news", 1, { timeout: 0 }), RangeError, /^timeout/],
    [() => cast.publish("news", 1, { timeout: 2 ** 31 }), RangeError, /^timeout/],
    [() => cast.publish("news", 1, { timeout: "1" }), TypeError, /^timeout/],
    [() => cast.publish("news", 1, { signal: 1 }), TypeError, /^signal/],
    [() => cast.publish("news", 1, { kye: "k" }), TypeError, /kye/],
    [() => cast.publish(5, 1), TypeError, /channel name/],
    [() => cast.publishMany([{ chanel: "news" }]), TypeError, /chanel/],
    [() => cast.publishMany(5), TypeError, /iterable|not a function/],
    [() => cast.history("news", { limit: 0 }), RangeError, /^limit/],
    [() => cast.history(["no spaces"]), TypeError, /channel name/],
    [() => cast.history(new Set(["news"])), TypeError, /^channels/],
    [() => cast.history([]), TypeError, /^channels/],
  ];
  for (const [call, kind, named] of cases) {
    await assert.rejects(async () => call(), (error) => error instanceof kind && named.test(error.message), `${call}`);
  }
});

describe("tokens", { timeout: 20_000 }, () => {
  test("a function that gives no text, or fails, is asked again", async (t) => {
    const given = [];
    const getToken = async () => {
      if (given.length === 1) throw given.pop();
      return given.length ? given.shift() : "good";
    };
    const between = await proxy(t);
    for (const transports of TRANSPORTS.map((name) => [name])) {
      given.push(undefined, null, 5, "", new Error("mine"));
      const news = open(t, between.url, { transports, getToken }).subscribe(channel());
      await next(news, "subscribed");
    }
    assert.equal(between.last.sse.headers.authorization, "Bearer good");
  });

  test("of many requests that are refused at once, one asks for another token", async (t) => {
    const between = await proxy(t, {
      "short-poll": () => (between.last["short-poll"].headers.authorization === "Bearer new" ? {} : { status: 401 }),
    });
    const asked = [];
    const getToken = (renew) => (asked.push(renew), renew ? "new" : "old");
    const cast = open(t, between.url, { getToken });
    await Promise.all(numbers(5).map(() => cast.history(channel())));
    assert.deepEqual(asked, [false, true]);
  });
});

for (const transport of TRANSPORTS.slice(1)) {
  test(`${transport}: channels that come and go fast are no flood of requests`, { timeout: 60_000 }, async (t) => {
    const between = await proxy(t);
    const cast = open(t, between.url, { transports: [transport], timing: { poll: 1_000 } });
    const keep = cast.subscribe(channel());
    await next(keep, "subscribed");
    const before = Object.values(between.requests).reduce((sum, count) => sum + count);
    const began = performance.now();
    let last, subscribed;
    for (let turn = 0; turn < 100; turn += 1) {
      last?.close();
      last = cast.subscribe(channel());
      if (turn === 99) subscribed = next(last, "subscribed"); // which may come while the last turn waits
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const most = 8 * (2 + (performance.now() - began) / 100); // a request, and polls to bring the channels together
    const asked = Object.values(between.requests).reduce((sum, count) => sum + count) - before;
    assert.ok(asked < most, `${asked} requests`);
    await subscribed;
    for (const news of [last, keep]) {
      await publish(news.channel, 1);
      assert.equal((await take(news, 1))[0].data, 1);
    }
  });

  test(`${transport}: more channels than a request may have take several`, { timeout: 20_000 }, async (t) => {
    const cast = open(t, SERVER, { transports: [transport] });
    const all = numbers(70).map(() => cast.subscribe(channel()));
    await Promise.all(all.map((news) => next(news, "subscribed")));
    for (const news of [all[0], all[69]]) {
      await publish(news.channel, 1);
      assert.equal((await take(news, 1))[0].data, 1);
    }
  });

  test(`${transport}: names that are too long for one URL are asked for in parts`, { timeout: 20_000 }, async (t) => {
    const rule = (kind) => () => (between.last[kind].url.length > 1_000 ? { status: 414 } : {});
    const between = await proxy(t, Object.fromEntries(TRANSPORTS.slice(1).map((kind) => [kind, rule(kind)])));
    const cast = open(t, between.url, { transports: [transport] });
    const names = numbers(20).map(() => channel("n".repeat(100)));
    const all = names.map((name) => cast.subscribe(name));
    await Promise.all(all.map((news) => next(news, "subscribed")));
    for (let round = 0; round < 3; round += 1) {
      for (const name of names) await publish(name, round);
      for (const news of all) assert.equal((await take(news, 1))[0].data, round);
    }
    assert.equal(cast.state, "live");
    all[3].close();
    await publish(names[4], "on");
    assert.equal((await take(all[4], 1))[0].data, "on");
  });
}
