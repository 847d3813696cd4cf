/**
 * A textarea that shows a `Y.Text`. What is typed becomes an insertion and a deletion; what others do is applied around
 * the caret, which stays at its letter.
 */

import { UndoManager, createAbsolutePositionFromRelativePosition, createRelativePositionFromTypeIndex } from "./yjs.js";

const MINE = "mine"; // the origin of what is typed here

/** Returns `apply(change)`, which runs what changes the document from outside. `changed()` is called when the text or the caret moves. */
export function bind(area, text, changed) {
  const undone = new UndoManager(text, { trackedOrigins: new Set([MINE]) }); // of one's own changes alone
  /** What came while a letter is composed, with an input method. @type {(() => void)[]} */
  let later = [];
  let composing = false;

  area.addEventListener("input", () => composing || typed());
  area.addEventListener("compositionstart", () => (composing = true));
  area.addEventListener("compositionend", () => {
    composing = false;
    typed();
    for (const change of later.splice(0)) apply(change);
  });
  area.addEventListener("beforeinput", (event) => {
    const back = { historyUndo: "undo", historyRedo: "redo" }[event.inputType];
    if (back) take(event, back);
  });
  area.addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "z") take(event, event.shiftKey ? "redo" : "undo");
    if (key === "y") take(event, "redo");
  });
  document.addEventListener("selectionchange", () => document.activeElement === area && changed());
  return apply;

  function take(event, back) {
    event.preventDefault();
    apply(() => undone[back]());
  }

  function typed() {
    const { at, removed, added } = difference(text.toString(), area.value, area.selectionEnd);
    text.doc.transact(() => {
      if (removed) text.delete(at, removed);
      if (added) text.insert(at, added);
    }, MINE);
    changed();
  }

  function apply(change) {
    if (composing) return void later.push(change);
    const before = text.toString();
    const carets = [area.selectionStart, area.selectionEnd].map((at) => createRelativePositionFromTypeIndex(text, at, -1));
    change();
    const after = text.toString();
    if (before !== after) {
      const top = area.scrollTop;
      area.value = after;
      area.setSelectionRange(...carets.map((caret) => createAbsolutePositionFromRelativePosition(caret, text.doc)?.index ?? 0));
      area.scrollTop = top;
    }
    changed();
  }
}

/** Return where two texts differ; `caret` stands after what was added, which decides between equal letters. */
export function difference(before, after, caret) {
  let end = 0; // letters that are the same at the end
  const most = Math.min(before.length, after.length);
  while (end < Math.min(most, after.length - caret) && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  let at = 0;
  while (at < most - end && before[at] === after[at]) at += 1;
  if (isHigh(after[at - 1]) || isHigh(before[at - 1])) at -= 1; // half of a letter can't be inserted
  if (end && (isLow(after.at(-end)) || isLow(before.at(-end)))) end -= 1;
  return { at, removed: before.length - end - at, added: after.slice(at, after.length - end) };
}

function isHigh(unit) {
  return unit >= "\ud800" && unit <= "\udbff";
}

function isLow(unit) {
  return unit >= "\udc00" && unit <= "\udfff";
}
