/** Single modules of the client, with a clock of their own: whether a connection lives, deadlines, signals. */

import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { describe, test } from "node:test";

import { onAbort } from "../../src/oncecast/web/client/abort.js";
import { createLiveness } from "../../src/oncecast/web/client/liveness.js";
import { createDeadline } from "../../src/oncecast/web/client/time.js";

/** The clocks that the client reads; `advance` lets timers run, `busy` and `step` do not. */
function clocks(t) {
  let [mono, wall] = [1_000, 1_700_000_000_000];
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  t.mock.method(performance, "now", () => mono);
  t.mock.method(Date, "now", () => wall);
  return {
    /** Milliseconds pass, and this thread is free. */
    advance(milliseconds) {
      for (let left = milliseconds; left > 0; left -= 10) {
        const part = Math.min(10, left);
        mono += part;
        wall += part;
        t.mock.timers.tick(part);
      }
    },
    /** This thread is busy: both clocks go on, and no timer runs. */
    busy(milliseconds) {
      mono += milliseconds;
      wall += milliseconds;
    },
    /** The machine sleeps, or the wall clock is set. */
    step: (milliseconds) => (wall += milliseconds),
  };
}

function liveness(t, heartbeat = 15_000) {
  const suspected = [];
  const net = { timing: { heartbeat }, heartbeat };
  const created = createLiveness(net, (reason, silent) => suspected.push(silent ? "silent" : "slept"));
  t.after(() => created.stop());
  created.start();
  return { ...created, suspected, net };
}

describe("the heartbeat's interval", () => {
  test("one spacing proves nothing, several do", (t) => {
    const clock = clocks(t);
    const { heard, interval } = liveness(t);
    clock.advance(200);
    heard(true);
    for (const expected of [15_000, 15_000, 5_000, 5_000]) {
      clock.advance(5_000);
      heard(true);
      assert.equal(interval(), expected);
    }
  });

  test("a heartbeat that is read late makes one spacing short, and not the interval", (t) => {
    const clock = clocks(t);
    const { heard, interval, suspected } = liveness(t);
    for (let beat = 0; beat < 10; beat += 1) {
      const late = beat % 2 ? 4_000 : 0;
      clock.advance(5_000 - (beat % 2 ? 0 : 4_000));
      clock.busy(late);
      heard(true);
      if (beat > 3) assert.ok(interval() >= 5_000, `${interval()}`);
    }
    assert.deepEqual(suspected, []);
  });

  test("heartbeats that were read together make no interval", (t) => {
    const clock = clocks(t);
    const { heard, interval, suspected } = liveness(t);
    for (let beat = 0; beat < 5; beat += 1) {
      clock.advance(5_000);
      heard(true);
    }
    clock.busy(60_000);
    clock.advance(1);
    for (let beat = 0; beat < 12; beat += 1) heard(true);
    assert.ok(interval() >= 5_000, `${interval()}`);
    clock.advance(5_000);
    heard(true);
    clock.advance(5_000);
    assert.deepEqual(suspected.slice(1), []);
  });

  test("a slower heartbeat than the default is learnt at once", (t) => {
    const clock = clocks(t);
    const { heard, interval } = liveness(t);
    heard(true);
    clock.advance(30_000);
    heard(true);
    assert.equal(interval(), 30_000);
  });

  test("what the server has announced is believed", (t) => {
    const clock = clocks(t);
    const { heard, suspected, net } = liveness(t);
    [net.heartbeat, net.announced] = [60_000, true];
    clock.advance(140_000);
    assert.deepEqual(suspected, []);
    heard(false);
    clock.advance(151_000);
    assert.deepEqual(suspected, ["silent"]);
  });
});

describe("silence", () => {
  test("it is noticed after two and a half heartbeats, whatever the wall clock does", (t) => {
    const clock = clocks(t);
    const { suspected } = liveness(t);
    clock.step(-3_600_000);
    clock.advance(37_000);
    assert.deepEqual(suspected, []);
    clock.advance(1_500);
    assert.deepEqual(suspected, ["silent"]);
  });

  test("time in which the thread was busy is asked about, and cuts nothing", (t) => {
    const clock = clocks(t);
    const { suspected } = liveness(t);
    clock.advance(10_000);
    clock.busy(60_000);
    clock.advance(1_000);
    assert.deepEqual(suspected, ["slept"]);
  });

  test("a sleep in which the monotonic clock stood still is noticed", (t) => {
    const clock = clocks(t);
    const { suspected } = liveness(t);
    clock.advance(2_000);
    clock.step(3_600_000);
    clock.advance(1_000);
    assert.deepEqual(suspected, ["slept"]);
    clock.advance(30_000);
    assert.deepEqual(suspected, ["slept"]);
  });
});

describe("a deadline", () => {
  test("it fires after its time", (t) => {
    const clock = clocks(t);
    let fired = 0;
    createDeadline()(() => (fired += 1), 2_000);
    clock.advance(1_990);
    assert.equal(fired, 0);
    clock.advance(2_000);
    assert.equal(fired, 1);
  });

  test("it does not count the time in which this thread was busy", (t) => {
    const clock = clocks(t);
    let fired = 0;
    createDeadline()(() => (fired += 1), 2_000);
    clock.advance(1_600);
    clock.busy(10_000);
    clock.advance(500);
    assert.equal(fired, 0);
    clock.advance(500);
    assert.equal(fired, 1);
  });

  test("it fires though each of its timers is late", (t) => {
    const clock = clocks(t);
    let fired = 0;
    createDeadline()(() => (fired += 1), 2_000);
    for (let timer = 0; timer < 8; timer += 1) {
      clock.busy(60_000);
      clock.advance(500);
    }
    assert.equal(fired, 1);
  });

  test("it can be cleared and set again", (t) => {
    const clock = clocks(t);
    const fired = [];
    const deadline = createDeadline();
    deadline(() => fired.push("first"), 1_000);
    clock.advance(600);
    deadline(() => fired.push("second"), 1_000);
    clock.advance(600);
    assert.deepEqual(fired, []);
    deadline();
    clock.advance(5_000);
    assert.deepEqual(fired, []);
  });
});

describe("a signal", () => {
  test("one listener serves all, and is removed with the last", () => {
    const { signal } = new AbortController();
    const task = () => {};
    const offs = Array.from({ length: 20 }, () => onAbort(signal, task));
    assert.equal(getEventListeners(signal, "abort").length, 1);
    for (const off of offs) off();
    offs[0]();
    assert.equal(getEventListeners(signal, "abort").length, 0);
    onAbort(signal, task)();
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  test("each task is called once, those taken back are not, and one may take back another", () => {
    const controller = new AbortController();
    const called = [];
    let off = () => {};
    onAbort(controller.signal, () => (called.push(1), off()));
    off = onAbort(controller.signal, () => called.push(2));
    onAbort(controller.signal, () => called.push(3))();
    controller.abort();
    onAbort(controller.signal, () => called.push(4));
    onAbort(undefined, () => called.push(5))();
    assert.deepEqual(called, [1, 4]);
  });
});
