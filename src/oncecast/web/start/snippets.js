/** Lines to copy, with this server's own address filled in. */

import { address, find } from "./dom.js";

/**
 * @typedef {object} Snippet
 * @property {string} title
 * @property {string} [kind] the panel it belongs to, for its colour
 * @property {string} code
 */

/**
 * @param {string} origin the server's base URL: `http://host:port`, and a path where a proxy adds one
 * @returns {Snippet[]}
 */
export function snippets(origin) {
  const socket = origin.replace(/^http/, "ws");
  const machine = "/v1/channels/demo.machine";
  const print = ").onmessage = ({ data }) => console.log(JSON.parse(data));";
  const chat = "/v1/channels/demo.chat";
  const command = ".venv/bin/oncecast"; // where `make serve` puts it; what it is once installed, the page says
  return [
    {
      title: "Publish",
      code: `curl ${origin}${chat} \\\n  -H 'Content-Type: application/json' \\\n  -d '{"text": "hello"}'`,
    },
    { title: "Short poll", kind: "short-poll", code: `curl '${origin}${machine}?last=1'` },
    { title: "Long poll", kind: "long-poll", code: `curl -G ${origin}${machine} \\\n  -d after=latest -d wait=25` },
    { title: "SSE", kind: "sse", code: `curl -N -H 'Accept: text/event-stream' \\\n  ${origin}${machine}` },
    {
      title: "EventSource",
      kind: "sse",
      code: `new EventSource(\n  "${origin}${machine}",\n${print}`,
    },
    {
      title: "WebSocket",
      kind: "websocket",
      code: `new WebSocket(\n  "${socket}${machine}",\n  "oncecast.v1",\n${print}`,
    },
    {
      title: "oncecast.js",
      code: `import { connect } from "${origin}/oncecast.js";\n\nfor await (const message of connect().subscribe("demo.machine"))\n  console.log(message.id, message.data);`,
    },
    {
      title: "Python",
      code: `from oncecast import Client\n\nwith Client("${origin}") as client:\n    for message in client.subscribe("demo.machine"):\n        print(message.id, message.data)`,
    },
    { title: "oncecast sub", code: `${command} sub demo.machine --last 10 \\\n  --server ${origin}` },
    { title: "oncecast pub", code: `${command} pub demo.chat hello \\\n  --server ${origin}` },
  ];
}

/**
 * Fill a list with snippets and their buttons.
 * @param {HTMLElement} list
 * @param {DocumentFragment} template of one entry
 * @param {(sentence: string) => void} say
 */
export function fill(list, template, say) {
  const widths = new ResizeObserver((entries) => {
    for (const { target } of entries) makeScrollable(/** @type {HTMLElement} */ (target));
  });
  for (const { title, kind, code } of snippets(address("").href.replace(/\/$/, ""))) {
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
    const frame = find("pre", entry);
    frame.dataset.label = `${title}, the lines`;
    list.append(entry);
    widths.observe(frame);
  }
}

/**
 * Let keys scroll what is wider than its frame. What is not is no stop on the way through the page.
 * @param {HTMLElement} frame
 */
function makeScrollable(frame) {
  const names = { tabindex: "0", role: "region", "aria-label": frame.dataset.label ?? "" };
  const wide = frame.scrollWidth > frame.clientWidth;
  for (const [name, value] of Object.entries(names)) {
    if (wide) frame.setAttribute(name, value);
    else frame.removeAttribute(name);
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
