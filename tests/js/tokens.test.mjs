/** Tokens against a server that verifies them, on each transport and with shared tabs. */

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, test } from "node:test";

import { channel, next, open, proxy, take } from "./support.mjs";

const { ONCECAST_GUARDED: GUARDED, ONCECAST_SECRET: SECRET } = process.env;
if (!GUARDED) throw new Error("these tests are run by tests/test_javascript.py, which starts their server");
const TRANSPORTS = ["websocket", "sse", "long-poll", "short-poll"];
const LIFE = 3; // seconds of a short token: the warning comes in its last quarter

/** A token from now on. */
function lasting(seconds) {
  const now = Date.now() / 1000;
  const parts = [{ alg: "HS256" }, { sub: "ann", iat: now, exp: now + seconds }];
  const signed = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

const ended = () => lasting(-1).replace(/\.[^.]*$/, (signature) => signature);

async function publish(name, data) {
  const identity = { Authorization: `Bearer ${lasting(60)}`, "Idempotency-Key": `${name} ${data}` };
  const headers = { ...identity, "Content-Type": "application/json" };
  const send = () =>
    fetch(`${GUARDED}/v1/channels/${name}`, { method: "POST", headers, body: JSON.stringify(data) });
  // Node may send it on a connection that the server ends at that moment, as a token of it has ended.
  const answer = await send().catch(send);
  assert.equal(answer.status, 201);
}

// They wait for tokens to end, and so run side by side.
describe("tokens", { concurrency: true, timeout: 90_000 }, () => {
  for (const transport of TRANSPORTS) {
    describe(transport, { timeout: 60_000 }, () => {
      test("a wrong token is replaced, once", async (t) => {
        const asked = [];
        const getToken = (renew) => (asked.push(renew), renew ? lasting(60) : ended());
        const name = channel();
        const news = open(t, GUARDED, { transports: [transport], getToken }).subscribe(name, { after: "earliest" });
        await publish(name, 1);
        assert.deepEqual([1], (await take(news, 1)).map(({ data }) => data));
        assert.deepEqual(asked, [false, true]);
      });

      test("a token that stays wrong is reported", async (t) => {
        const asked = [];
        const getToken = (renew) => (asked.push(renew), ended());
        const news = open(t, GUARDED, { transports: [transport], getToken }).subscribe(channel());
        await assert.rejects(take(news, 1), { status: 401 });
        assert.ok(asked.length <= 3, `${asked}`);
      });

      test("nothing is lost or repeated while tokens end", async (t) => {
        let given = 0;
        const getToken = () => (given++, lasting(LIFE));
        const name = channel();
        const news = open(t, GUARDED, { transports: [transport], getToken }).subscribe(name, { after: "earliest" });
        const messages = news[Symbol.asyncIterator]();
        let sent = 0;
        while (given < 4) {
          await publish(name, sent);
          assert.equal((await messages.next()).value.data, sent++);
          await new Promise((done) => setTimeout(done, 50)); // spread over the tokens' lives
        }
      });
    });
  }

  test("an idle socket goes on with its next token", { timeout: 60_000 }, async (t) => {
    let given = 0;
    const getToken = () => (given++, lasting(LIFE));
    const name = channel();
    const cast = open(t, GUARDED, { transports: ["websocket"], getToken });
    const news = cast.subscribe(name);
    await next(news, "subscribed");
    let states = 0;
    cast.on("state", () => states++);
    while (given < 3) await new Promise((done) => setTimeout(done, 50)); // their lives pass
    await publish(name, 1);
    assert.deepEqual([1], (await take(news, 1)).map(({ data }) => data));
    assert.equal(states, 0);
  });
});
