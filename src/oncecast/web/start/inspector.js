/**
 * What goes over the wire of one lane, in words and in bytes: the steps of its connection, the raw request and the
 * answer, an event's fields, a frame's bits.
 */

import { answerHead, eventText, frameHeadBytes, frameParts, requestHead, size, switchingHead } from "./costs.js";
import { element, find, write } from "./dom.js";
import * as format from "./format.js";

const SHOWN = 1_200; // characters of a body

/** @typedef {import("./transport.js").Seen} Seen */

/** The steps of each kind, with the round trips that each takes before the next can begin. @type {Record<string, [string, number][]>} */
const STEPS = {
  "short-poll": [
    ["The browser opens a TCP connection, once; it is kept for the next requests.", 1],
    ["It asks for what came after its cursor. The server answers at once, with messages or without.", 1],
    ["It rests for the interval, and asks again: a message waits for half of the interval on average.", 0],
  ],
  "long-poll": [
    ["The browser opens a TCP connection, once.", 1],
    ["It asks in the same way. Where there is nothing new the server keeps the request, up to 25 s.", 0],
    ["A message is the answer, at once. The browser asks again with the answer's cursor: a whole request for each.", 1],
  ],
  sse: [
    ["The browser opens a TCP connection.", 1],
    ["One request with Accept: text/event-stream. The answer's head comes at once, its body never ends.", 1],
    ["Each message is some lines of text in that body. Its id is the cursor: after a cut the browser sends it as Last-Event-ID.", 0],
  ],
  websocket: [
    ["The browser opens a TCP connection.", 1],
    ["A request asks to upgrade, with a random key. The server answers 101 with a hash of the key: both speak WebSocket now.", 1],
    ["Frames go both ways. The server's have 2 to 10 bytes before the payload, the browser's 4 more, the mask.", 0],
  ],
};

export class Inspector {
  /**
   * @param {HTMLDetailsElement} details of the lane
   * @param {string} kind
   */
  constructor(details, kind) {
    this.details = details;
    this.kind = kind;
    this.parts = find("[data-field=parts]", details);
    this.bits = find("[data-field=bits]", details);
    for (const [text] of STEPS[kind]) find("ol", details).append(element("li", text));
  }

  /** How long a listener waits before it hears anything. @param {number} distance milliseconds each way */
  firstAfter(distance) {
    const trips = STEPS[this.kind].reduce((sum, [, each]) => sum + each, 0);
    const at = distance ? `: at your distance ${format.duration(2 * distance * trips)}` : "";
    return `${format.plural(trips, "round trip")} before the first message, two more with TLS 1.2 and one with TLS 1.3${at}.`;
  }

  /** @param {readonly Seen[]} seen @param {number} distance */
  render(seen, distance) {
    if (!this.details.open || find("[data-action=hold]", this.details).getAttribute("aria-pressed") === "true") return;
    write(find("[data-field=trips]", this.details), this.firstAfter(distance));
    const shown = seen.flatMap((each) => texts(each));
    if (shown.length !== this.parts.children.length) {
      this.parts.replaceChildren(...shown.map(() => part()));
    }
    shown.forEach(({ name, text, bytes }, index) => {
      const made = this.parts.children[index];
      write(find("h4", made), name);
      write(find("small", made), format.plural(bytes, "byte"));
      write(find("code", made), text);
    });
    const frame = seen.findLast(({ kind }) => kind === "frame");
    if (frame?.kind === "frame") this.#renderBits(frame);
  }

  /** @param {{sent: boolean, data: string}} frame */
  #renderBits({ sent, data }) {
    const length = size(data);
    const rows = frameParts(length, sent).map(({ name, bits, means }) => {
      const row = document.createElement("tr");
      const head = element("th", name);
      head.setAttribute("scope", "row");
      row.append(head, element("td", bits, "bit"), element("td", means));
      return row;
    });
    this.bits.hidden = false;
    find("caption", this.bits).textContent =
      `The ${frameHeadBytes(length, sent)} bytes before the payload of the last frame (RFC 6455 §5.2)`;
    find("tbody", this.bits).replaceChildren(...rows);
  }
}

function part() {
  const made = element("div", "", "part");
  const head = element("h4", "");
  const pre = document.createElement("pre");
  pre.tabIndex = 0; // it scrolls
  pre.append(document.createElement("code"));
  made.append(head, element("small", ""), pre);
  return made;
}

/** @param {Seen} seen @returns {{name: string, text: string, bytes: number}[]} */
function texts(seen) {
  switch (seen.kind) {
    case "asked": {
      const text = requestHead(seen.url, seen.accept, navigator);
      return [{ name: "The request, as far as a page knows it", text, bytes: size(text) }];
    }
    case "answered": {
      const { response, body } = seen;
      const head = answerHead(response.status, response.statusText, response.headers);
      return [{ name: "The answer", text: head + cut(body), bytes: size(head) + size(body) }];
    }
    case "event": {
      const text = eventText(seen);
      return [{ name: "The last event of the stream", text: cut(text), bytes: size(text) }];
    }
    case "opened": {
      const name = `The answer 101; extensions: ${seen.extensions || "none"}`;
      return [{ name, text: switchingHead(), bytes: size(switchingHead()) }];
    }
    case "frame": {
      const length = size(seen.data);
      const name = seen.sent ? "The last frame that was sent" : "The last frame that came";
      return [{ name, text: cut(seen.data), bytes: length + frameHeadBytes(length, seen.sent) }];
    }
  }
}

/** @param {string} text */
function cut(text) {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}
