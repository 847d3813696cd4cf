/** Lines to copy, with this server's own address filled in. */

import { find } from "./dom.js";

/**
 * @typedef {object} Snippet
 * @property {string} title
 * @property {string} [kind] the panel it belongs to, for its colour
 * @property {string} code
 */

/**
 * @param {string} origin `http://host:port`
 * @returns {Snippet[]}
 */
export function snippets(origin) {
  const socket = origin.replace(/^http/, "ws");
  const machine = "/v1/channels/demo.machine";
  const print = "  .onmessage = ({ data }) => console.log(JSON.parse(data));";
  const chat = "/v1/channels/demo.chat";
  return [
    {
      title: "Publish",
      code: `curl ${origin}${chat} \\\n  -H 'Content-Type: application/json' \\\n  -d '{"text": "hello"}'`,
    },
    { title: "Short poll", kind: "short-poll", code: `curl '${origin}${machine}?last=1'` },
    { title: "Long poll", kind: "long-poll", code: `curl '${origin}${machine}?after=latest&wait=25'` },
    { title: "SSE", kind: "sse", code: `curl -N -H 'Accept: text/event-stream' \\\n  ${origin}${machine}` },
    {
      title: "EventSource",
      kind: "sse",
      code: `new EventSource("${origin}${machine}")\n${print}`,
    },
    {
      title: "WebSocket",
      kind: "websocket",
      code: `new WebSocket("${socket}${machine}", "oncecast.v1")\n${print}`,
    },
    { title: "oncecast sub", code: `oncecast sub --server ${origin} demo.machine --last 10` },
    { title: "oncecast pub", code: `oncecast pub --server ${origin} demo.chat hello` },
  ];
}

/**
 * Fill a list with snippets and their buttons.
 * @param {HTMLElement} list
 * @param {DocumentFragment} template of one entry
 * @param {(sentence: string) => void} say
 */
export function fill(list, template, say) {
  for (const { title, kind, code } of snippets(location.origin)) {
    const entry = /** @type {DocumentFragment} */ (template.cloneNode(true));
    const heading = find("h3", entry);
    const text = find("code", entry);
    const button = find("button", entry);
    heading.textContent = title;
    if (kind) heading.dataset.pen = kind;
    text.textContent = code;
    button.setAttribute("aria-label", `Copy ${title}`);
    button.addEventListener("click", async () => {
      const copied = await copy(code, text);
      button.textContent = copied ? "Copied" : "Selected";
      say(copied ? `${title} copied.` : `${title} selected; press Control C to copy it.`);
      setTimeout(() => (button.textContent = "Copy"), 1_600);
    });
    list.append(entry);
  }
}

/**
 * Copy a text. The clipboard is closed to pages that came over plain HTTP from another machine; there the
 * text is selected, and the older command tried.
 * @param {string} text
 * @param {HTMLElement} source where the text stands
 * @returns {Promise<boolean>} whether it is on the clipboard
 */
async function copy(text, source) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection()?.selectAllChildren(source);
    return document.execCommand("copy");
  }
}
