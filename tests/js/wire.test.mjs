/** The client's reading of the wire, against the vectors of the specification. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { readEvents } from "../../src/oncecast/web/client/events.js";
import * as wire from "../../src/oncecast/web/client/wire.js";
import { vectors } from "./support.mjs";

const bytesOf = (stream) => (typeof stream === "string" ? Buffer.from(stream) : Buffer.from(stream.hex, "hex"));

/** Read a stream in pieces of so many bytes; return what a browser's EventSource would have fired, but for the names. */
function read(bytes, size) {
  const events = [];
  const last = { id: "", retry: null };
  const onEvent = (id, data) => {
    last.id = id;
    if (data !== null) events.push({ data, id });
  };
  const push = readEvents(onEvent, (retry) => (last.retry = retry));
  const decoder = new TextDecoder();
  for (let at = 0; at < bytes.length; at += size) {
    push(decoder.decode(bytes.subarray(at, at + size), { stream: true }));
  }
  return { events, ...last };
}

for (const { name, stream, events, last_event_id, retry_ms } of vectors("sse").cases) {
  test(`event stream: ${name}`, () => {
    const bytes = bytesOf(stream);
    for (const size of [1, 2, 3, 7, bytes.length]) {
      const unnamed = events.map(({ data, id }) => ({ data, id }));
      const expected = { events: unnamed, id: last_event_id, retry: retry_ms };
      assert.deepEqual(read(bytes, size), expected, `in pieces of ${size}`);
    }
  });
}

test("cursors: those of the vectors are read, or refused", () => {
  const { valid, invalid } = vectors("cursors");
  for (const { text, epoch, seq } of valid) assert.deepEqual(wire.parseCursor(text), [epoch, BigInt(seq)]);
  for (const text of invalid) assert.equal(wire.parseCursor(text), null, JSON.stringify(text));
});

test("cursors: they are compared as numbers, beyond what a number holds, and only within one life", () => {
  for (const [a, b, sign] of [
    ["e-9", "e-10", -1],
    ["e-10", "e-9", 1],
    ["e-7", "e-7", 0],
    ["e-9223372036854775806", "e-9223372036854775807", -1],
    ["e-1", "f-2", NaN],
    ["latest", "e-1", NaN],
    [{ last: 3 }, "e-1", NaN],
  ]) {
    assert.equal(Math.sign(wire.compare(a, b)), sign, `${a} ${b}`);
  }
});

test("channels: those of the vectors are taken, or refused", () => {
  const { valid, invalid } = vectors("channels");
  for (const name of valid) assert.equal(wire.checkChannel(name), name);
  for (const name of invalid) assert.throws(() => wire.checkChannel(name), TypeError, JSON.stringify(name));
});

for (const { name, json, message } of vectors("messages").cases) {
  test(`message: ${name}`, () => {
    const { epoch } = vectors("messages");
    const read = wire.itemOf({ type: "message", ...JSON.parse(json) });
    const { seq, channel, kind, data, event, time, ...more } = message;
    const expected = kind === "json" ? JSON.parse(data) : kind === "binary" ? new Uint8Array(bytesOf(data)) : data;
    assert.deepEqual(read, { id: `${epoch}-${seq}`, channel, data: expected, event, time, ...more });
  });
}

for (const { name, gap, json } of vectors("gaps").cases) {
  test(`gap: ${name}`, () => assert.deepEqual(wire.itemOf({ type: "gap", ...JSON.parse(json) }), gap));
}

for (const { name, frame, parsed } of vectors("v1_frames").cases) {
  if (parsed?.type !== "subscribe") continue;
  test(`frame: ${name}`, () => {
    const { type, channel, ref, ...start } = parsed;
    if (Object.keys(start).length) assert.deepEqual(wire.startFields(wire.startOf(start, "latest")), start);
  });
}

const line = (data, fields) => JSON.parse(wire.lineOf({ channel: "c", data, ...fields }));

test("data: bytes, text and anything else", () => {
  assert.deepEqual(line(new Uint8Array([0, 255])), { channel: "c", data64: "AP8=" });
  assert.deepEqual(line(new Uint8Array([0, 255]).buffer), { channel: "c", data64: "AP8=" });
  assert.deepEqual(line("text 😀 \\ud800", { event: "é ✓", key: " order 7 " }), {
    channel: "c",
    data: "text 😀 \\ud800",
    event: "é ✓",
    key: " order 7 ",
  });
  assert.deepEqual(line({ t: 1, left: undefined, in: [null, false, 1e300] }).data, { t: 1, in: [null, false, 1e300] });
  assert.deepEqual(line(new Date(0)).data, "1970-01-01T00:00:00.000Z");
});

const circle = {};
circle.self = circle;
const UNFAITHFUL = {
  undefined: undefined,
  NaN: NaN,
  infinity: [{ deep: Infinity }],
  "undefined in a list": [undefined],
  "a big integer": { n: 1n },
  "a function": () => 1,
  "a symbol": { s: Symbol("s") },
  "a map": new Map([[1, 2]]),
  "a set": { s: new Set() },
  "an invalid date": new Date(NaN),
  "a boxed NaN": new Number(NaN),
  "numbers in a typed array": new Float32Array([1]),
  "half of a surrogate pair": "\ud800",
  "half of a surrogate pair, behind a backslash": "\\\udfff",
  "half of a surrogate pair in a name": { "\udc00x": 1 },
  "a circle": circle,
};
for (const [what, value] of Object.entries(UNFAITHFUL)) {
  test(`data: ${what} is a TypeError`, () => assert.throws(() => line(value), TypeError));
}

test("events and keys: what is no text, or no UTF-8 can hold, is a TypeError", () => {
  for (const fields of [{ event: 1 }, { event: null }, { key: {} }, { key: "\ud800" }, { event: "\udfff" }]) {
    assert.throws(() => line(1, fields), TypeError, JSON.stringify(fields));
  }
});

test("starts: what is no place is refused at once, and the option is named", () => {
  for (const [start, kind, named] of [
    [{ after: "yesterday" }, TypeError, /^after /],
    [{ after: "" }, TypeError, /^after /],
    [{ after: "e-01" }, TypeError, /^after /],
    [{ after: { last: 3 } }, TypeError, /^after /],
    [{ after: null }, TypeError, /^after /],
    [{ last: -1 }, RangeError, /^last /],
    [{ last: 1.5 }, RangeError, /^last /],
    [{ last: 1e30 }, RangeError, /^last /],
    [{ last: NaN }, RangeError, /^last /],
    [{ last: "3" }, TypeError, /^last /],
    [{ since: -1 }, RangeError, /^since /],
    [{ since: Infinity }, RangeError, /^since /],
    [{ last: 1, since: 1 }, TypeError, /exclude each other/],
  ]) {
    assert.throws(() => wire.startOf(start, "latest"), (error) => error instanceof kind && named.test(error.message));
  }
  assert.equal(wire.startOf({}, "latest"), "latest");
  assert.deepEqual(wire.startOf({ since: 1e-7 }, "latest"), { since: 0 }); // no exponent reaches the wire
});

test("event stream: the work is linear in the length of a line", () => {
  const events = [];
  const push = readEvents((_, data) => events.push(data.length), () => {});
  const part = "x".repeat(16_384);
  const began = performance.now();
  push("data: ");
  for (let count = 0; count < 1_536; count += 1) push(part);
  push("\n\n");
  assert.deepEqual(events, [1_536 * part.length]);
  // 24 MiB: a tenth of a second; where each part is searched again with what came before, eleven.
  assert.ok(performance.now() - began < 3_000);
});

test("event stream: a line that does not end is given up", () => {
  const push = readEvents(() => {}, () => {});
  const part = "x".repeat(2 ** 20);
  assert.throws(
    () => {
      for (let count = 0; count < 65; count += 1) push(part);
    },
    { reason: /more than 67108864 characters/ },
  );
});
