/** The page of the ticker: all symbols as a map, and a table of those that are looked for or moved most. */

import { connect } from "./rt/oncecast.js";
import { showState } from "./shared/state.js";

const ROWS = 12; // of the table
const FULL = 0.05; // a change that is drawn in full colour

const $ = (id) => document.getElementById(id);
const symbols = await (await fetch("./symbols")).json();
const cast = connect("./rt", { buffer: 1, shareTabs: false }); // no queue in the page: a slow one reads on from the newest
const map = $("map");
const pen = map.getContext("2d");
const percent = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 2, signDisplay: "always" });

let first = null; // the prices when the page was opened
let prices = null;
let tick = 0;
let shown = 0;
let skipped = 0;
let grid = { columns: 1, width: 1, height: 1 };
let under = null; // where the pointer is

showState(cast, $("state"));
$("count").textContent = symbols.length.toLocaleString("en");
new ResizeObserver(resize).observe(map);
$("search").addEventListener("input", showRows);
map.addEventListener("pointermove", showUnder);
map.addEventListener("pointerleave", () => { $("under").textContent = ""; });
await listen();

async function listen() {
  const market = cast.subscribe("prices", { last: 1 });
  market.on("gap", () => {}); // what was skipped is counted by the tick's number
  for await (const { data, time } of market) {
    const [number, ...all] = new Float32Array(data.slice().buffer);
    if (all.length !== symbols.length) continue;
    if (number > tick && tick > 0) skipped += number - tick - 1;
    tick = number; // the server's restart begins again at 1
    prices = all;
    first ??= all;
    shown += 1;
    show(Date.now() / 1000 - time);
    const pause = Number($("pause").value);
    if (pause) await new Promise((wake) => setTimeout(wake, pause)); // as a page that is busy
  }
}

function show(age) {
  $("tick").textContent = String(tick);
  $("shown").textContent = String(shown);
  $("skipped").textContent = String(skipped);
  $("age").textContent = `${Math.max(0, age).toFixed(2)} s`; // two clocks: the server's and this one's
  draw();
  showRows();
  showUnder();
}

function change(index) {
  return prices[index] / first[index] - 1;
}

function draw() {
  if (!prices) return;
  const style = getComputedStyle(map);
  const colours = [style.getPropertyValue("--fall"), style.getPropertyValue("--rise")];
  pen.clearRect(0, 0, map.width, map.height);
  for (let index = 0; index < prices.length; index += 1) {
    const by = change(index);
    pen.fillStyle = `rgba(${colours[Number(by > 0)]}, ${Math.min(1, Math.abs(by) / FULL)})`;
    const left = Math.round((index % grid.columns) * grid.width);
    const top = Math.round(Math.floor(index / grid.columns) * grid.height);
    pen.fillRect(left, top, grid.width - 1, grid.height - 1);
  }
}

/** Fit a cell for each symbol into the map, whatever its size. */
function resize() {
  const scale = devicePixelRatio;
  [map.width, map.height] = [map.clientWidth * scale, map.clientHeight * scale];
  const columns = Math.max(1, Math.round(Math.sqrt((symbols.length * map.width) / map.height)));
  grid = { columns, width: map.width / columns, height: map.height / Math.ceil(symbols.length / columns) };
  draw();
}

function showRows() {
  if (!prices) return;
  const wanted = $("search").value.trim().toUpperCase();
  const found = [...symbols.keys()].filter((index) => symbols[index].startsWith(wanted));
  if (!wanted) found.sort((a, b) => Math.abs(change(b)) - Math.abs(change(a)));
  $("rows").replaceChildren(
    ...found.slice(0, ROWS).map((index) => {
      const row = document.createElement("tr");
      for (const text of [symbols[index], prices[index].toFixed(2), percent.format(change(index))]) {
        row.insertCell().textContent = text;
      }
      row.cells[1].className = "number";
      row.cells[2].className = `number ${change(index) < 0 ? "falls" : "rises"}`;
      return row;
    }),
  );
}

function showUnder(event) {
  if (event) under = [event.offsetX * devicePixelRatio, event.offsetY * devicePixelRatio];
  if (!prices || !under || !map.matches(":hover")) return;
  const index = Math.floor(under[1] / grid.height) * grid.columns + Math.floor(under[0] / grid.width);
  const text = index < symbols.length ? `${symbols[index]} ${prices[index].toFixed(2)} ${percent.format(change(index))}` : "";
  $("under").textContent = text;
}
