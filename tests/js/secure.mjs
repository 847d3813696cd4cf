/**
 * The client over https and wss, with the certificate's file in NODE_EXTRA_CA_CERTS, on each transport. It is run by
 * tests/test_javascript.py, against a server with TLS.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { channel, open, SERVER, take } from "./support.mjs";

assert.ok(SERVER.startsWith("https:"));

for (const transport of ["websocket", "sse", "long-poll", "short-poll"]) {
  test(`publish and listen by ${transport}`, async (t) => {
    const cast = open(t, `${SERVER}/v1`, { transports: [transport] });
    const name = channel();
    await cast.publish(name, { by: transport });
    const [message] = await take(cast.subscribe(name, { after: "earliest" }), 1);
    assert.deepEqual(message.data, { by: transport });
  });
}
