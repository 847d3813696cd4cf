/**
 * A hundred stories, each of its own seed: a client on a random transport, behind a network that cuts, stalls and loses
 * acknowledgements at random, publishes to two channels and listens to both. It must hear each message once, in order.
 */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { channel, open, proxy, random } from "./support.mjs";

const STORIES = Number(process.env.ONCECAST_STORIES ?? 100);
const AT_ONCE = 16;
const MESSAGES = 24;
const FAULTS = 5; // then the network is good
const STORY_MS = 60_000; // the longest one takes 5 s, and four times that on a busy machine
const FIRST_SEED = Number(process.env.ONCECAST_SEED ?? 1);
const TIMING = { open: 300, early: 300, probe: 300, backoff: 10, poll: 20, wait: 1_000, heartbeat: 400 };

const ORDERS = [
  undefined, // all of them
  ["websocket"],
  ["sse"],
  ["long-poll"],
  ["short-poll"],
  ["sse", "short-poll"],
  ["websocket", "long-poll"],
];

async function story(t, seed) {
  const chance = random(seed);
  const pick = (list) => list[Math.floor(chance() * list.length)];
  const transports = pick(ORDERS);
  // At the end of the ladder a refusal is for good, whoever it comes from.
  const statuses = transports ? [500, 502] : [403, 500, 502];
  let faults = 0;
  const fault = () => {
    if (faults >= FAULTS || chance() < 0.3) return {};
    faults += 1;
    return pick([
      { cutBytes: Math.floor(chance() * 3_000) },
      { cutBytes: 150 + Math.floor(chance() * 300) },
      { cutMs: Math.floor(chance() * 100) },
      { stallBytes: Math.floor(chance() * 2_000) },
      { status: pick(statuses) },
      { lost: true },
    ]);
  };
  let failed = 0; // requests in a row: a message that fails five times in one way is given up, as is right
  const publishFault = () => {
    failed = failed < 3 && chance() < 0.4 ? failed + 1 : 0;
    return failed ? pick([{ lost: true }, { cutBytes: 50 }, { status: 502 }]) : {};
  };
  const between = await proxy(t, {
    websocket: fault,
    sse: fault,
    "long-poll": fault,
    // The last transport, and what fills holes.
    "short-poll": () => (({ status, ...rest }) => (status === 403 ? {} : { status, ...rest }))(fault()),
    publish: publishFault,
  });
  const cast = open(t, between.url, { transports, timing: TIMING, buffer: pick([4, 1024]) });
  Object.defineProperty(cast.connection.net, "retry", { get: () => TIMING.backoff, set() {} }); // not the server's 2 s
  const log = [];
  cast.connection.net.say = (line) => log.push(line);
  const got = [[], []];
  const heard = [0, 1].map(async (index) => {
    const name = channel();
    const news = cast.subscribe(name, pick([{ after: "earliest" }, { last: MESSAGES }]));
    for (let number = 0; number < MESSAGES; number += 1) {
      cast.publish(name, number).catch((error) => log.push(`${number} of ${name}: ${error}`)); // or heard, and the story over
      if (chance() < 0.5) await new Promise((resolve) => setTimeout(resolve, chance() * 20));
    }
    news.on("gap", (gap) => got[index].push(gap));
    for await (const message of news) {
      got[index].push(message.data);
      if (message.data === MESSAGES - 1) break;
    }
  });
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, STORY_MS)));
  await Promise.race([Promise.all(heard), late]).finally(() => clearTimeout(timer));
  const numbers = Array.from({ length: MESSAGES }, (_, number) => number);
  assert.deepEqual(got, [numbers, numbers], `seed ${seed}, by ${transports}:\n${log.join("\n")}`);
}

describe("stories", { concurrency: AT_ONCE, timeout: 200_000 }, () => {
  for (let seed = FIRST_SEED; seed < FIRST_SEED + STORIES; seed += 1) {
    test(`seed ${seed}`, (t) => story(t, seed));
  }
});
