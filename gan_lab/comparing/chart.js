// Curves as SVG: axes, lines, values under the pointer and by the arrow keys.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2"];

function svg(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

function colour(run) {
  return `--run: var(--c${run.index % 10})`;
}

function dash(run) {
  return DASHES[Math.floor(run.index / 10) % DASHES.length];
}

// Round places within [low, high], about `count` of them.
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const m of [1, 2, 5]) if (m * 10 ** p >= low * 0.999 && m * 10 ** p <= high * 1.001) found.push(m * 10 ** p);
  return found.length > 7 ? found.filter((v) => Number.isInteger(+Math.log10(v).toFixed(9))) : found;
}

// state: {figure, direction, axis: "kimg" | "time", log, runs, highlighted}; each run has .curves[figure] = {k, t, v}
class Chart {
  constructor(holder, readout) {
    this.svg = holder.querySelector("svg");
    this.tip = holder.querySelector("#tip");
    this.readout = readout;
    this.state = null;
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.state && this.draw(this.state)).observe(holder);
  }

  draw(state) {
    this.state = state;
    this.at = null;
    this.tip.hidden = true;
    const { width, height } = this.svg.getBoundingClientRect();
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.lines = state.runs
      .filter((run) => run.curves[state.figure])
      .map((run) => {
        const { k, t, v } = run.curves[state.figure];
        return { run, x: state.axis === "time" ? t : k, y: v };
      });
    const xs = this.lines.flatMap((line) => line.x), ys = this.lines.flatMap((line) => line.y);
    this.svg.setAttribute("aria-label", this.label());
    if (!xs.length) {
      svg("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, this.svg).textContent = "No run that is shown has this figure.";
      return;
    }
    this.unit = unitOf(state.axis, Math.max(...xs));
    this.scales(xs, ys, width, height);
    this.axes(width, height);
    const marks = this.lines.length <= 12;
    for (const line of this.lines) this.line(line, marks);
    this.hair = svg("line", { class: "hair", y1: this.top, y2: this.bottom, visibility: "hidden" }, this.svg);
    this.dots = svg("g", {}, this.svg);
    this.stops = [...new Set(xs)].sort((a, b) => a - b);
  }

  label() {
    const { figure, axis, runs } = this.state;
    return `${figure} over ${axis === "time" ? "wall time" : "kimg"}, ${this.lines.length} of ${runs.length} shown runs`;
  }

  scales(xs, ys, width, height) {
    let low = Math.min(...ys), high = Math.max(...ys);
    const log = this.state.log && low > 0;
    if (low === high) [low, high] = log ? [low / 1.1, high * 1.1] : [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)];
    if (!log) {
      // figures that come near zero are seen from zero
      if (low > 0 && low < 0.3 * high) low = 0;
      else low -= 0.04 * (high - low);
      high += 0.04 * (high - low);
    } else [low, high] = [low / (high / low) ** 0.03, high * (high / low) ** 0.03];
    this.yTicks = log ? logTicks(low, high) : ticks(low, high, height < 320 ? 4 : 6);
    if (log && this.yTicks.length < 3) this.yTicks = ticks(low, high, 5).filter((v) => v > 0);
    const longest = Math.max(...this.yTicks.map((v) => short(v).length));
    this.left = 16 + 7.2 * longest;
    this.right = width - 12;
    this.top = 10;
    this.bottom = height - 40;
    const place = log ? Math.log : (v) => v;
    const end = Math.max(...xs) || 1;
    this.x = (v) => this.left + (v / end) * (this.right - this.left);
    this.y = (v) => this.bottom - ((place(v) - place(low)) / (place(high) - place(low))) * (this.bottom - this.top);
    this.xTicks = ticks(0, end / this.unit.size, width < 500 ? 4 : 8).map((v) => v * this.unit.size);
  }

  axes(width, height) {
    for (const v of this.yTicks) {
      const y = this.y(v);
      svg("line", { class: "grid", x1: this.left, x2: this.right, y1: y, y2: y }, this.svg);
      svg("text", { x: this.left - 7, y: y + 4, "text-anchor": "end" }, this.svg).textContent = short(v);
    }
    for (const v of this.xTicks) {
      const x = this.x(v);
      svg("line", { class: "grid", x1: x, x2: x, y1: this.bottom, y2: this.bottom + 5 }, this.svg);
      svg("text", { x, y: this.bottom + 19, "text-anchor": x > this.right - 14 ? "end" : "middle" }, this.svg).textContent = short(v / this.unit.size);
    }
    svg("text", { x: (this.left + this.right) / 2, y: height - 5, "text-anchor": "middle" }, this.svg).textContent = this.unit.title;
  }

  line({ run, x, y }, marks) {
    const group = svg("g", { style: colour(run) }, this.svg);
    if (this.state.highlighted !== null && this.state.highlighted !== run.index) group.classList.add("faded");
    const points = x.map((v, i) => `${this.x(v).toFixed(1)},${this.y(y[i]).toFixed(1)}`);
    svg("path", { class: "curve", d: `M${points.join("L")}`, "stroke-dasharray": dash(run) }, group);
    if (x.length === 1 || (marks && x.length <= 40))
      x.forEach((v, i) => svg("circle", { class: "mark", cx: this.x(v), cy: this.y(y[i]), r: 2.4 }, group));
    const { direction } = this.state;
    if (!direction) return;
    const best = y.indexOf(direction === "min" ? Math.min(...y) : Math.max(...y));
    svg("circle", { class: "best", cx: this.x(x[best]), cy: this.y(y[best]), r: 4.2 }, group);
  }

  point(event) {
    if (!this.stops?.length || !this.lines.length) return;
    const box = this.svg.getBoundingClientRect();
    const at = ((event.clientX - box.left - this.left) / (this.right - this.left)) * (this.stops.at(-1) || 1);
    this.show(nearest(this.stops, at), event.clientY - box.top);
  }

  key(event) {
    if (!this.stops?.length) return;
    const last = this.stops.length - 1;
    // at most some sixty presses from end to end
    const step = Math.max(1, Math.round(last / 60));
    const here = this.at === null ? -1 : this.stops.indexOf(this.at);
    const to = { ArrowLeft: Math.max(0, here - step), ArrowRight: Math.min(last, here + step), Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.show(this.stops[here < 0 && event.key === "ArrowRight" ? 0 : to], null);
    this.readout.textContent = this.tip.innerText.replace(/\n+/g, ", ");
  }

  // The values of all lines near x = at; the run whose line is nearest to height y is emphasised.
  show(at, y) {
    this.at = at;
    const reach = (this.stops.at(-1) - this.stops[0]) / 12 || 1;
    const values = [];
    for (const { run, x, y: v } of this.lines) {
      const i = x.indexOf(nearest(x, at));
      if (Math.abs(x[i] - at) <= reach) values.push({ run, x: x[i], v: v[i] });
    }
    const sign = this.state.direction === "min" ? 1 : -1;
    values.sort((a, b) => sign * (a.v - b.v));
    const near = y === null ? null : values.reduce((a, b) => (a && Math.abs(this.y(a.v) - y) <= Math.abs(this.y(b.v) - y) ? a : b), null);
    this.hair.setAttribute("visibility", "visible");
    this.hair.setAttribute("x1", this.x(at));
    this.hair.setAttribute("x2", this.x(at));
    this.dots.replaceChildren(...values.map(({ run, x, v }) => svg("circle", { class: "mark", style: colour(run), cx: this.x(x), cy: this.y(v), r: 4 })));
    this.fill(at, values, near);
  }

  fill(at, values, near) {
    const most = 12;
    let from = 0;
    if (near && values.indexOf(near) >= most) from = values.indexOf(near) - most + 1;
    const rows = values.slice(from, from + most).map((value) => {
      const row = el("div", { class: value === near ? "near" : "" });
      const name = el("span", {}, el("span", { class: "dot", style: colour(value.run) }), cut(value.run.name, 30));
      row.append(name, el("span", {}, short(value.v)));
      return row;
    });
    const head = el("div", {}, el("span", {}, this.state.axis === "time" ? duration(at) : `${short(at)} kimg`));
    if (values.length > rows.length) rows.push(el("div", { class: "hint" }, `and ${values.length - rows.length} more`));
    this.tip.replaceChildren(head, ...rows);
    this.tip.hidden = false;
    const onLeft = this.x(at) > (this.left + this.right) / 2;
    this.tip.style.left = onLeft ? `${this.left + 6}px` : "auto";
    this.tip.style.right = onLeft ? "auto" : "14px";
  }

  leave() {
    this.tip.hidden = true;
    this.at = null;
    if (this.hair) this.hair.setAttribute("visibility", "hidden");
    if (this.dots) this.dots.replaceChildren();
  }
}

function nearest(sorted, at) {
  return sorted.reduce((a, b) => (Math.abs(b - at) < Math.abs(a - at) ? b : a));
}

function unitOf(axis, largest) {
  if (axis !== "time") return { size: 1, title: "kimg (thousands of real images shown)" };
  if (largest > 3 * 3600) return { size: 3600, title: "hours of training" };
  return largest > 180 ? { size: 60, title: "minutes of training" } : { size: 1, title: "seconds of training" };
}
