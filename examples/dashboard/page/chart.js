/**
 * A chart: stacked areas over time, in SVG. Values below zero are stacked downwards.
 *
 * `draw` makes all of it again: a few hundred points a second cost about a millisecond, and there is no state to go wrong.
 */

import { roundUp } from "./units.js";

const HEIGHT = 150; // pixels
const FOOT = 20; // pixels below the areas, for the times
const HOLE = 2.5; // seconds between two samples that no line bridges
const LEAST_TOP = 10_000; // bytes a second: a quiet network is not a mountain range

/** @param {HTMLElement} figure */
export function createChart(figure, { series, values, top, format, headline }) {
  const plot = figure.querySelector(".plot");
  const legend = series.map(([name, pen]) => {
    const [item, value] = [document.createElement("li"), document.createElement("b")];
    item.dataset.pen = pen;
    item.append(name, " ", value);
    figure.querySelector(".legend").append(item);
    return value;
  });
  const chart = { draw, onpoint: () => {} };
  let shown = { from: 0, to: 1 };

  plot.addEventListener("pointermove", ({ offsetX }) => {
    chart.onpoint(shown.from + (offsetX / plot.clientWidth) * (shown.to - shown.from));
  });
  plot.addEventListener("pointerleave", () => chart.onpoint(null));
  return chart;

  function draw(samples, { from, to, at }) {
    shown = { from, to };
    const width = plot.clientWidth;
    const visible = samples.filter(({ time }) => time >= from);
    const rows = visible.map(({ data }) => stack(values(data)));
    const mirrored = !top; // what has no most, such as bytes a second, goes both ways
    const highest = top ? top(samples.at(-1).data) : roundUp(Math.max(LEAST_TOP, ...rows.flat(2).map(Math.abs)));
    const lowest = mirrored ? -highest : 0;
    const x = (time) => ((time - from) / (to - from)) * width;
    const y = (value) => 1 + (HEIGHT - 2) * (1 - (value - lowest) / (highest - lowest));

    const svg = make("svg", { viewBox: `0 0 ${width} ${HEIGHT + FOOT}`, height: HEIGHT + FOOT, role: "img" });
    const marks = mirrored ? [highest, 0, -highest] : [highest, highest / 2, 0];
    for (const mark of marks) svg.append(make("line", { class: "grid", x1: 0, x2: width, y1: y(mark), y2: y(mark) }));
    series.forEach(([, pen], n) => {
      for (const run of runs(visible)) {
        const upper = run.map((i) => `${x(visible[i].time).toFixed(1)},${y(rows[i][n][1]).toFixed(1)}`);
        const lower = run.map((i) => `${x(visible[i].time).toFixed(1)},${y(rows[i][n][0]).toFixed(1)}`).reverse();
        svg.append(make("path", { class: "area", "data-pen": pen, d: `M${[...upper, ...lower].join("L")}Z` }));
        svg.append(make("path", { class: "edge", "data-pen": pen, d: `M${upper.join("L")}` }));
      }
    });
    for (const { time, late } of visible) {
      if (late) svg.append(make("rect", { class: "late", x: x(time) - 1, y: HEIGHT, width: 2, height: 4 }));
    }
    for (const mark of marks) svg.append(label(format(mark), 4, y(mark) + (mark === marks.at(-1) ? -5 : 13)));
    svg.append(label(`−${span(to - from)}`, 0, HEIGHT + 16), label("now", width, HEIGHT + 16, "end"));
    const looked = at ?? samples.at(-1);
    if (at) svg.append(make("line", { class: "cross", x1: x(at.time), x2: x(at.time), y1: 0, y2: HEIGHT }));

    values(looked.data).forEach((value, n) => (legend[n].textContent = format(value)));
    figure.querySelector(".now").textContent = headline(looked.data);
    svg.setAttribute("aria-label", `${figure.querySelector("h2").textContent}: ${headline(looked.data)}`);
    plot.replaceChildren(svg);
  }
}

const span = (seconds) => (seconds < 120 ? `${seconds} s` : `${seconds / 60} min`);

/** Put values on each other: the positive ones upwards, the negative ones downwards. */
function stack(parts) {
  const ends = { up: 0, down: 0 };
  return parts.map((value) => {
    const side = value < 0 ? "down" : "up";
    const start = ends[side];
    ends[side] += value;
    return [start, ends[side]];
  });
}

/** The indexes of samples that follow each other without a hole. */
function runs(samples) {
  const found = [];
  samples.forEach(({ time }, i) => {
    if (i && time - samples[i - 1].time < HOLE) found.at(-1).push(i);
    else found.push([i]);
  });
  return found;
}

function make(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function label(text, x, y, anchor = "start") {
  const element = make("text", { x, y, "text-anchor": anchor });
  element.textContent = text;
  return element;
}
