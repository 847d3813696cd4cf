/** The books of a listener, and what polling does with an answer. Run by test_modules.py, beside the modules. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { answerHead, evenInterval, eventText, frameHeadBytes, frameParts, percentile, requestHead, size } from "./costs.js";
import { bytes, duration, median, plural } from "./format.js";
import { Ledger } from "./ledger.js";
import { LongPoll, ShortPoll } from "./polling.js";
import { backoff } from "./transport.js";

const message = (n, { id = `e-${n}`, time = n } = {}) => ({ id, channel: "m", data: { n }, event: null, time });
const gap = (reason, channel = "m") => ({ channel, reason, missed_from: "e-1", missed_to: null, cursor: "e-9" });

function ledger(...numbers) {
  const books = new Ledger("m");
  for (const n of numbers) books.take(message(n), false);
  return books;
}

const books = ({ missed, repeated, disordered, declared, sound }) => [missed, repeated, disordered, declared, sound];

test("a counter that goes up by one is sound, wherever it begins", () => {
  assert.deepEqual(books(ledger(7, 8, 9)), [0, 0, 0, 0, true]);
});

test("a jump of the counter is that many missed", () => {
  assert.deepEqual(books(ledger(1, 2, 5)), [2, 0, 0, 0, false]);
});

test("an id that comes twice is repeated, and counted once", () => {
  const twice = ledger(1, 2);
  assert.deepEqual(twice.take(message(2), false), { fresh: false, afterGap: false });
  assert.deepEqual(books(twice), [0, 1, 0, 0, false]);
});

test("a smaller counter with an older time is out of order, and leaves the counter alone", () => {
  const shuffled = ledger(1, 3);
  shuffled.take(message(2), false);
  assert.deepEqual(books(shuffled), [1, 0, 1, 0, false]);
  assert.equal(shuffled.counter, 3);
});

test("a smaller counter with a newer time is a publisher that began again", () => {
  const again = ledger(7, 8);
  again.take(message(1, { id: "e-20", time: 20 }), false);
  assert.deepEqual(books(again), [0, 0, 0, 0, true]);
});

test("a gap excuses one jump, and only of its own channel", () => {
  const excused = ledger(1, 2);
  excused.gap(gap("expired"));
  assert.deepEqual(excused.take(message(6), false), { fresh: true, afterGap: true });
  assert.deepEqual(books(excused), [0, 0, 0, 3, true]);
  excused.take(message(8), false);
  assert.deepEqual(books(excused), [1, 0, 0, 3, false]);

  const elsewhere = ledger(1, 2);
  elsewhere.gap(gap("expired", "other"));
  elsewhere.take(message(6), false);
  assert.deepEqual(books(elsewhere), [3, 0, 0, 0, false]);
});

test("the counter starts again in another epoch", () => {
  const reborn = ledger(41, 42);
  reborn.gap(gap("epoch"));
  reborn.take(message(1, { id: "f-1", time: 50 }), false);
  assert.deepEqual(books(reborn), [0, 0, 0, 0, true]);
  assert.equal(reborn.torn, true);
});

test("a resume accounts for what was caught up, until the first message that is live", () => {
  const resumed = ledger(1, 2);
  resumed.reopen();
  resumed.take(message(2), true);
  for (const n of [3, 4, 6]) resumed.take(message(n), true);
  assert.deepEqual(resumed.resume, { caughtUp: 3, missed: 1, repeated: 1, gaps: [], live: false });
  resumed.take(message(7), false);
  resumed.take(message(9), false);
  assert.deepEqual(resumed.resume, { caughtUp: 3, missed: 1, repeated: 1, gaps: [], live: true });
});

test("what is remembered has a bound", () => {
  const long = new Ledger("m");
  for (let n = 1; n <= 5_000; n += 1) long.take(message(n), false);
  for (let n = 1; n <= 50; n += 1) long.gap(gap("slow"));
  assert.equal(long.gaps.length, 20);
  assert.equal(long.take(message(5_000), false).fresh, false);
});

// -- polling

/** A listener that lists its calls, and the answers that `fetch` gives it one after the other. */
function polling(Kind, answers) {
  const seen = { asked: [], called: [] };
  globalThis.document = { baseURI: "http://host.example/" };
  const over = new Promise((resolve) => {
    globalThis.fetch = async (url) => {
      seen.asked.push(url.search);
      if (answers.length === 0) resolve();
      const { status = 200, headers = {}, body } = answers.shift() ?? { status: 503, body: {} };
      return new Response(status === 304 ? null : JSON.stringify(body), { status, headers });
    };
  });
  const poll = new Kind(["a", "b"], {
    onMessages: (messages) => seen.called.push(...messages.map(({ id }) => id)),
    onGap: ({ reason }) => seen.called.push(reason),
    onState: (state) => seen.called.push(state),
    localTime: ({ time }) => time * 1000,
  });
  return { poll, seen, over };
}

test("a poll asks from the cursor of the last answer, waits from the second one on, and has gaps before messages", async () => {
  const { poll, seen, over } = polling(LongPoll, [
    { body: { messages: [], cursor: "e-1", gap: null } },
    { body: { messages: [message(5)], cursor: "e-5", gap: gap("slow"), gaps: [gap("slow"), gap("expired")] } },
    { status: 304 },
  ]);
  poll.start();
  await over;
  poll.cut();
  assert.deepEqual(seen.asked, ["?last=240", "?after=e-1&wait=25", "?after=e-5&wait=25", "?after=e-5&wait=25"]);
  assert.deepEqual(seen.called, ["connecting", "live", "slow", "expired", "e-5", "cut"]);
  assert.equal(poll.cursor, "e-5");
  assert.deepEqual([poll.counters.messages, poll.counters.requests], [1, 4]);
});

test("a refused poll waits, says why, and keeps its cursor", async () => {
  const refused = { error: { code: "too_many_requests", message: "Wait." } };
  const { poll } = polling(ShortPoll, [{ status: 429, headers: { "Retry-After": "60" }, body: refused }]);
  const why = new Promise((resolve) => {
    poll.listener.onState = (state, detail) => state === "waiting" && resolve(detail);
  });
  poll.start("e-3");
  assert.equal(await why, "too_many_requests: Wait.");
  assert.equal(poll.cursor, "e-3");
  poll.cut(); // and with it the timer of a minute: else this process would not end
});

test("a short poll does not dawdle while it is behind", () => {
  const poll = new ShortPoll(["a"], { localTime: ({ time }) => time * 1000 });
  const asked = performance.timeOrigin + performance.now();
  assert.equal(poll.rest([message(1, { time: asked / 1000 - 60 })], asked), 0);
  assert.ok(poll.rest([message(1, { time: asked / 1000 })], asked) > 500);
  assert.ok(poll.rest([], asked) > 500);
});

// -- odds and ends

test("attempts are made at growing, random intervals with an upper bound", () => {
  for (let attempt = 0; attempt < 40; attempt += 1) {
    const ceiling = Math.min(10_000, 500 * 2 ** attempt);
    const pause = backoff(attempt);
    assert.ok(pause >= ceiling / 2 && pause <= ceiling, `${pause} at ${attempt}`);
  }
});

test("numbers are written for people", () => {
  const sizes = [0, 812, 999.6, 4_310, 12e6, null].map(bytes);
  assert.deepEqual(sizes, ["0 B", "812 B", "1.00 kB", "4.31 kB", "12.0 MB", "–"]);
  const times = [-1, 0.84, 14, 2_300, 240_000, undefined].map(duration);
  assert.deepEqual(times, ["0.0 ms", "0.8 ms", "14 ms", "2.3 s", "4 min", "–"]);
  assert.deepEqual([plural(1, "core"), plural(1_234, "core")], ["1 core", "1,234 cores"]);
  assert.deepEqual([median([]), median([3, 1, 2]), median([4, 1, 2, 3])], [null, 2, 2.5]);
});

test("a head has a line for each field, and an empty one", () => {
  const browser = { userAgent: "B/1", languages: ["de", "en"] };
  const head = requestHead(new URL("http://h:1/v1/channels/a?after=x-1"), "*/*", browser);
  assert.ok(head.startsWith("GET /v1/channels/a?after=x-1 HTTP/1.1\r\nHost: h:1\r\n"));
  assert.ok(head.endsWith("\r\n\r\n") && head.includes("\r\nAccept-Language: de,en\r\n"));
  assert.ok(!head.includes("Sec-WebSocket"));
  const handshake = requestHead(new URL("ws://h:1/v1/connect"), "", browser);
  assert.ok(handshake.includes("\r\nOrigin: http://h:1\r\n") && handshake.includes("Sec-WebSocket-Version: 13"));
  assert.equal(answerHead(200, "OK", [["a", "b"]]), "HTTP/1.1 200 OK\r\na: b\r\n\r\n");
});

test("an event is its fields, one line for each line of data", () => {
  assert.equal(eventText({ type: "message", id: "e-1", data: "a\nb" }), "id: e-1\ndata: a\ndata: b\n\n");
  assert.equal(eventText({ type: "tick", id: "", data: "ü" }), "event: tick\ndata: ü\n\n");
  assert.equal(size("ü"), 2);
});

test("the head of a frame grows with its payload, and with a mask", () => {
  const heads = [0, 125, 126, 65_535, 65_536].map((length) => frameHeadBytes(length, false));
  assert.deepEqual(heads, [2, 2, 4, 4, 10]);
  assert.equal(frameHeadBytes(1, true), 6);
  const bits = (length, masked) => frameParts(length, masked).map((part) => part.bits);
  assert.deepEqual(bits(5, false), ["1", "000", "0001", "0", "0000101"]);
  assert.deepEqual(bits(300, true), ["1", "000", "0001", "1", "1111110", "0000000100101100", "…32…"]);
  assert.equal(bits(70_000, false).at(-1).length, 64);
});

test("a percentile is one of the values", () => {
  assert.equal(percentile([], 0.5), null);
  assert.deepEqual([0, 0.5, 0.99, 1].map((share) => percentile([4, 1, 3, 2], share)), [1, 2, 4, 4]);
  assert.equal(evenInterval(700, 70, 2), 5);
});
