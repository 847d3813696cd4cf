/** The client's reading of the wire, against the vectors of the specification. */

import assert from "node:assert/strict";
import { test } from "node:test";

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
  const push = wire.readEvents(onEvent, (retry) => (last.retry = retry));
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
    const { seq, channel, kind, data, event, time } = message;
    const expected = kind === "json" ? JSON.parse(data) : kind === "binary" ? new Uint8Array(bytesOf(data)) : data;
    assert.deepEqual(read, { id: `${epoch}-${seq}`, channel, data: expected, event, time });
  });
}

for (const { name, gap, json } of vectors("gaps").cases) {
  test(`gap: ${name}`, () => assert.deepEqual(wire.itemOf({ type: "gap", ...JSON.parse(json) }), gap));
}

for (const { name, frame, parsed } of vectors("v1_frames").cases) {
  if (parsed?.type !== "subscribe") continue;
  test(`frame: ${name}`, () => {
    const { type, channel, ref, ...start } = parsed;
    if (Object.keys(start).length) assert.deepEqual(wire.startFields(start.after ?? start), start);
  });
}

test("data: bytes, text and anything else", () => {
  assert.deepEqual(wire.dataFields(new Uint8Array([0, 255])), { data64: "AP8=" });
  assert.deepEqual(wire.dataFields(new Uint8Array([0, 255]).buffer), { data64: "AP8=" });
  assert.deepEqual(wire.dataFields("text"), { data: "text" });
  assert.deepEqual(wire.dataFields({ t: 1 }), { data: { t: 1 } });
  assert.deepEqual(wire.dataFields(undefined), { data: null });
});

test("starts: what is no place is refused at once", () => {
  for (const start of ["yesterday", "", "e-01"]) assert.throws(() => wire.startFields(start), TypeError);
});
