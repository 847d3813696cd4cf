/**
 * The page /compare: this page publishes, and hears each message four times, once in each way.
 *
 * The channel is the page's own. It publishes one message after the other, so that their order is that of their
 * numbers; while the page is hidden it publishes nothing, as a browser slows the timers of hidden pages.
 */

import { Announcer } from "./announcer.js";
import { now } from "./clock.js";
import { Lane } from "./compared.js";
import { evenInterval } from "./costs.js";
import { find, write } from "./dom.js";
import * as format from "./format.js";
import { keepDrawing } from "./frames.js";
import { Inspector } from "./inspector.js";
import { publish } from "./publish.js";
import { LongPoll, ServerSentEvents, ShortPoll, WebSockets } from "./transports.js";

const CHANNEL = `demo.compare.${Math.random().toString(36).slice(2, 10)}`;
const RENDER_MS = 500;
const CUT_MS = 5_000;
const KEPT = 400; // times of publishes, for the pictures
const OPEN_MS = 5_000; // for all lanes to listen, before the first publish
const RETRY_MS = 3_000; // after a publish that was refused

/** The values of each slider, from its left to its right end. @type {Record<string, number[]>} */
const STEPS = {
  rate: [0.2, 0.5, 1, 2, 5, 10, 20], // messages a second
  interval: [200, 500, 1_000, 2_000, 5_000, 10_000], // milliseconds
  distance: [0, 10, 25, 50, 100, 200, 400], // milliseconds each way
  size: [32, 128, 512, 2_048, 8_192], // bytes of JSON
};

/** @type {import("./compared.js").Kind[]} */
const KINDS = [
  { kind: "short-poll", title: "Short polling", how: "asks again and again", Transport: ShortPoll },
  { kind: "long-poll", title: "Long polling", how: "asks, and the server waits", Transport: LongPoll },
  { kind: "sse", title: "Server-Sent Events", how: "asks once, the answer never ends", Transport: ServerSentEvents },
  { kind: "websocket", title: "WebSocket", how: "asks once to upgrade, then frames both ways", Transport: WebSockets },
];

const announcer = new Announcer(find("#announcer"));
const controls = find("#controls");
/** Numbers whose publish had no answer: each may be in the log or not. @type {Set<number>} */
const doubtful = new Set();
const lanes = KINDS.map((kind) => new Lane(kind, CHANNEL, find("#lane-template"), doubtful));
const inspectors = lanes.map(({ element, kind }) => new Inspector(find("details", element), kind));
const chosen = { rate: 2, interval: 1_000, distance: 0, size: 128 };
const began = now();

/** When each message was published, on this page's clock. @type {number[]} */
const published = [];
let number = 0;
/** The number that was the newest when the network came back, until all lanes are past it. @type {number | null} */
let behind = null;

/** @param {keyof typeof chosen} name */
function choose(name) {
  const slider = find(`[name=${name}]`, controls);
  chosen[name] = STEPS[name][Number(slider.value)];
  const text = {
    rate: `${chosen.rate} a second`,
    interval: format.duration(chosen.interval),
    distance: chosen.distance ? `${chosen.distance} ms each way` : "none",
    size: format.bytes(chosen.size),
  }[name];
  slider.setAttribute("aria-valuetext", text);
  write(find(`[data-value=${name}]`), text);
  for (const lane of lanes) {
    lane.distance = chosen.distance;
    if (lane.kind === "short-poll") lane.transport.interval = chosen.interval;
  }
}

async function publishForEver() {
  // What is published before a lane listens would look as if it had been caught up.
  const patience = now() + OPEN_MS;
  while (lanes.some(({ transport }) => transport.state !== "live") && now() < patience) await pass(50);
  for (;;) {
    const asked = now();
    let pause = 1_000 / chosen.rate;
    if (!document.hidden) {
      const message = { n: number + 1, at: asked, pad: "" };
      message.pad = "x".repeat(Math.max(0, chosen.size - JSON.stringify(message).length));
      try {
        published.push(asked);
        if (published.length > KEPT) published.shift();
        await publish(CHANNEL, JSON.stringify(message));
        number = message.n;
        find("#quiet").hidden = true;
      } catch (error) {
        published.pop();
        if (error instanceof TypeError) doubtful.add((number = message.n)); // its number is not used again
        const said = error instanceof Error ? error.message : String(error);
        write(find("#quiet"), `This page can't publish on ${CHANNEL}: ${said} To try it, start a server with oncecast serve --dev.`);
        find("#quiet").hidden = false;
        pause = RETRY_MS;
      }
    }
    await pass(Math.max(0, pause - (now() - asked)));
  }
}

/** @param {number} milliseconds */
function pass(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** @param {string} kind @param {Record<string, string>} figures */
function renderRow(kind, figures) {
  for (const [name, text] of Object.entries(figures)) write(find(`tr[data-pen=${kind}] [data-figure=${name}]`), text);
}

function renderVerdict() {
  const [short, , sse, socket] = lanes;
  const heard = Math.min(...lanes.map(({ counts }) => counts.messages));
  if (heard < 5 || !short.counts.polls) return;
  const each = (/** @type {Lane} */ { counts }) => (counts.up + counts.down) / counts.messages;
  const { requests, empty } = short.transport.counters;
  const times = each(short) / each(socket);
  const even = evenInterval(short.overhead, sse.overhead, chosen.rate);
  write(
    find("#verdict"),
    `In ${format.duration(now() - began)} short polling asked ${format.plural(requests, "time")}, ` +
      `${format.whole(empty)} of them for nothing, and moved ${format.bytes(each(short))} for each message; ` +
      `the WebSocket moved ${format.bytes(each(socket))}${times > 1.2 ? `, ${times.toFixed(1)} times less` : ""}. ` +
      `To cost no more bytes than Server-Sent Events at this rate, short polling could ask only once in ` +
      `${format.duration(1_000 * even)}, and each message would come ${format.duration(500 * even)} late on average.`,
  );
}

/** Cut all four, and let them come back a moment later. */
function cutNetwork() {
  const button = find("[data-action=cut]");
  button.disabled = true;
  for (const lane of lanes) lane.transport.cut();
  announcer.say("The network of all four is cut. Publishing goes on.");
  const end = now() + CUT_MS;
  const timer = setInterval(() => {
    const left = end - now();
    button.textContent = left > 0 ? `Back in ${Math.ceil(left / 1000)} s` : "Cut the network";
    if (left > 0) return;
    clearInterval(timer);
    button.disabled = false;
    behind = number; // a poll is never at what is the newest now
    for (const lane of lanes) lane.transport.start();
  }, 200);
}

function renderRecovery() {
  const until = behind;
  if (until === null || lanes.some(({ newest }) => newest < until)) return;
  behind = null;
  const all = lanes.every((lane) => lane.isSound);
  announcer.say(all ? "All four have caught up: nothing is missing, nothing came twice." : "A listener missed a message.");
}

function render() {
  lanes.forEach((lane, index) => {
    const { figures } = lane;
    lane.render(figures.p50);
    renderRow(lane.kind, figures);
    inspectors[index].render(lane.seen, chosen.distance);
  });
  renderVerdict();
  renderRecovery();
}

function draw() {
  for (const lane of lanes) lane.draw(published);
}

find("#lanes").append(...lanes.map(({ element }) => element));
for (const name of /** @type {(keyof typeof chosen)[]} */ (Object.keys(STEPS))) {
  const slider = find(`[name=${name}]`, controls);
  slider.max = STEPS[name].length - 1;
  slider.value = STEPS[name].indexOf(chosen[name]);
  slider.addEventListener("input", () => choose(name));
  choose(name);
}
for (const hold of document.querySelectorAll("[data-action=hold]")) {
  hold.addEventListener("click", () => hold.setAttribute("aria-pressed", String(hold.getAttribute("aria-pressed") !== "true")));
}
find("[data-action=cut]").addEventListener("click", cutNetwork);
for (const lane of lanes) lane.transport.start();
publishForEver();
keepDrawing(RENDER_MS, render, draw);
