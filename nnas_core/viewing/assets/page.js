"use strict";
// The drawing, its slider and details; curves and fronts; news of a run that goes on. Texts are put in as text only.
const byId = (id) => document.getElementById(id);
const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = shown(text);
  if (className) made.className = className;
  return made;
};
// What would turn or hide a text is shown as an escape, as in the terminal.
const shown = (text) =>
  String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (one) => "\\u" + one.codePointAt(0).toString(16).padStart(4, "0"));
// Of its own: a key may be named as what every object has.
const get = (object, key) => (object && Object.hasOwn(object, key) ? object[key] : undefined);
const number = (value) => (value === null || value === undefined ? "-" : String(Number(value.toPrecision(6))));
const named = (name) => (name === "" ? "(unnamed)" : name);
const whole = (value) => (value === null ? "-" : value.toLocaleString("en"));
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let view = JSON.parse(byId("view").textContent);
let pinned = null; // the decisions of a trial that somebody picked: [[indices], ...]
let pinnedName = "";

// ---- the network

const boxes = Array.from(document.querySelectorAll("#graph .box"));
const weighed = () => view.epochs.filter((one) => one.weights !== null);
let atEpoch = null;

function weightsNow() {
  const steps = weighed();
  if (steps.length === 0) return view.weights;
  return steps[Math.min(atEpoch ?? steps.length - 1, steps.length - 1)].weights;
}

function isChosen(index, candidate) {
  if (pinned !== null) return pinned[index].includes(candidate);
  const mask = get(view.architecture, view.choices[index].key);
  return Boolean(mask) && mask[candidate] > 0;
}

// A drawing of thousands of lines changes only where it is seen; the rest when it comes into sight.
const stale = new Set();
const seen = new Set();
const wires = new Map(); // choice -> its lines outside of its box
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const index = Number(entry.target.id.slice(1));
    if (!entry.isIntersecting) seen.delete(index);
    else if (seen.add(index) && (filled(index) || stale.delete(index))) drawChoice(index);
  }
}, { root: byId("graph"), rootMargin: "600px" });
for (const box of boxes) watcher.observe(box);

// The candidates of a choice are drawn when it comes into sight first: a thousand choices have ten thousands of lines.
const insides = boxes.length ? JSON.parse(byId("insides").textContent) : [];
function filled(index) {
  if (insides[index] === null) return false;
  const text = '<svg xmlns="http://www.w3.org/2000/svg"><g class="inside">' + insides[index] + "</g></svg>";
  const drawn = new DOMParser().parseFromString(text, "image/svg+xml");
  boxes[index].append(document.importNode(drawn.documentElement.firstElementChild, true));
  insides[index] = null;
  stale.delete(index);
  return true;
}

function drawWeights() {
  boxes.forEach((_, index) => (seen.has(index) ? drawChoice(index) : stale.add(index)));
}

function linesOf(index) {
  if (wires.size === 0) {
    for (const one of document.querySelectorAll("#graph .wires [data-c]")) {
      const of = Number(one.getAttribute("data-c").split(".")[0]);
      wires.set(of, [...(wires.get(of) || []), one]);
    }
  }
  return wires.get(index) || [];
}

function drawChoice(index) {
  const choice = view.choices[index];
  const row = get(weightsNow(), choice.key);
  const taken = choice.candidates.map((_, candidate) => isChosen(index, candidate));
  const lines = [...boxes[index].querySelectorAll("[data-c]"), ...linesOf(index)];
  for (const line of lines) {
    const candidate = Number(line.getAttribute("data-c").split(".")[1]);
    const weight = row ? Math.max(0, Math.min(1, row[candidate])) : null;
    line.classList.toggle("chosen", taken[candidate]);
    line.setAttribute("stroke-width", (0.8 + 5.2 * (weight ?? 0.1)).toFixed(2));
    const share = line.nextElementSibling; // in a box: its bar, its name, its number
    if (!share || !share.classList.contains("share")) continue;
    const name = share.nextElementSibling;
    share.classList.toggle("chosen", taken[candidate]);
    share.setAttribute("width", (164 * (weight ?? 0)).toFixed(1));
    name.classList.toggle("chosen", taken[candidate]);
    name.nextElementSibling.textContent = weight === null ? "" : weight.toFixed(2);
  }
  const chosen = choice.candidates.filter((_, candidate) => taken[candidate]).map(named).join(", ");
  const words = choice.key + ": " + choice.candidates.length + " candidates" + (chosen && ", chosen " + chosen);
  boxes[index].setAttribute("aria-label", shown(words));
}

function legend() {
  const steps = weighed();
  let widths = view.meaning;
  if (steps.length) widths = "decision weights after epoch " + steps[Math.min(atEpoch ?? steps.length - 1, steps.length - 1)].epoch;
  let path = view.architecture ? (view.trials ? "the best trial" : "the architecture") : "";
  if (pinned !== null) path = pinnedName;
  const keys = new Set(view.choices.map((one) => one.key));
  const known = view.choices.some((one) => one.kind === "input_choice" && one.candidates.some((name) => keys.has(name)));
  byId("legend").textContent = [
    path && "In colour: " + path + ".",
    widths && "Width of lines: " + widths + ".",
    known ? "" : view.choices.length > 1 ? "Choices stand in the order of their keys: how they are connected, a search space does not say." : "",
  ].filter(Boolean).join(" ");
}

function slider() {
  const steps = weighed();
  const input = byId("epoch");
  byId("epoch-tool").hidden = steps.length < 2;
  input.max = Math.max(0, steps.length - 1);
  if (atEpoch === null) input.value = steps.length - 1;
  const step = steps[Number(input.value)];
  const text = step ? step.epoch + " of " + steps[steps.length - 1].epoch : "";
  byId("epoch-text").textContent = text;
  input.setAttribute("aria-valuetext", "epoch " + text);
}

let detailed = -1;
function details(index) {
  detailed = index;
  const choice = view.choices[index];
  const panel = byId("details");
  const row = get(weightsNow(), choice.key);
  const costs = choice.costs;
  const columns = [["candidate", (c) => named(choice.candidates[c])]];
  if (row) columns.push(["weight", (c) => row[c].toFixed(4)]);
  if (costs.some((one) => one.parameters !== null)) columns.push(["parameters", (c) => whole(costs[c].parameters)]);
  if (costs.some((one) => one.macs !== null)) columns.push(["MACs", (c) => whole(costs[c].macs)]);
  if (costs.some((one) => one.latency_ms !== null)) columns.push(["ms", (c) => number(costs[c].latency_ms)]);
  if (costs.some((one) => one.output !== null)) columns.push(["output", (c) => (costs[c].output || ["-"]).join("x") || "number"]);
  const takes = choice.n_chosen === null ? "any number" : choice.n_chosen;
  const kind = choice.kind === "input_choice" ? "input choice" : "layer choice";
  const body = choice.candidates.map((_, c) => ({ cells: columns.map((one) => one[1](c)), chosen: isChosen(index, c) }));
  panel.replaceChildren(element("h3", choice.key), element("p", kind + ", takes " + takes + " of " + choice.candidates.length), table(columns.map((one) => one[0]), body));
}

function table(heads, rows) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  for (const one of heads) {
    const cell = element("th", one);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    if (row.chosen) line.className = "chosen";
    row.cells.forEach((cell, place) => line.append(element("td", cell + (row.chosen && place === 0 ? " (chosen)" : ""))));
  }
  return made;
}

let current = 0;
function go(to) {
  current = Math.max(0, Math.min(boxes.length - 1, to));
  boxes[current].focus({ preventScroll: true });
  if (filled(current)) drawChoice(current);
  boxes[current].scrollIntoView({ block: "nearest", inline: "nearest" });
  details(current);
}

if (boxes.length) {
  const graph = byId("graph");
  const numberOf = (target) => {
    const box = target.closest && target.closest(".box");
    return box ? Number(box.id.slice(1)) : -1;
  };
  graph.addEventListener("pointerover", (event) => {
    const index = numberOf(event.target);
    if (index >= 0 && index !== detailed) details(index);
  });
  graph.addEventListener("click", (event) => {
    const index = numberOf(event.target);
    if (index >= 0) go(index);
  });
  graph.addEventListener("keydown", (event) => {
    const inside = document.activeElement !== graph;
    const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10 };
    if (event.key in steps) go(inside ? current + steps[event.key] : current);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(boxes.length - 1);
    else return;
    event.preventDefault();
  });
  byId("epoch").addEventListener("input", (event) => {
    atEpoch = Number(event.target.value);
    refreshNetwork();
  });
  let hits = [];
  const find = () => {
    const text = byId("find").value.toLowerCase();
    hits = text ? view.choices.flatMap((one, index) => (one.key.toLowerCase().includes(text) ? [index] : [])) : [];
    const marked = new Set(hits);
    boxes.forEach((box, index) => box.classList.toggle("found", marked.has(index)));
    byId("found").textContent = text ? hits.length + (hits.length === 1 ? " choice" : " choices") : "";
    if (hits.length) {
      boxes[hits[0]].scrollIntoView({ block: "nearest", inline: "nearest" });
      details(hits[0]);
    }
  };
  byId("find").addEventListener("input", find);
  byId("find").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && hits.length) go(hits[0]);
  });
  byId("back-to-best").addEventListener("click", () => pin(null, ""));
}

function refreshNetwork() {
  if (!boxes.length) return;
  tellNetwork();
  drawWeights();
  if (detailed >= 0) details(detailed);
}

function tellNetwork() {
  slider();
  legend();
}

function pin(decisions, name) {
  pinned = decisions;
  pinnedName = name;
  byId("back-to-best").hidden = decisions === null;
  refreshNetwork();
}

// ---- plots

const plots = [];
const WHOLE = Array.from({ length: 36 }, (_, place) => [1, 2, 5][place % 3] * 10 ** Math.floor(place / 3)); // 1, 2, 5, 10, ...
function plot(parent, title, x, series, describe, rows) {
  const figure = element("figure");
  figure.append(element("figcaption", title));
  const canvas = element("div");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", shown(describe));
  figure.append(canvas);
  const more = element("details");
  more.append(element("summary", "The numbers"));
  more.addEventListener("toggle", () => {
    if (more.open && more.children.length === 1) {
      const scroll = element("div", undefined, "scroll");
      scroll.tabIndex = 0;
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", shown(title + ", numbers"));
      scroll.append(table(rows.heads, rows.lines()));
      more.append(scroll);
    }
  });
  figure.append(more);
  parent.append(figure);
  const axis = { stroke: color("--text"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
  const spaced = (chart, splits) => splits.map((one) => (one === null ? "" : number(one)));
  const options = {
    width: Math.max(200, canvas.clientWidth),
    height: 260,
    scales: { x: { time: false } },
    axes: [{ ...axis, incrs: x.values.every(Number.isInteger) ? WHOLE : undefined, label: x.name, labelSize: 22, values: spaced }, { ...axis, size: 64, values: spaced }],
    series: [{ label: x.name, value: (_, value) => number(value) }, ...series.map((one) => ({
      label: shown(one.name),
      stroke: color(one.color),
      width: one.points ? 0 : 2,
      dash: one.dash,
      paths: one.points ? () => null : one.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
      points: { show: one.points || one.stepped || x.values.length < 60, size: 6, fill: color(one.color) },
      spanGaps: true,
      value: (_, value) => number(value),
    }))],
  };
  const chart = new uPlot(options, [x.values, ...series.map((one) => one.values)], canvas);
  plots.push({ chart, canvas });
}

function curves() {
  const parent = byId("curves").querySelector(".plots");
  const epochs = view.epochs;
  const names = [...new Set(epochs.flatMap((one) => [...Object.keys(one.train), ...Object.keys(one.valid)]))];
  for (const name of names) {
    const series = [["train", "--mark", [6, 4]], ["valid", "--accent", undefined]]
      .map(([part, stroke, dash]) => ({ name: part, color: stroke, dash, values: epochs.map((one) => get(one[part], name) ?? null) }))
      .filter((one) => one.values.some((value) => value !== null));
    const last = series.map((one) => one.name + " " + number(one.values[one.values.length - 1])).join(", ");
    plot(parent, name, { name: "epoch", values: epochs.map((one) => one.epoch) }, series,
      name + " over " + epochs.length + " epochs; in the last one " + last, {
        heads: ["epoch", ...series.map((one) => one.name)],
        lines: () => epochs.map((one, place) => ({ cells: [one.epoch, ...series.map((s) => number(s.values[place]))] })),
      });
  }
  if (view.trials && view.trials.curve.length) {
    const points = view.trials.curve.concat([[view.trials.count - 1, view.trials.curve[view.trials.curve.length - 1][1]]]);
    const kept = points.filter((one, place) => place === 0 || one[0] > points[place - 1][0]);
    plot(parent, "best value so far", { name: "trial", values: kept.map((one) => one[0]) },
      [{ name: "best value", color: "--accent", stepped: true, values: kept.map((one) => one[1]) }],
      "best value so far over " + view.trials.count + " trials; now " + number(kept[kept.length - 1][1]),
      { heads: ["trial", "best value"], lines: () => view.trials.curve.map((one) => ({ cells: [one[0], number(one[1])] })) });
  }
  byId("curves").hidden = parent.children.length === 0;
}

function pareto() {
  const fronts = view.trials ? view.trials.fronts : [];
  const select = byId("pareto-of");
  if (select.options.length !== fronts.length) {
    select.replaceChildren(...fronts.map((one, place) => Object.assign(element("option", one.of), { value: place })));
  }
  byId("pareto").hidden = fronts.length === 0;
  if (fronts.length === 0) return;
  const front = fronts[Math.max(0, select.selectedIndex)];
  const other = (trial) => get(trial.measured, front.of);
  const points = view.trials.shown.filter((one) => one.value !== null && other(one) !== undefined).sort((a, b) => other(a) - other(b));
  const best = new Set(front.trials);
  const parent = byId("pareto").querySelector(".plots");
  parent.replaceChildren();
  plot(parent, "value against " + front.of, { name: shown(front.of), values: points.map(other) }, [
    { name: "all", color: "--flow", points: true, values: points.map((one) => one.value) },
    { name: "front", color: "--accent", stepped: true, values: points.map((one) => (best.has(one.number) ? one.value : null)) },
  ], "value against " + front.of + ": " + front.trials.length + " trials are on the front; " + (view.trials.mode === "maximize" ? "larger" : "smaller") + " values and " + (front.smaller_is_better ? "smaller " : "larger ") + front.of + " are better", {
    heads: ["trial on the front", "value", front.of],
    lines: () => points.filter((one) => best.has(one.number)).map((one) => ({ cells: [one.number, number(one.value), number(other(one))] })),
  });
}

function allPlots() {
  for (const one of plots) one.chart.destroy();
  plots.length = 0;
  byId("curves").querySelector(".plots").replaceChildren();
  byId("curves").hidden = false;
  curves();
  pareto();
}
byId("pareto-of").addEventListener("change", allPlots);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", allPlots);
addEventListener("resize", () => {
  for (const one of plots) if (one.canvas.clientWidth) one.chart.setSize({ width: Math.max(200, one.canvas.clientWidth), height: 260 });
});

if (boxes.length) tellNetwork(); // it is drawn already
allPlots();
