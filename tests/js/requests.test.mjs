/** The transports over HTTP as a module, on a server that is a function: where each request begins. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { createNet } from "../../src/oncecast/web/client/net.js";
import { createPlaces } from "../../src/oncecast/web/client/places.js";
import { pollLong, pollShort } from "../../src/oncecast/web/client/requests.js";

const PAUSE_MS = 5; // between two polls
const HEAD = 20; // the messages of the log: an odd number is of channel "a", an even one of "b"

const seqOf = (cursor) => Number(cursor.slice("life-".length));

/** A server of that log; each answer has one number's message. `heard` is called with the start of each request. */
function serve(heard) {
  return async (url) => {
    const { pathname, searchParams } = new URL(url);
    const channels = decodeURIComponent(pathname).split("/").at(-1).split(",");
    const after = searchParams.get("after");
    heard(after);
    const seq = after === "latest" ? HEAD : Math.min(seqOf(after) + 1, HEAD);
    const message = { id: `life-${seq}`, channel: seq % 2 ? "a" : "b", data: seq, event: null, time: 1 };
    const isNew = after !== "latest" && seq > seqOf(after) && channels.includes(message.channel);
    return Response.json({ messages: isNew ? [message] : [], cursor: `life-${seq}` });
  };
}

/** Poll both channels from the beginning. At the third request `change` is called with the connection's places. */
async function poll(t, open, change) {
  t.mock.method(performance, "now", () => 1_000); // however long a request takes, the next ones follow the change
  const asked = [];
  const got = [];
  const { places, add, item, raise } = createPlaces((_, channel, _before, _cursor, message) => {
    if (channel === "b" && message) got.push(message.data);
  });
  for (const channel of ["a", "b"]) add(channel, "life-0");
  const fetch = serve((after) => {
    asked.push(after);
    if (asked.length === 3) change({ places, add, adjust: () => link.adjust() });
  });
  let link;
  const reason = await new Promise((resolve) => {
    link = open({
      net: createNet("http://localhost:1", { fetch, timing: { poll: PAUSE_MS, open: 30_000 } }),
      places,
      apart: false,
      opened() {},
      alive() {},
      item: (_, ...advance) => item(...advance),
      raise: (_, ...advance) => raise(...advance),
      refused: (_, channel, failure) => resolve(`${channel}: ${failure.reason}`),
      lost: (_, failure) => resolve(failure.reason),
    });
    t.after(() => link.close());
  });
  assert.equal(reason, "the channels have changed");
  return { asked, got };
}

for (const open of [pollShort, pollLong]) {
  describe(`${open.name}: a channel that is given up while a request is paced`, { timeout: 60_000 }, () => {
    test("its neighbour is asked for from its own place on", async (t) => {
      const { asked, got } = await poll(t, open, ({ places, adjust }) => {
        places.delete("a"); // in the order of a connection: the channel goes, then the link hears of it
        adjust();
      });
      assert.ok(asked.length > 3, "requests were made after the change");
      assert.deepEqual(new Set(asked), new Set(Array.from(asked, (_, index) => `life-${Math.min(index, HEAD)}`)));
      assert.deepEqual(got, Array.from(got, (_, index) => 2 * index + 2), "no message of it is left out");
    });

    test("added again at the end of the log, it moves no place of its neighbour", async (t) => {
      const { asked, got } = await poll(t, open, ({ places, add, adjust }) => {
        places.delete("a");
        add("a", "latest");
        adjust();
      });
      assert.deepEqual(asked, ["life-0", "life-1", "life-2"]);
      assert.deepEqual(got, [2]);
    });
  });
}
