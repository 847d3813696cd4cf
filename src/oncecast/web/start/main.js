/**
 * The page: four listeners to the same two channels, a form that publishes, and a clock that draws.
 *
 * Each listener has both channels on one connection. A browser opens at most six connections to a host over
 * HTTP/1.1; with one per channel, none would be left for publishes.
 */

import { Announcer } from "./announcer.js";
import { Arrivals } from "./arrivals.js";
import { Clock, now } from "./clock.js";
import { address, find, write } from "./dom.js";
import * as format from "./format.js";
import { keepDrawing } from "./frames.js";
import { Panel } from "./panel.js";
import { bringToLife } from "./publish.js";
import { fill } from "./snippets.js";
import { Tape } from "./tape.js";
import { LongPoll, ServerSentEvents, ShortPoll, WebSockets } from "./transports.js";

const MACHINE = "demo.machine";
const CHAT = "demo.chat";

const RENDER_MS = 250; // numbers that change faster than this can't be read
const NOTABLE = 8; // two seconds' worth: a poll is always a little behind

/** @type {import("./panel.js").Setting[]} */
const SETTINGS = [
  {
    kind: "short-poll",
    title: "Short polling",
    how: "GET ?after=C, each second",
    bytesNote: "Bytes of the answers' bodies.",
    Transport: ShortPoll,
  },
  {
    kind: "long-poll",
    title: "Long polling",
    how: "GET ?after=C&wait=25",
    bytesNote: "Bytes of the answers' bodies.",
    Transport: LongPoll,
  },
  {
    kind: "sse",
    title: "Server-Sent Events",
    how: "new EventSource(url)",
    bytesNote: "Bytes of the events, computed from their fields; heartbeats are not seen.",
    Transport: ServerSentEvents,
  },
  {
    kind: "websocket",
    title: "WebSocket",
    how: "new WebSocket(url, …)",
    bytesNote: "Bytes of the frames' payloads.",
    Transport: WebSockets,
  },
];

const opened = now();
const clock = new Clock();
const announcer = new Announcer(find("#announcer"));
const arrivals = new Arrivals(
  find("#arrivals"),
  SETTINGS.map(({ kind }) => kind),
  CHAT,
);
const tape = new Tape(find("#tape"));
const toggleAll = find("[data-action=toggle-all]");

const panels = SETTINGS.map(
  (setting) =>
    new Panel(setting, {
      template: find("#panel-template").content,
      channels: [MACHINE, CHAT],
      clock,
      announcer,
      onDelivery: deliver,
      onState: follow,
    }),
);

/**
 * @param {Panel} panel
 * @param {import("./transport.js").Message} message
 * @param {import("./panel.js").Delivery} delivery
 */
function deliver(panel, message, delivery) {
  if (message.channel === CHAT) {
    arrivals.arrived(panel.kind, message, delivery, clock.local(message.time) < opened);
  }
  arrivals.passed(panel.kind, message.time, panel);
  // Three transports receive every event; they pass its name to the EventSource, which needs it to listen.
  if (message.event) hearEvent(message.event);
}

/** @param {Panel} panel */
function follow(panel) {
  arrivals.away(panel.kind, panel.isCut);
  renderToggleAll();
}

/** @param {string} name */
function hearEvent(name) {
  for (const { transport } of panels) if (transport instanceof ServerSentEvents) transport.listenFor(name);
}

function renderToggleAll() {
  const all = panels.every((panel) => panel.isCut);
  toggleAll.textContent = all ? "Reconnect all" : "Cut all";
}

toggleAll.addEventListener("click", () => {
  const all = panels.every((panel) => panel.isCut);
  for (const panel of panels) {
    if (all) panel.reconnect();
    else if (!panel.isCut) panel.cut();
  }
});

/**
 * Messages per second, by the `time` of the messages of the last ten seconds.
 * @param {readonly import("./exchange.js").Sample[]} samples
 */
function rate(samples) {
  const recent = samples.slice(-41);
  if (recent.length < 2) return "–";
  const seconds = (recent[recent.length - 1].at - recent[0].at) / 1000;
  return seconds > 0 ? `${((recent.length - 1) / seconds).toFixed(1)} / s` : "–";
}

/** The facts about the server, from the listener with the newest message. */
function renderFacts() {
  const { machine: data, samples } = furthest();
  if (!data) return;
  const { cores = [], memory = {}, network = {}, load = [] } = data;
  const facts = {
    rate: rate(samples),
    cpu: `${format.percent(data.cpu)} of ${format.plural(cores.length, "core")}`,
    memory: `${format.bytes(memory.used)} of ${format.bytes(memory.total)}`,
    load: load.map((/** @type {number} */ value) => value.toFixed(2)).join("  "),
    network: `↓ ${format.bytes(network.rx)}/s  ↑ ${format.bytes(network.tx)}/s`,
    clock: clock.offset === 0 ? "in step" : `${format.duration(Math.abs(clock.offset))} apart, corrected`,
  };
  for (const [name, text] of Object.entries(facts)) write(find(`[data-fact=${name}]`), text);
}

/** When the newest message that a panel has was published. @param {Panel} panel */
function lastAt(panel) {
  return panel.samples.at(-1)?.at ?? -Infinity;
}

function render() {
  const head = furthest().samples.at(-1)?.n ?? 0;
  for (const panel of panels) {
    panel.render(head);
    write(find(`[data-behind=${panel.kind}]`), panel.standing(head, NOTABLE));
  }
  find("#quiet").hidden = !panels.every((panel) => panel.hearsNothing);
  renderFacts();
}

function draw() {
  const edge = clock.serverNow;
  const published = [...new Set(panels.flatMap(({ samples }) => samples.map(({ at }) => at)))];
  for (const panel of panels) panel.draw(edge, published);
  tape.draw(
    panels.map(({ kind, samples, transport }) => ({
      samples,
      color: `--${kind}`,
      live: transport.state === "live",
    })),
    edge,
  );
}

/** The panel with the newest message. */
function furthest() {
  return panels.reduce((best, panel) => (lastAt(panel) > lastAt(best) ? panel : best));
}

find("#panels").append(...panels.map((panel) => panel.element));
find("[data-fact=server]").textContent = address("").href.replace(/^https?:\/\/|\/$/g, "");
fill(find("#snippets"), find("#snippet-template").content, (sentence) => announcer.say(sentence));
bringToLife(find("#publish-form"), find("#publish-result"), {
  heard: CHAT,
  onBefore: hearEvent,
  onPublished(id, data, channel) {
    if (channel === CHAT) arrivals.published(id, data);
  },
});
for (const panel of panels) panel.transport.start();
keepDrawing(RENDER_MS, render, draw);
