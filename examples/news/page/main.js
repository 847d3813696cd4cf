/**
 * The feed: older items by `history`, new ones by the browser's own `EventSource`, which begins where the history ends.
 *
 * Each event has an id, its place in the log. A browser that lost its connection sends the last one as `Last-Event-ID`
 * with its next request, and the server goes on after it: nothing is missing and nothing comes twice.
 */

import { connect } from "./rt/oncecast.js";
import { createFeed } from "./feed.js";

const CATEGORIES = ["city", "science", "sport", "weather"];
const PAGE = 12; // items more for each "Show older items"
const AGAIN_MS = 2_000; // until an EventSource that has given up is opened again: after a 503 of a proxy, for example
const STATES = ["Connecting…", "Live by SSE", "Connection lost: trying again…"]; // by the readyState of the EventSource

const $ = (id) => document.getElementById(id);
const cast = connect("./rt/v1");
const feed = createFeed($("feed"));

let source = null; // the EventSource
let timer = 0; // until the next one
let chosen = []; // the channels
let asked = 0; // which `start` is the latest

/** Show the newest items of the chosen categories, then listen for more. */
async function start() {
  source?.close();
  clearTimeout(timer);
  const turn = ++asked;
  chosen = [...document.querySelectorAll("#categories :checked")].map(({ value }) => `news.${value}`);
  feed.clear();
  $("gap").hidden = true;
  if (!chosen.length) return showState("idle", "No category is chosen");
  showState("connecting", STATES[0]);
  try {
    const { messages, cursor } = await cast.history(chosen, { last: PAGE, timeout: Infinity });
    if (turn !== asked) return;
    feed.add(messages.slice(-PAGE)); // `last` is for each channel
    listen(cursor);
  } catch (error) {
    if (turn === asked) showState("waiting", error.message);
  }
  showCounts();
}

function listen(cursor) {
  let place = cursor;
  $("cursor").textContent = place;
  source = new EventSource(`./rt/v1/channels/${chosen.join(",")}?envelope=1&after=${encodeURIComponent(place)}`);
  source.onopen = () => showState("live", STATES[1]);
  source.onmessage = (event) => {
    $("cursor").textContent = place = event.lastEventId;
    feed.add([JSON.parse(event.data)], { live: true });
    showCounts();
  };
  source.addEventListener("gap", (event) => {
    $("cursor").textContent = place = event.lastEventId;
    $("gap").textContent = "Items are missing here: they were older than what the server keeps.";
    $("gap").hidden = false;
  });
  source.onerror = ({ target }) => {
    showState("waiting", STATES[2]);
    if (target.readyState === EventSource.CLOSED) timer = setTimeout(listen, AGAIN_MS, place); // the browser gave up
  };
}

$("older").addEventListener("click", async () => {
  const turn = asked;
  $("older").disabled = true;
  try {
    const count = feed.size + PAGE;
    const { messages } = await cast.history(chosen, { last: count });
    if (turn !== asked) return;
    const before = feed.addOlder(messages.slice(-count));
    if (!before) $("older").textContent = "There are no older items";
    else before.focus();
    showCounts();
  } catch (error) {
    $("gap").textContent = `Older items did not come: ${error.message}`;
    $("gap").hidden = false;
  } finally {
    $("older").disabled = false;
  }
});

$("write").addEventListener("submit", async (event) => {
  event.preventDefault();
  const title = $("title").value;
  $("written").textContent = "Sending…";
  try {
    const { id } = await cast.publish(`news.${$("category").value}`, { title });
    $("written").textContent = `It is in the log as ${id}.`;
    $("title").value = "";
  } catch (error) {
    $("written").textContent = error.message;
  }
});

function showState(state, words) {
  $("state").dataset.state = state;
  $("state").textContent = words;
}

function showCounts() {
  const { live, size } = feed;
  $("counts").textContent = `${size} items here, ${live} of them came live.`;
}

for (const category of CATEGORIES) {
  const [label, box, option] = ["label", "input", "option"].map((name) => document.createElement(name));
  Object.assign(box, { type: "checkbox", value: category, checked: true });
  label.append(box, category);
  option.textContent = option.value = category;
  $("categories").append(label);
  $("category").append(option);
  box.addEventListener("change", () => {
    $("older").textContent = "Show older items";
    start();
  });
}
start();
