/** Who is there: each page says every ten seconds who it is, and after a change where its caret is. Nobody keeps it. */

import {
  createAbsolutePositionFromRelativePosition,
  createRelativePositionFromJSON,
  createRelativePositionFromTypeIndex,
} from "./yjs.js";

const AGAIN_MS = 10_000;
const GONE_MS = 25_000;
const PACE_MS = 200; // between two of this page's messages
const MOST = 50;

export function meetPeople(cast, text, area, nameOf, changed) {
  const me = crypto.randomUUID();
  /** By id. @type {Map<string, { name: string, caret: unknown, seen: number }>} */
  const others = new Map();
  let timer = 0;
  let sending = false;
  const signs = cast.subscribe("people");
  signs.on("gap", () => {}); // the next sign of each tells all
  signs.on("message", ({ data }) => {
    if (typeof data?.id !== "string" || data.id === me) return;
    others.delete(data.id);
    others.set(data.id, { name: String(data.name).slice(0, 20), caret: data.caret, seen: performance.now() });
    if (others.size > MOST) others.delete(others.keys().next().value);
    changed();
  });
  setInterval(() => {
    for (const [id, { seen }] of others) if (performance.now() - seen > GONE_MS) others.delete(id);
    changed();
  }, 1_000);
  setInterval(say, AGAIN_MS);
  say();
  return { moved, list };

  /** Tell the others soon that the caret has moved. */
  function moved() {
    timer ||= setTimeout(say, PACE_MS);
  }

  async function say() {
    if (sending) return;
    clearTimeout(timer);
    timer = 0;
    sending = true;
    const caret = createRelativePositionFromTypeIndex(text, area.selectionEnd, -1);
    await cast.publish("people", { id: me, name: nameOf(), caret }, { timeout: 2_000 }).catch(() => {}); // the next one tells it
    sending = false;
  }

  /** Return the others, with the places of their carets in the text. */
  function list() {
    return [...others].map(([id, { name, caret }]) => ({ id, name, at: placeOf(caret) }));
  }

  /** Return a place in the text, -1 for what is none: another page may have published anything. */
  function placeOf(caret) {
    try {
      return createAbsolutePositionFromRelativePosition(createRelativePositionFromJSON(caret), text.doc)?.index ?? -1;
    } catch {
      return -1;
    }
  }
}
