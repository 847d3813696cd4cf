/**
 * Reading an event stream (HTML Living Standard §9.2.6), however its text is cut. Pure: no clock, no network.
 * Invariant: each character is looked at once, so the work is linear in the length of the stream.
 */

const EVENT_MAX = 2 ** 26; // characters of one event: far above what a server sends, and a bound for memory

/**
 * Returns what takes the text. `onEvent` is called at each blank line, also at those after which a browser fires
 * nothing: an id without data is a cursor, and `data` is null there. An event's name is left out, as the client reads it
 * from the message.
 * @param {(id: string, data: string | null) => void} onEvent
 * @param {(milliseconds: number) => void} onRetry
 * @returns {(text: string) => void}
 */
export function readEvents(onEvent, onRetry) {
  const lineEnd = /\r\n|\r|\n/g;
  /** The pieces of the line that has not ended yet. @type {string[]} */
  let pieces = [];
  /** The `data` lines of the event that has not ended yet. @type {string[]} */
  let data = [];
  let size = 0; // of what is kept, at least
  let id = "";
  let afterReturn = false;
  return (text) => {
    // A line may end with CR LF, and the cut be between the two: this LF ends no line of its own.
    let from = afterReturn && text[0] === "\n" ? 1 : 0;
    if (text) afterReturn = text.endsWith("\r");
    lineEnd.lastIndex = from;
    for (let end; (end = lineEnd.exec(text)); from = lineEnd.lastIndex) {
      pieces.push(text.slice(from, end.index));
      const line = pieces.join("");
      pieces = [];
      read(line);
    }
    if (from < text.length) {
      pieces.push(text.slice(from));
      grow(text.length - from);
    }
  };

  /** @param {string} line */
  function read(line) {
    if (!line) {
      const whole = data.length ? data.join("\n") : null;
      data = [];
      size = 0;
      return onEvent(id, whole);
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") {
      data.push(value);
      grow(value.length + 1);
    }
    if (name === "id" && !value.includes("\0")) id = value;
    if (name === "retry" && /^\d+$/.test(value)) onRetry(Number(value));
  }

  /** @param {number} characters */
  function grow(characters) {
    size += characters;
    if (size > EVENT_MAX) throw { reason: `an event has more than ${EVENT_MAX} characters` };
  }
}
