/** What the tests of the client share: the server that the test runner has started, times for a test, and waiting. */

import { readFileSync } from "node:fs";

import { WebSocket } from "../peers/node_modules/ws/wrapper.mjs";
import { Proxy } from "./proxy.mjs";

/** The client: its modules, or the file that a server has made of them. */
export const CLIENT = process.env.ONCECAST_CLIENT ?? new URL("../../src/oncecast/web/client/index.js", import.meta.url).href;
const { connect, Refused } = await import(CLIENT);
export { connect, Refused };

/** The origin of a server with a heartbeat of 0.4 s. */
export const SERVER = process.env.ONCECAST_SERVER;
if (!SERVER) throw new Error("these tests are run by tests/test_javascript.py, which starts their server");

/** Everything a good deal faster than on the internet. */
export const TIMING = { open: 600, early: 700, probe: 600, backoff: 30, poll: 50, wait: 2_000, heartbeat: 400 };

let names = 0;

/** A channel of its own. */
export const channel = (name = "c") => `${name}-${process.pid}-${names++}`;

/** A cast that is closed when the test ends. */
export function open(t, url, options = {}) {
  const cast = connect(url, { WebSocket, ...options, timing: { ...TIMING, ...options.timing } });
  t.after(() => cast.close());
  return cast;
}

/** A proxy that stops when the test ends. */
export async function proxy(t, rules = {}) {
  const started = await new Proxy(SERVER).start();
  started.rules = rules;
  t.after(() => started.stop());
  return started;
}

/** @param {string} name as of a channel @param {unknown[]} data published without the client */
export async function publish(name, ...data) {
  const body = data.map((item) => JSON.stringify({ channel: name, data: item })).join("\n");
  const answer = await fetch(`${SERVER}/v1/publish`, { method: "POST", body });
  return (await answer.text()).trim().split("\n").map((line) => JSON.parse(line).id);
}

/** The next `count` messages. */
export async function take(subscription, count) {
  const taken = [];
  const messages = subscription[Symbol.asyncIterator]();
  while (taken.length < count) taken.push((await messages.next()).value);
  return taken;
}

/** The next value of an event. */
export const next = (emitter, name) =>
  new Promise((resolve) => {
    const off = emitter.on(name, (value) => (off(), resolve(value)));
  });

/** Resolves once the condition holds, looked at after each event that may change it. */
export function until(emitter, name, condition) {
  if (condition()) return Promise.resolve();
  return new Promise((resolve) => {
    const off = emitter.on(name, () => condition() && (off(), resolve()));
  });
}

/** @param {string} name a file of spec/vectors */
export const vectors = (name) => JSON.parse(readFileSync(new URL(`../../spec/vectors/${name}.json`, import.meta.url)));

/** Numbers from 0 to 1 that the seed determines (a linear congruential generator, good enough to choose faults by). */
export function random(seed) {
  let state = (seed * 2654435761 + 1) >>> 0;
  return () => (state = (state * 1664525 + 1013904223) >>> 0) / 2 ** 32;
}
