"use strict";
// The page: tables, curves, legend and samples of the data embedded in the page.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);
const collator = new Intl.Collator("en", { numeric: true });
data.runs.forEach((run, index) => Object.assign(run, { index, shown: true }));

function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// A number with just enough digits to differ from its neighbors.
function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replace(".0e", "e");
  return String(+value.toPrecision(size >= 1000 ? 6 : 4));
}

// A metric with four digits, aligned within a column.
function four(value) {
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1e4 ? value.toPrecision(4) : short(value);
}

function count(value) {
  if (value >= 1e6) return `${+(value / 1e6).toPrecision(3)} M`;
  return value >= 1e4 ? `${+(value / 1e3).toPrecision(3)} k` : String(value);
}

function duration(seconds) {
  if (seconds < 60) return `${+seconds.toPrecision(3)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// A long name without its middle, since names of a sweep begin with the same text.
function cut(name, longest) {
  const end = Math.floor((longest - 1) * 0.65);
  return name.length <= longest ? name : `${name.slice(0, longest - 1 - end)}…${name.slice(-end)}`;
}

// A name that may be broken behind its dots, underscores and dashes.
function breakable(name, attributes) {
  const made = el("span", attributes);
  for (const part of name.split(/(?<=[._/-])(?=[A-Za-z])/)) made.append(part, el("wbr"));
  return made;
}

function keyName(key) {
  return breakable(key, { class: "key" });
}

function runName(run) {
  return [dot(run), breakable(run.name, { title: run.path })];
}

function dot(run) {
  return el("span", { class: "dot", style: `background: var(--c${run.index % 10})`, "aria-hidden": "true" });
}

// columns: {label, hint, title, value(row), cell(row), number, first: "ascending" | "descending", className(row)}.
// The first column heads its rows. Empty values stay last, however a column is sorted.
function table(holder, caption, columns, rows, onSort) {
  let order = rows.slice();
  const sorted = { column: null, direction: null };
  const head = el("tr"), body = el("tbody");
  const cells = columns.map((column, index) => {
    const button = el("button", { type: "button", title: column.title }, el("span", {}, column.label, column.hint ? el("span", { class: "sub" }, ` ${column.hint}`) : null), el("span", { class: "arrow", "aria-hidden": "true" }));
    const cell = el("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": "none" }, button);
    button.addEventListener("click", () => {
      const first = column.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sort(index, sorted.column === index && sorted.direction === first ? other : first);
    });
    head.append(cell);
    return cell;
  });
  function fill() {
    body.replaceChildren(...order.map((row) => el("tr", {}, ...columns.map((column, index) => {
      const content = column.cell(row);
      const classes = [column.number && "number", column.className?.(row)].filter(Boolean).join(" ") || null;
      return index === 0 ? el("th", { scope: "row" }, ...[content].flat()) : el("td", { class: classes }, ...[content].flat());
    }))));
  }
  function sort(index, direction) {
    Object.assign(sorted, { column: index, direction });
    const sign = direction === "ascending" ? 1 : -1;
    const value = columns[index].value;
    const missing = (v) => v === null || v === undefined || v === "";
    order = rows.slice().sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : collator.compare(x, y));
    });
    cells.forEach((cell, i) => cell.setAttribute("aria-sort", i === index ? direction : "none"));
    fill();
    onSort?.(order);
  }
  fill();
  const made = el("table", {}, el("caption", { class: "visually-hidden" }, caption), el("thead", {}, head), body);
  holder.replaceChildren(made);
  // what scrolls sideways must be reachable by the keyboard
  Object.entries({ role: "region", tabindex: 0, "aria-label": caption }).forEach(([key, value]) => holder.setAttribute(key, value));
  return { sort, rows: (kept) => { rows = kept; sorted.column === null ? ((order = rows.slice()), fill()) : sort(sorted.column, sorted.direction); } };
}

function runColumns() {
  const columns = [
    { label: "Run", value: (run) => run.name, cell: runName },
  ];
  for (const { key, direction } of data.bests) {
    const found = data.runs.map((run) => run.best[key]?.[0]).filter((v) => v !== undefined);
    const top = direction === "min" ? Math.min(...found) : Math.max(...found);
    columns.push({
      label: key.replace("metrics/", ""), hint: direction, number: true,
      title: `Best value, ${direction === "min" ? "lower" : "higher"} is better; sort`,
      first: direction === "min" ? "ascending" : "descending",
      value: (run) => run.best[key]?.[0] ?? null,
      cell: (run) => run.best[key] ? [el("b", {}, four(run.best[key][0])), el("small", {}, `at ${short(run.best[key][1])} kimg`)] : "–",
      className: (run) => (found.length > 1 && run.best[key]?.[0] === top ? "top" : null),
    });
  }
  columns.push(
    { label: "kimg", number: true, title: "Thousands of real images shown so far; sort", first: "descending", value: (run) => run.kimg, cell: (run) => [short(run.kimg), el("small", { title: run.holder }, run.status)] },
    { label: "Time", number: true, title: "Of training, with evaluations; sort", value: (run) => run.seconds, cell: (run) => (run.seconds ? duration(run.seconds) : "–") },
    { label: "s / kimg", number: true, title: "Seconds per thousand real images shown; sort", value: (run) => run.perKimg, cell: (run) => (run.perKimg ? short(+run.perKimg.toPrecision(3)) : "–") },
  );
  if (data.runs.some((run) => run.devices > 1))
    columns.push(
      { label: "Devices", number: true, value: (run) => run.devices, cell: (run) => run.devices ?? "–" },
      { label: "Device-s / kimg", number: true, title: "Seconds per kimg times devices; sort", value: (run) => deviceSeconds(run), cell: (run) => (deviceSeconds(run) ? short(+deviceSeconds(run).toPrecision(3)) : "–") },
    );
  for (const [player, letter] of [["generator", "G"], ["discriminator", "D"]])
    columns.push({ label: `${letter} params`, number: true, title: `Of the ${player}; sort`, value: (run) => run.parameters?.[player] ?? null, cell: (run) => (run.parameters ? el("span", { title: run.parameters[player].toLocaleString("en") }, count(run.parameters[player])) : "–") });
  return columns;
}

function deviceSeconds(run) {
  return run.perKimg && run.devices ? run.perKimg * run.devices : null;
}

// ---- curves
const chart = $("#chart");
const view = { metric: data.main, axis: "kimg", log: false, highlighted: null, direction: null, at: null };
// in Plotly's words and in those of CSS
const DASHES = [["solid", "solid"], ["dash", "dashed"], ["dot", "dotted"]];
const dash = (run) => DASHES[Math.floor(run.index / 10) % DASHES.length];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function choose(metric) {
  view.metric = metric;
  view.direction = data.metrics.find(({ key }) => key === metric).direction;
  const values = data.runs.flatMap((run) => run.curves[metric]?.v ?? []);
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const box = $("#log");
  box.disabled = !(low > 0);
  box.parentElement.title = box.disabled ? "Not all values are positive" : "";
  // a distance falls by orders of magnitude
  view.log = box.checked = !box.disabled && view.direction === "min" && high > 20 * low;
  redraw();
}

// The curves of the runs shown: {run, x, y}, with x in the unit of the axis.
function lines() {
  const shown = data.runs.filter((run) => run.shown && run.curves[view.metric] && (view.axis === "kimg" || run.seconds));
  const made = shown.map((run) => ({ run, x: run.curves[view.metric][view.axis === "time" ? "t" : "k"], y: run.curves[view.metric].v }));
  const { size } = unit();
  return made.map((line) => ({ ...line, x: line.x.map((x) => x / size) }));
}

function unit() {
  if (view.axis !== "time") return { size: 1, suffix: "kimg", title: "kimg (thousands of real images shown)" };
  const largest = Math.max(...data.runs.map((run) => run.seconds ?? 0));
  if (largest > 3 * 3600) return { size: 3600, suffix: "h", title: "hours of training" };
  return largest > 180 ? { size: 60, suffix: "min", title: "minutes of training" } : { size: 1, suffix: "s", title: "seconds of training" };
}

function trace({ run, x, y }, marked) {
  const best = view.direction ? y.indexOf((view.direction === "min" ? Math.min : Math.max)(...y)) : -1;
  const color = css(`--c${run.index % 10}`), dot = marked && y.length <= 40 ? 5 : 0;
  return {
    name: cut(run.name, 30).replace(/[<>&]/g, (c) => `&#${c.charCodeAt(0)};`), x, y, mode: "lines+markers", showlegend: false,
    opacity: view.highlighted === null || view.highlighted === run.index ? 1 : 0.15,
    line: { color, width: 2, dash: dash(run)[0] },
    marker: { color, opacity: 1, size: y.map((_, i) => (i === best ? 10 : y.length === 1 ? 6 : dot)), symbol: y.map((_, i) => (i === best ? "circle-open" : "circle")), line: { color, width: y.map((_, i) => (i === best ? 2.2 : 0)) } },
    hovertemplate: "%{y:.4~g}",
  };
}

function redraw() {
  const made = lines(), { suffix, title } = unit();
  const bg = css("--bg"), y = made.flatMap((line) => line.y);
  const axis = { color: css("--muted"), gridcolor: css("--line"), zeroline: false, automargin: true, tickformat: "~g" };
  const decades = Math.log10(y.reduce((a, b) => Math.max(a, b), 1e-30) / y.reduce((a, b) => Math.min(a, b), 1e30));
  Plotly.react(chart, made.map((line) => trace(line, made.length <= 12)), {
    margin: { l: 10, r: 12, t: 10, b: 48 }, paper_bgcolor: bg, plot_bgcolor: bg, font: { family: "system-ui, sans-serif", size: 13, color: css("--fg") },
    xaxis: { ...axis, title: { text: title }, rangemode: "tozero", showgrid: false, spikecolor: css("--muted"), spikethickness: 1, hoverformat: ".6~g", unifiedhovertitle: { text: `%{x} ${suffix}` } },
    yaxis: { ...axis, type: view.log ? "log" : "linear", nticks: 8, dtick: view.log ? (decades < 3 ? "D2" : 1) : null },
    hovermode: "x unified", hoverdistance: -1, hoverlabel: { bgcolor: bg, bordercolor: css("--line"), font: { color: css("--fg"), size: 13 } },
    // a finger that drags scrolls the page
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    annotations: made.length ? [] : [{ text: "No run that is shown has this metric.", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }],
  }, { responsive: true, displaylogo: false, modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", { name: "image", title: "Download as PNG", icon: Plotly.Icons.camera, click: download }]] });
  chart.setAttribute("aria-label", `${view.metric} over ${view.axis === "time" ? "wall time" : "kimg"}, ${made.length} of ${data.runs.filter((run) => run.shown).length} shown runs`);
  view.at = null;
}

// The page's own legend is not part of the chart, so the image gets Plotly's.
function download() {
  const traces = chart.data.map((line) => ({ ...line, showlegend: true }));
  return Plotly.downloadImage({ data: traces, layout: chart.layout }, { format: "png", filename: "compare", width: 1200, height: 500, scale: 2 });
}

// The arrow keys go from point to point, Home and End to both ends; what is there is also said to screen readers.
function readByKey(event) {
  const made = lines();
  const stops = [...new Set(made.flatMap((line) => line.x))].sort((a, b) => a - b);
  const last = stops.length - 1, step = Math.max(1, Math.round(last / 60)), here = view.at === null ? -1 : stops.indexOf(view.at);
  const to = { ArrowLeft: Math.max(0, here - step), ArrowRight: here < 0 ? 0 : Math.min(last, here + step), Home: 0, End: last }[event.key];
  if (to === undefined || last < 0) return;
  event.preventDefault();
  view.at = stops[to];
  Plotly.Fx.hover(chart, { xval: view.at }, ["xy"]);
  const there = made.filter(({ x }) => x.includes(view.at)).map(({ run, x, y }) => `${run.name} ${short(y[x.indexOf(view.at)])}`);
  $("#readout").textContent = [`${short(view.at)} ${unit().suffix}`, ...there].join(", ");
}

function metricOptions() {
  const groups = new Map();
  for (const { key, direction } of data.metrics) {
    const group = key.split("/")[0];
    if (!groups.has(group)) groups.set(group, el("optgroup", { label: group }));
    const better = { min: " (lower is better)", max: " (higher is better)" }[direction] ?? "";
    groups.get(group).append(el("option", { value: key }, key.replace("metrics/", "") + better));
  }
  return [...groups.values()];
}

function legend(order) {
  const buttons = order.map((run) => {
    const button = el("button", { type: "button", "aria-pressed": String(run.shown), "data-run": run.index }, el("span", { class: "mark", style: `border-top-style: ${dash(run)[1]}; border-top-color: var(--c${run.index % 10})` }), run.name);
    button.addEventListener("click", () => show([run], !run.shown));
    for (const [event, index] of [["pointerenter", run.index], ["focus", run.index], ["pointerleave", null], ["blur", null]])
      button.addEventListener(event, () => { if (view.highlighted !== index) { view.highlighted = run.shown ? index : null; redraw(); } });
    return button;
  });
  if (order.length > 2)
    for (const [text, shown] of [["All", true], ["None", false]]) {
      const button = el("button", { type: "button", class: "all" }, text);
      button.addEventListener("click", () => show(data.runs, shown));
      buttons.push(button);
    }
  $("#legend").replaceChildren(...buttons);
}

function show(runs, shown) {
  for (const run of runs) {
    run.shown = shown;
    $(`#legend [data-run="${run.index}"]`)?.setAttribute("aria-pressed", String(shown));
    const figure = document.getElementById(`samples-${run.index}`);
    if (figure) figure.hidden = !shown;
  }
  view.highlighted = null;
  redraw();
}

// ---- samples
function gallery(order) {
  $("#gallery").replaceChildren(...order.map((run) => {
    const { src, clips, origin, same } = run.grid;
    const best = run.best[data.main];
    const figure = el("figure", { id: `samples-${run.index}` });
    figure.hidden = !run.shown;
    if (src) {
      const name = `Images of ${run.name}, ${origin}`;
      const button = el("button", { type: "button", "aria-label": `Enlarge: ${name}` }, el("img", { src, alt: name, decoding: "async" }));
      button.addEventListener("click", () => enlarge(run, name));
      figure.append(button);
    } else if (!clips.length) figure.append(el("div", { class: "none" }, "no samples"));
    // HTML that gan_lab made, with every name in it escaped
    const clip = (markup) => Object.assign(el("div", { class: "clip" }), { innerHTML: markup });
    figure.append(...clips.map(clip));
    const caption = el("figcaption", {}, dot(run), el("strong", {}, run.name));
    if (best) caption.append(el("span", { class: "sub" }, ` ${data.main.replace("metrics/", "")} ${four(best[0])}`));
    if ((src || clips.length) && !same) caption.append(" ", el("span", { class: "other" }, "other latents"));
    caption.append(el("span", { class: "hint" }, origin));
    figure.append(caption);
    return figure;
  }));
}

function enlarge(run, name) {
  const dialog = $("#large");
  $("#large-title").textContent = run.name;
  Object.assign(dialog.querySelector("img"), { src: run.grid.src, alt: name });
  dialog.querySelector("p").textContent = run.grid.origin;
  dialog.showModal();
}

// ---- settings that differ
const FEW = 14;

function settings() {
  if (!data.settings.length) return;
  reveal("settings");
  const cell = (text) => (text === "–" ? el("span", { class: "absent" }, text) : text);
  const wide = data.settings.length > data.runs.length;
  let all = false;
  function draw() {
    const wanted = $("#filter").value.trim().toLowerCase();
    const matching = data.settings.filter(([key]) => key.toLowerCase().includes(wanted));
    const kept = all || wanted ? matching : matching.slice(0, FEW);
    $("#settings-note").textContent = `${kept.length} of ${data.settings.length} keys that differ`;
    $("#more").hidden = kept.length === matching.length && !(all && !wanted && matching.length > FEW);
    $("#more").textContent = all ? "Show the first ones only" : `Show all ${matching.length}`;
    const holder = $("#settings .table");
    if (wide)
      table(holder, "Settings that differ, a key a row", [
        { label: "Key", value: ([key]) => key, cell: ([key]) => keyName(key) },
        ...data.runs.map((run, i) => ({ label: el("span", {}, ...runName(run)), value: ([, texts]) => texts[i], cell: ([, texts]) => cell(texts[i]), className: ([, texts]) => (texts[i].length > 24 ? "setting" : null) })),
      ], kept);
    else
      table(holder, "Settings that differ, a run a row", [
        { label: "Run", value: (run) => run.name, cell: runName },
        ...kept.map(([key, texts]) => ({ label: keyName(key), value: (run) => texts[run.index], cell: (run) => cell(texts[run.index]), className: (run) => (texts[run.index].length > 24 ? "setting" : null) })),
      ], data.runs);
  }
  $("#filter").addEventListener("input", draw);
  $("#more").addEventListener("click", () => { all = !all; draw(); });
  draw();
}

function evaluations() {
  if (!data.measured.length) return;
  reveal("evaluations");
  const columns = [{ label: "Run", value: (run) => run.name, cell: runName }];
  data.measured.forEach(({ protocol, key, direction }, i) => columns.push({
    label: key, hint: protocol, number: true, first: direction === "max" ? "descending" : "ascending",
    value: (run) => run.measured[i]?.[2] ?? null,
    cell: (run) => {
      const one = run.measured[i];
      if (!one) return "–";
      const [, , value, uncertainty, checkpoint] = one;
      const off = uncertainty === null ? "" : ` ± ${short(+uncertainty.toPrecision(2))}`;
      return [el("b", {}, four(value)), off, el("small", {}, checkpoint)];
    },
  }));
  table($("#evaluations .table"), "Metrics of gan-lab evaluate", columns, data.runs.filter((run) => run.measured.some(Boolean)));
}

function reveal(id) {
  document.getElementById(id).hidden = false;
  $(`nav a[href="#${id}"]`).hidden = false;
}

// ---- the page
document.body.classList.toggle("long", data.runs.some((run) => run.name.length > 18));
$("#about").textContent = data.about;
$("#samples-note").textContent = data.note;
for (const id of ["problems", "advice"]) {
  $(`#${id}`).hidden = !data[id].length;
  $(`#${id} ul`).append(...data[id].map((text) => el("li", {}, text)));
}
const overview = table($("#runs .table"), "Runs, their best metrics, time and size", runColumns(), data.runs, (order) => { legend(order); gallery(order); });
legend(data.runs);
gallery(data.runs);
settings();
evaluations();
if (data.metrics.length) {
  $("#metric").append(...metricOptions());
  $("#metric").value = view.metric;
  $("#metric").addEventListener("change", (event) => choose(event.target.value));
  document.querySelectorAll("[name=axis]").forEach((radio) => radio.addEventListener("change", () => { view.axis = radio.value; redraw(); }));
  $("#log").addEventListener("change", (event) => { view.log = event.target.checked; redraw(); });
  $("#curves form").addEventListener("submit", (event) => event.preventDefault());
  choose(data.main);
  const column = data.bests.findIndex(({ key }) => key === data.main);
  if (column >= 0) overview.sort(1 + column, data.bests[column].direction === "min" ? "ascending" : "descending");
} else {
  $("#curves form").hidden = true;
  redraw();
}
chart.addEventListener("keydown", readByKey);
chart.addEventListener("blur", () => { view.at = null; Plotly.Fx.unhover(chart); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
