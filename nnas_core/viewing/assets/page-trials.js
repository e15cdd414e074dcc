"use strict";
// The importance of choices, the table of trials, and news of what goes on.

const PAGE = 100;

function importance() {
  const found = view.trials ? view.trials.importance : { choices: [] };
  const section = byId("importance");
  section.hidden = found.choices.length === 0;
  section.querySelector("p").textContent =
    "The share of the variance of " + found.trials + " values that a choice alone explains" + (found.exact ? "; exact, all architectures were measured." : ", estimated (main effects of an analysis of variance).") +
    (found.choices.length > PAGE ? " The first " + PAGE + " of " + whole(found.choices.length) + " choices." : "");
  section.querySelector("tbody").replaceChildren(...found.choices.slice(0, PAGE).map((one) => {
    const row = element("tr");
    const head = element("th", one.key);
    head.scope = "row";
    const cell = element("td");
    const inner = element("span", undefined, "with-number");
    const bar = element("span", undefined, "bar");
    bar.style.width = (100 * one.share).toFixed(1) + "%";
    inner.append(element("span", (100 * one.share).toFixed(1) + " %"), bar);
    cell.append(inner);
    row.append(head, cell);
    return row;
  }));
}

let sortBy = "value";
let descending = true;
let firstRow = 0;
let texts = new Map();

const stateOf = (one) => (one.feasible ? one.state : "infeasible");

function columnsOfTrials() {
  const names = [...new Set(view.trials.shown.flatMap((one) => Object.keys(one.measured)))];
  return [
    { name: "trial", of: (one) => one.number },
    { name: "state", of: stateOf, words: true },
    { name: "value", of: (one) => one.value },
    { name: "took s", id: "took", of: (one) => one.seconds },
    ...names.map((name) => ({ name, id: "measured:" + name, of: (one) => get(one.measured, name) ?? null })),
    { name: "architecture", of: (one) => architectureOf(one), words: true },
    { name: "error", of: (one) => one.error, words: true },
  ].map((one) => ({ id: one.name, ...one }));
}

function architectureOf(trial) {
  if (!texts.has(trial.number)) {
    const parts = (trial.decisions || []).map((decision, index) => {
      const choice = view.choices[index];
      return choice.key + "=" + (decision.map((one) => named(choice.candidates[one])).join(",") || "-");
    });
    texts.set(trial.number, parts.join(" "));
  }
  return texts.get(trial.number);
}

function compared(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
  return descending ? -order : order;
}

function trialRows(columns) {
  const text = byId("filter").value.toLowerCase();
  const state = byId("state").value;
  const by = columns.find((one) => one.id === sortBy) || columns[0];
  const rows = view.trials.shown.filter((one) =>
    (!state || stateOf(one) === state) &&
    (!text || [one.number, stateOf(one), number(one.value), architectureOf(one), one.error || ""].join(" ").toLowerCase().includes(text)));
  return rows.map((one) => [by.of(one), one]).sort((a, b) => compared(a[0], b[0]) || a[1].number - b[1].number).map((one) => one[1]);
}

function cut(text) {
  return text.length > 300 ? text.slice(0, 299) + "\u2026" : text;
}

function trialLine(trial, columns) {
  const line = element("tr");
  for (const column of columns) {
    const value = column.of(trial);
    const cell = element("td", undefined, column.words ? (column.id === "state" ? "" : "words") : "number");
    if (column.id === "trial" && trial.decisions && boxes.length) {
      const button = element("button", value);
      button.type = "button";
      button.setAttribute("aria-label", "Draw trial " + value);
      button.addEventListener("click", () => {
        pin(trial.decisions, "trial " + trial.number);
        byId("network").scrollIntoView();
        byId("graph").focus({ preventScroll: true });
      });
      cell.append(button);
    } else {
      cell.textContent = shown(value === null ? "-" : typeof value === "number" ? number(value) : cut(value) || "-");
    }
    line.append(cell);
  }
  return line;
}

// While a study goes on there are more of them; what is picked stays.
function states(select, names) {
  for (const one of names.map((name) => element("option", name))) {
    if (!Array.from(select.options).some((old) => old.value === one.value)) select.append(one);
  }
}

function trials() {
  byId("trials").hidden = !view.trials;
  if (!view.trials) return;
  const columns = columnsOfTrials();
  const head = byId("trials").querySelector("thead tr");
  const signature = columns.map((one) => one.id).join("\n");
  if (head.dataset.columns !== signature) {
    head.dataset.columns = signature;
    head.replaceChildren(...columns.map((column) => {
      const cell = element("th");
      cell.scope = "col";
      const button = element("button", column.name);
      button.type = "button";
      button.addEventListener("click", () => {
        descending = sortBy === column.id ? !descending : !column.words && column.id !== "trial";
        sortBy = column.id;
        firstRow = 0;
        trials();
      });
      cell.append(button);
      cell.dataset.id = column.id;
      return cell;
    }));
  }
  states(byId("state"), Object.keys(view.trials.counts).sort());
  for (const cell of head.cells) {
    const sorted = cell.dataset.id === sortBy;
    cell.setAttribute("aria-sort", sorted ? (descending ? "descending" : "ascending") : "none");
    const button = cell.firstChild;
    button.textContent = button.textContent.replace(/ [\u25b2\u25bc]$/, "") + (sorted ? (descending ? " \u25bc" : " \u25b2") : "");
  }
  const rows = trialRows(columns);
  firstRow = Math.max(0, Math.min(firstRow, Math.floor((rows.length - 1) / PAGE) * PAGE));
  const page = rows.slice(firstRow, firstRow + PAGE);
  byId("trials").querySelector("tbody").replaceChildren(...page.map((one) => trialLine(one, columns)));
  const range = rows.length ? firstRow + 1 + " to " + (firstRow + page.length) + " of " + rows.length : "none";
  const all = view.trials.count;
  byId("count").textContent = range + (view.trials.shown.length < all ? " listed; the study has " + whole(all) + " trials" : rows.length < all ? "; the study has " + whole(all) + " trials" : " trials");
  byId("earlier").disabled = firstRow === 0;
  byId("later").disabled = firstRow + PAGE >= rows.length;
}

function turned(by) {
  firstRow += by;
  trials();
}
byId("earlier").addEventListener("click", () => turned(-PAGE));
byId("later").addEventListener("click", () => turned(PAGE));
for (const id of ["filter", "state"]) {
  for (const kind of ["input", "change"]) byId(id).addEventListener(kind, () => turned(-firstRow));
}
descending = !view.trials || view.trials.mode === "maximize";
importance();
trials();

// ---- news of what goes on

const ofDrawing = Array.from(byId("notes").children).slice(view.notes.length); // what the drawing leaves out

function listed(id, items) {
  byId(id).replaceChildren(...items);
}

async function news() {
  let wait = 2000;
  try {
    const answer = await fetch("view.json", { cache: "no-cache" });
    if (!answer.ok) throw new Error(answer.statusText);
    const text = await answer.text();
    const fresh = JSON.parse(text);
    if (fresh.error) {
      byId("news").textContent = shown(fresh.error);
    } else if (fresh.choices.length !== view.choices.length || fresh.choices.some((one, index) => one.key !== view.choices[index].key)) {
      location.reload(); // another network: it is drawn where the page is made
      return;
    } else if (text !== news.last) {
      view = fresh;
      texts = new Map();
      listed("facts", view.facts.map((one) => {
        const pair = element("div");
        pair.append(element("dt", one.name), element("dd", one.value));
        return pair;
      }));
      listed("notes", [...view.notes.map((one) => element("li", one)), ...ofDrawing]);
      refreshNetwork();
      allPlots();
      importance();
      trials();
      byId("news").textContent = view.running ? "Follows what goes on." : "Nobody works on it now.";
    }
    news.last = text;
  } catch (error) {
    byId("news").textContent = "The server of this page does not answer: it shows what was known last.";
    wait = 5000;
  }
  setTimeout(news, wait);
}
if (document.body.dataset.served === "yes") news();
document.documentElement.dataset.ready = "yes";
