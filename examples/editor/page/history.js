/**
 * The text's changes on their way to the channel and from it. The channel's log is the history.
 *
 * Out: one message at a time. What is changed meanwhile, or without a network, is merged into the next one, so what waits
 * is one message, however long it takes. In: Yjs ignores what it has already, the page's own changes too.
 *
 * The log is bounded (oncecast.toml), so every `WHOLE` changes a page that writes publishes the whole text. All pages take
 * the same key for it, so it is in the log once. What is older than a whole text may go.
 */

import { applyUpdate, encodeStateAsUpdate, mergeUpdates } from "./yjs.js";

const CHANNEL = "text";
const WHOLE = 500;

/** `show({ unsaved, heard })` is called at each change; `fail(error)` where the server refuses one. */
export function keepHistory(cast, doc, { apply, show, fail }) {
  let waiting = null; // the update that is sent next
  let sending = false;
  let heard = 0;
  let since = 0; // changes, since the last whole text
  let whole = "none"; // the id of that
  doc.on("update", (update, origin) => origin !== CHANNEL && send(update));

  const changes = cast.subscribe(CHANNEL, { after: "earliest" });
  changes.on("message", ({ id, event, data }) => {
    heard += 1;
    [since, whole] = event === "whole" ? [0, id] : [since + 1, whole];
    apply(() => applyUpdate(doc, data, CHANNEL));
    tell();
  });
  // The server has lost messages, as one in memory does at a restart: what this page has, all others get again.
  changes.on("gap", () => send(encodeStateAsUpdate(doc)));
  changes.on("error", fail);

  async function send(update) {
    waiting = waiting ? mergeUpdates([waiting, update]) : update;
    tell();
    if (sending) return;
    sending = true;
    while (waiting) {
      const next = waiting;
      waiting = null;
      try {
        await cast.publish(CHANNEL, next, { timeout: Infinity });
        if (since >= WHOLE) await cast.publish(CHANNEL, encodeStateAsUpdate(doc), { event: "whole", key: `whole-after-${whole}` });
      } catch (error) {
        fail(error);
      }
    }
    sending = false;
    tell();
  }

  function tell() {
    show({ unsaved: sending || waiting !== null, heard });
  }
}
