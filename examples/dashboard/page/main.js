/**
 * The dashboard. `subscribe` with `last` brings the history from the channel's log, and then each new sample; after a
 * cut the client goes on from its place, so the charts have no hole.
 */

import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";
import { createChart } from "./chart.js";
import { amount, percent } from "./units.js";

const KEPT = 900; // samples: a quarter of an hour
const TOGETHER_MS = 300; // samples that come closer than this to each other were waiting for us

const $ = (id) => document.getElementById(id);
const rate = (bytes) => `${amount(bytes)}/s`;

/** Each chart: its series, from the bottom up, and what of a sample they are. Below zero is drawn downwards. */
const charts = [
  createChart($("cpu"), {
    series: [["programs", "red"], ["kernel", "violet"], ["waiting for disks", "amber"]],
    values: ({ cpu }) => cpu,
    top: () => 100,
    format: percent,
    headline: ({ cpu, load }) => `${percent(cpu[0] + cpu[1])} · load ${load[0].toFixed(1)}`,
  }),
  createChart($("memory"), {
    series: [["used", "blue"], ["cache", "grey"]],
    values: ({ memory }) => memory.slice(0, 2),
    top: ({ memory }) => memory[2],
    format: amount,
    headline: ({ memory }) => `${amount(memory[0])} of ${amount(memory[2])}`,
  }),
  createChart($("network"), {
    series: [["received", "green"], ["sent", "blue"]],
    values: ({ network }) => [network[0], -network[1]],
    format: rate,
    headline: ({ network }) => rate(network[0] + network[1]),
  }),
  createChart($("disk"), {
    series: [["read", "violet"], ["written", "red"]],
    values: ({ disk }) => [disk[0], -disk[1]],
    format: rate,
    headline: ({ disk }) => rate(disk[0] + disk[1]),
  }),
];

export const samples = []; // { id, time, data, late }, the oldest first
const counts = { replayed: 0, live: 0, late: 0, gaps: 0 };
let phase = "replayed"; // what the next sample is: from before we came, live, or late after a cut
let arrival = null; // when the last sample came by this connection

const cast = connect("./rt/v1");
showState(cast, $("state"));
cast.on("state", ({ from, to }) => {
  if (from === "live" && samples.length) phase = "late";
  if (to === "live") arrival = null;
});

const machine = cast.subscribe("machine", { last: KEPT });
machine.on("gap", () => (counts.gaps += 1));
machine.on("message", ({ id, time, data }) => {
  const now = performance.now();
  if (arrival !== null && now - arrival > TOGETHER_MS) phase = "live";
  arrival = now;
  counts[phase] += 1;
  samples.push({ id, time, data, late: phase === "late" });
  if (samples.length > KEPT) samples.shift();
  draw();
});

/** Draw at most once a frame, however many samples come at once. */
let asked = 0;
function draw() {
  asked ||= requestAnimationFrame(() => {
    asked = 0;
    show();
  });
}

function show() {
  if (!samples.length) return;
  const back = Number($("back").value);
  const newest = samples.at(-1).time;
  const at = nearest(newest + back);
  const window = Number(document.querySelector("[name=window]:checked").value);
  for (const chart of charts) chart.draw(samples, { from: newest - window, to: newest, at: back ? at : null });
  showCores(at.data.cores);
  $("at").textContent = back ? `${Math.round(newest - at.time)} s ago` : "now";
  const parts = [`${counts.replayed} from the log when you came`, `${counts.live} live`];
  if (counts.late) parts.push(`${counts.late} caught up after a cut`);
  if (counts.gaps) parts.push(`gaps: ${counts.gaps}`);
  $("counts").textContent = `Samples: ${parts.join(", ")}.`;
}

const nearest = (time) => samples.reduce((best, each) => (Math.abs(each.time - time) < Math.abs(best.time - time) ? each : best));

function showCores(cores) {
  const bars = cores.slice(0, 256).map((load) => {
    const bar = document.createElement("i");
    bar.style.setProperty("--load", load / 100);
    return bar;
  });
  document.querySelector(".cores").replaceChildren(...bars);
  document.querySelector(".cores").ariaLabel = `${cores.length} cores, the busiest at ${percent(Math.max(...cores))}`;
}

/** The pointer over a chart looks back; when it leaves, the page is at now again. */
for (const chart of charts) {
  chart.onpoint = (time) => {
    $("back").value = time === null || !samples.length ? 0 : Math.min(0, time - samples.at(-1).time);
    draw();
  };
}
$("back").addEventListener("input", draw);
for (const radio of document.querySelectorAll("[name=window]")) {
  radio.addEventListener("change", () => {
    $("back").min = -radio.value;
    draw();
  });
}
new ResizeObserver(draw).observe(document.querySelector(".charts"));
