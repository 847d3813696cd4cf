/** The client in a worker thread: it listens, publishes and resumes there, and nothing keeps the thread once it is closed. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, test } from "node:test";
import { Worker } from "node:worker_threads";

import { channel, CLIENT, proxy, publish, TIMING } from "./support.mjs";

describe("a worker thread", { timeout: 20_000 }, () => {
  for (const transport of ["websocket", "sse", "long-poll", "short-poll"]) {
    test(transport, async (t) => {
      const between = await proxy(t);
      const name = channel();
      const options = { transports: [transport], timing: TIMING };
      const workerData = { client: CLIENT, url: between.url, channel: name, options };
      const worker = new Worker(new URL("./worker.mjs", import.meta.url), { workerData });
      t.after(() => worker.terminate());
      assert.deepEqual(await once(worker, "message"), ["ready"]);
      const heard = [];
      const all = new Promise((resolve) => worker.on("message", (data) => heard.push(data) === 4 && resolve()));
      worker.postMessage(0);
      await once(worker, "message");
      between.cut();
      await publish(name, 1, 2);
      while (heard.length < 3) await once(worker, "message");
      worker.postMessage(3);
      await all;
      assert.deepEqual(heard, [0, 1, 2, 3]);
      worker.postMessage("close");
      assert.deepEqual(await once(worker, "exit"), [0]);
    });
  }
});
