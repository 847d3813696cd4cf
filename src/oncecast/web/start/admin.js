/**
 * The operator's page: the figures of `/v1/overview`, once a second, and the log of one channel.
 *
 * The key is typed here and kept in this tab's `sessionStorage` alone. What others have published is only ever text.
 */

import { ChannelLog } from "./admin-log.js";
import { address, element, find, write } from "./dom.js";
import * as format from "./format.js";

const LOOK_MS = 1_000;
const DEADLINE_MS = 10_000;
const KEY = "oncecast-server-key";
const TRANSPORTS = ["sse", "websocket", "long-poll"];

const status = find("#status");
const order = find("#order");
let before = null;

/** Ask the server, with the key if there is one. @param {string} path @param {RequestInit} [how] */
function ask(path, { headers = {}, ...how } = {}) {
  const key = sessionStorage.getItem(KEY);
  const identity = key ? { Authorization: `Bearer ${key}` } : {};
  return fetch(address(path), { cache: "no-store", ...how, headers: { ...headers, ...identity } });
}

const log = new ChannelLog(ask);

async function look() {
  let closed = false;
  let none = false; // a server without keys, or one that gives no overview: asking again changes nothing
  try {
    const listeners = log.shown ? `&channel=${encodeURIComponent(log.shown)}` : "";
    const answer = await ask(`v1/overview?order=${order.value}&limit=100${listeners}`, {
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const body = await answer.json();
    closed = answer.status === 401 || answer.status === 403;
    none = answer.status === 404;
    if (answer.ok) show(body);
    say(status, answer.ok ? "" : (body.error?.message ?? `The server answers ${answer.status}.`));
    if (closed) find("#view").hidden = true;
  } catch {
    say(status, "The server does not answer. These figures are old; asking again.");
  }
  find("#key-form").hidden = !closed;
  if (!closed && !none) setTimeout(look, LOOK_MS);
}

/** Write into a place that is not there while it says nothing. @param {HTMLElement} place @param {string} text */
function say(place, text) {
  place.hidden = !text;
  write(place, text);
}

function show(now) {
  const { node, connections, subscriptions, messages, channels } = now;
  find("#view").hidden = false;
  find("#forget").hidden = sessionStorage.getItem(KEY) === null;
  const workers = node.workers === 1 ? "1 process" : `${format.whole(node.workers)} processes`;
  const silent = node.silent ? `, ${node.silent} silent` : "";
  const state = node.ready ? "ready" : `not ready: ${node.reasons.join("; ") || "a process is silent"}`;
  figure("node", `${state} · ${workers}${silent} · ${node.broker} · log ${node.epoch}-${node.head} · ${node.version}`);
  figure("connections", format.whole(connections.open));
  for (const name of TRANSPORTS) figure(name, format.whole(connections.listeners[name] ?? 0));
  figure("behind", format.whole(subscriptions.catching_up + subscriptions.blocked));
  const seconds = before ? now.time - before.time : 0;
  const rate = (of) => (seconds > 0 ? `${(Math.max(0, of(now) - of(before)) / seconds).toFixed(1)}/s` : "–");
  figure("short-poll", rate((each) => each.connections.listens["short-poll"] ?? 0));
  figure("published", rate((each) => each.messages.published));
  figure("delivered", rate((each) => each.messages.delivered));
  const incomplete = channels.complete ? "" : "; some listeners may be missing";
  figure("total", `${format.whole(channels.listed.length)} of ${format.whole(channels.total)}${incomplete}`);
  rows("#channels", channels.listed, "Nothing is published, and nobody listens.", (row) => [
    row.name,
    row.rate.toFixed(1),
    format.whole(row.listeners),
    format.whole(row.behind),
    format.whole(row.lag),
  ]);
  rows("#refusals", now.refusals.slice(0, 20), "Nothing was refused.", (row) => [
    row.code,
    row.transport,
    format.whole(row.count),
  ]);
  rows("#workers", now.workers, "No process has answered.", (row) => [
    String(row.pid),
    row.unready ?? "ready",
    format.whole(row.connections),
    format.bytes(row.memory_bytes),
  ]);
  rows("#nodes", now.nodes, "No node has answered.", (row) => [
    row.this ? `${row.name} (this one)` : row.name,
    [row.unready.join("; ") || "ready", ...(row.processes > 1 ? [`${row.processes} processes`] : [])].join(" · "),
    format.whole(row.connections),
    row.versions.join(", "),
  ]);
  showListeners(now.listeners?.channel === log.shown ? now.listeners : null); // another may have been opened meanwhile
  figure("restarts", node.restarts ? `${format.whole(node.restarts)} restarted` : "");
  before = now;
}

/** Say who listens to the channel whose log is shown. */
function showListeners(listeners) {
  find("#listening").hidden = !listeners;
  if (!listeners) return;
  const { listed, total } = listeners;
  const some = listed.length < total ? `, of which ${format.whole(listed.length)} are listed` : "";
  figure("listeners", `${format.whole(total)} at this node${some}`);
  rows("#listeners", listed, "Nobody listens.", (row) => [
    whoIs(row),
    row.transport,
    row.address || "–",
    format.whole(row.lag),
  ]);
}

function whoIs({ kind, subject }) {
  if (kind === "anybody") return "without a token";
  return kind === "server" ? `the key ${subject}` : (subject ?? "a token without a user");
}

/** @param {string} name @param {string} text */
function figure(name, text) {
  write(find(`[data-figure=${name}]`), text);
}

/** Fill a table, changing only the cells that differ, so that what has the focus keeps it. */
function rows(selector, items, none, cells) {
  const body = find(`${selector} tbody`);
  const columns = find(`${selector} thead tr`).cells.length;
  const wanted = items.length ? items.map(cells) : [[none]];
  while (body.rows.length > wanted.length) body.deleteRow(-1);
  wanted.forEach((texts, at) => {
    const row = body.rows[at] ?? body.insertRow();
    while (row.cells.length > texts.length) row.deleteCell(-1);
    row.classList.toggle("late", Boolean(items[at]?.behind || items[at]?.lag || items[at]?.unready?.length));
    texts.forEach((text, column) => {
      const cell = row.cells[column] ?? row.insertCell();
      cell.colSpan = items.length ? 1 : columns;
      const named = selector === "#channels" && column === 0 && items.length > 0;
      if (named !== Boolean(cell.querySelector("button"))) cell.replaceChildren();
      if (!named) write(cell, text);
      else {
        const button = cell.querySelector("button") ?? cell.appendChild(element("button", "", "link"));
        button.type = "button";
        write(button, text);
      }
    });
  });
}

find("#channels").addEventListener("click", (event) => {
  const button = event.target instanceof Element && event.target.closest("button");
  if (!button) return;
  log.open(button.textContent ?? "");
  find("#log-title").focus(); // which brings it into view, and a reader of the screen to it
});

find("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = find("#key-form [name=key]");
  sessionStorage.setItem(KEY, field.value.trim());
  field.value = "";
  look();
});

find("#drain").addEventListener("click", async () => {
  if (!confirm("Drain this node? It accepts no more connections, sends its listeners to other nodes, and ends.")) return;
  const result = find("#drain-result");
  try {
    const answer = await ask("v1/drain", { method: "POST", signal: AbortSignal.timeout(DEADLINE_MS) });
    const body = await answer.json();
    say(result, answer.ok ? "The node drains, and ends." : body.error.message);
  } catch {
    say(result, "The server has not answered: look at its log.");
  }
});

find("#forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});

look();
