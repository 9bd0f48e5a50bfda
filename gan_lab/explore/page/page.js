"use strict";

const $ = (id) => document.getElementById(id);
const BIGGEST_SEED = 2 ** 32 - 1;

/** The state of the page, from which everything shown is derived. */
const state = {
  models: [],
  point: { seed: 0, label: null },
  attributes: {}, // those that are given, by name; the others are as the seed draws them
  pins: [], // {point, blob, url, name}
  ends: { a: null, b: null }, // pins
  methods: {}, // method -> [{count, share} per model]
  method: "",
  amounts: [],
  playing: null,
  projection: null,
};

// Requests ------------------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is gan-lab explore still running?");
  }
  if (!answer.ok) {
    const text = await answer.text();
    let message = text;
    try { message = JSON.parse(text).error; } catch { /* it is no JSON, but says something */ }
    throw new Error(message || `the server answered ${answer.status}`);
  }
  return answer;
}

function post(path, body) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** Draws the newest recipe of one model; what came while it was busy is skipped. */
class Canvas {
  constructor(number, model) {
    this.number = number;
    this.figure = document.createElement("figure");
    this.kind = model.media_type.split("/")[0];
    this.image = document.createElement("img");
    this.image.alt = `Image by ${model.name}`;
    this.image.style.setProperty("--aspect", `${model.size[1]} / ${model.size[0]}`);
    this.image.classList.toggle("large", Math.max(...model.size) >= 256);
    this.audio = Object.assign(document.createElement("audio"), { controls: true });
    this.audio.setAttribute("aria-label", `Clip by ${model.name}`);
    this.text = document.createElement("pre");
    this.text.setAttribute("aria-label", `Text by ${model.name}`);
    const shown = { image: [this.image], audio: [this.image, this.audio], text: [this.text] }[this.kind];
    const caption = document.createElement("figcaption");
    this.name = text("span", model.name);
    this.time = text("span", "");
    this.save = text("button", { image: "Image", audio: "Clip", text: "Text" }[this.kind]);
    this.save.title = `Download what is shown${number ? "" : " (D)"}`;
    this.save.addEventListener("click", () => this.download());
    this.keep = text("button", "Latents");
    this.keep.title = "Download the latents, for latents= of gan-lab generate, interpolate and mix";
    this.keep.addEventListener("click", () => this.downloadLatents());
    this.error = text("span", "");
    this.error.className = "error";
    this.error.setAttribute("role", "alert");
    const buttons = document.createElement("span");
    buttons.append(this.save, " ", this.keep);
    caption.append(this.name, this.time, buttons, this.error);
    this.figure.append(...shown, caption);
    this.waiting = null;
    this.busy = false;
    this.url = null;
    this.drawn = 0;
  }

  async draw(recipe) {
    this.waiting = recipe;
    if (this.busy) return;
    this.busy = true;
    while (this.waiting) {
      const now = this.waiting;
      this.waiting = null;
      const began = performance.now();
      try {
        const answer = await post("api/draw", { ...now, model: this.number });
        await this.show(await answer.blob());
        if (this.kind === "audio") {
          const image = await post("api/image", { ...now, model: this.number });
          this.imageUrl = swap(this.imageUrl, await image.blob());
          this.image.src = this.imageUrl;
        }
        const all = Math.round(performance.now() - began);
        this.time.textContent = `${all} ms (drawing ${Math.round(answer.headers.get("X-Milliseconds"))})`;
        this.error.textContent = "";
      } catch (error) {
        this.error.textContent = error.message;
      }
      this.drawn += 1;
      this.figure.dataset.drawn = this.drawn;
    }
    this.busy = false;
  }

  async show(blob) {
    this.blob = blob;
    this.url = swap(this.url, blob);
    if (this.kind === "image") this.image.src = this.url;
    else if (this.kind === "audio") this.audio.src = this.url;
    else this.text.textContent = await blob.text();
  }

  listen() {
    if (this.audio.paused) this.audio.play();
    else this.audio.pause();
  }

  download() {
    const subtype = this.blob?.type.split(/[/;]/)[1];
    if (this.url) this.hand(this.url, { plain: "txt", mpeg: "mp3" }[subtype] ?? subtype);
  }

  async downloadLatents() {
    try {
      const model = state.models[this.number];
      const answer = await post("api/latents", { ...suited(recipe(), model), model: this.number });
      const url = URL.createObjectURL(await answer.blob());
      this.hand(url, "safetensors");
      URL.revokeObjectURL(url);
    } catch (error) {
      this.error.textContent = error.message;
    }
  }

  hand(url, suffix) {
    const link = document.createElement("a");
    link.href = url;
    link.download = `${state.models[this.number].name}_${nameOf(state.point)}`.replace(/[^\w.-]+/g, "-") + `.${suffix}`;
    link.click();
  }
}

let canvases = [];

/** Return the URL of a new blob and revoke the previous one. */
function swap(before, blob) {
  if (before) URL.revokeObjectURL(before);
  return URL.createObjectURL(blob);
}

/** A small image, a player or a text of a blob. */
function small(blob, url, name) {
  const kind = blob.type.split("/")[0];
  if (kind === "image") return Object.assign(document.createElement("img"), { src: url, alt: name });
  if (kind === "audio") {
    const audio = Object.assign(document.createElement("audio"), { src: url, controls: true });
    audio.setAttribute("aria-label", name);
    return audio;
  }
  const shown = document.createElement("pre");
  blob.text().then((content) => { shown.textContent = content; });
  return shown;
}

function text(tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  return element;
}

// Recipes -------------------------------------------------------------------------------------------------------

function nameOf(point) {
  if ("seed" in point) return `seed ${point.seed}` + (point.label === null ? "" : `, ${className(point.label)}`);
  if ("latents" in point) return point.name || "projected";
  return `${Math.round(point.t * 100)} % from A to B`;
}

function className(label) {
  if (typeof label === "object") return Object.entries(label).map(([name, value]) => `${name} ${value}`).join(", ");
  const names = state.models.find((m) => m.classes.length)?.classes || [];
  const name = names[label] ?? `${label}`;
  return /^\d+$/.test(name) ? `class ${name}` : name;
}

/** A point as the server takes it. */
function plain(point) {
  if ("seed" in point) return { seed: point.seed, label: point.label };
  if ("latents" in point) return { latents: point.latents };
  return { start: plain(point.start), end: plain(point.end), t: point.t };
}

function recipe() {
  return {
    point: plain(state.point),
    truncation: $("truncated").checked ? Number($("truncation").value) : null,
    center: $("center").value,
    mix: $("mixed").checked ? {
      seed: whole($("mix-seed")), first: whole($("mix-first")), last: whole($("mix-last")),
    } : null,
    walk: state.method ? { method: state.method, amounts: state.amounts } : null,
    noise: $("noise").value,
    translate: [Number($("x").value), Number($("y").value)],
    rotate: Number($("rotate").value),
  };
}

function whole(input) {
  const value = Math.round(Number(input.value));
  return Math.min(Math.max(Number.isFinite(value) ? value : 0, 0), Number(input.max) || BIGGEST_SEED);
}

/** The name of another model that latents in a point belong to, or null. */
function owner(point, number) {
  if ("seed" in point) return null;
  if ("latents" in point) return point.model === number ? null : state.models[point.model].name;
  return owner(point.start, number) ?? owner(point.end, number);
}

/** The part of a recipe that a model supports: the controls serve both runs. */
function suited(wanted, model) {
  const own = { ...wanted };
  if (!model.truncation) own.truncation = null;
  if (model.truncation === "threshold" && own.truncation !== null) own.truncation = Math.max(own.truncation, 0.04);
  if (!model.styles) Object.assign(own, { mix: null, center: "mean" });
  if (!model.classes.length && !model.attributes.length) own.center = "mean";
  if (own.mix) own.mix = { ...own.mix, first: Math.min(own.mix.first, model.styles - 1), last: Math.min(own.mix.last, model.styles - 1) };
  if (!model.supports_transform) Object.assign(own, { translate: [0, 0], rotate: 0 });
  if (!model.noise) own.noise = "const";
  if (!model.walks.includes(own.walk?.method)) own.walk = null;
  return own;
}

function render() {
  for (const output of document.querySelectorAll("output")) output.textContent = $(output.htmlFor.value).value;
  const wanted = recipe();
  canvases.forEach((canvas, number) => {
    const other = owner(state.point, number);
    if (other === null) canvas.draw(suited(wanted, state.models[number]));
    else canvas.error.textContent = `${other} alone has these latents`;
  });
}

// Controls ------------------------------------------------------------------------------------------------------

function setSeed(seed) {
  $("seed").value = seed;
  readLatent();
}

function readLatent() {
  const given = Object.entries(state.attributes);
  const own = $("label").value === "" ? null : Number($("label").value);
  const label = given.length ? Object.fromEntries(given) : own;
  state.point = { seed: whole($("seed")), label };
  render();
}

function step(by) {
  setSeed((whole($("seed")) + by + BIGGEST_SEED + 1) % (BIGGEST_SEED + 1));
}

function buildControls() {
  const first = state.models[0];
  const any = (key) => state.models.some((model) => model[key]);
  $("models").textContent = state.models
    .map((m) => `${m.name}: ${m.kind}, ${m.sample}, ${m.kimg} kimg`).join(" · ");
  document.title = `${state.models.map((m) => m.name).join(" and ")} – gan_lab explore`;
  const classes = state.models.map((m) => m.classes).sort((a, b) => b.length - a.length)[0];
  $("label-row").hidden = !classes.length;
  $("label").replaceChildren(new Option("as in the data", ""), ...classes.map((name, i) => new Option(name, i)));
  $("truncation-part").hidden = !any("truncation");
  if (first.truncation === "threshold") {
    $("truncation-name").textContent = "threshold of z";
    Object.assign($("truncation"), { min: 0.04, max: 2, value: 1 });
  }
  const attributes = state.models.find((m) => m.attributes.length)?.attributes || [];
  $("attributes-part").hidden = !attributes.length;
  $("attributes").replaceChildren(...attributes.map(attributeSlider));
  $("center-row").hidden = !any("styles") || !(classes.length || attributes.length);
  $("mix-part").hidden = !any("styles");
  const layers = Math.max(...state.models.map((m) => m.styles));
  for (const id of ["mix-first", "mix-last"]) $(id).max = layers - 1;
  $("mix-last").value = layers - 1;
  for (const [name, [from, to]] of Object.entries(state.models.find((m) => m.styles)?.levels || {})) {
    const button = text("button", name);
    button.type = "button";
    button.addEventListener("click", () => {
      $("mix-first").value = from;
      $("mix-last").value = to;
      $("mixed").checked = true;
      render();
    });
    if (from <= to) $("levels").append(button);
  }
  const methods = new Set(state.models.flatMap((m) => m.walks));
  $("walk-part").hidden = !methods.size;
  for (const option of [...$("method").options]) if (option.value && !methods.has(option.value)) option.remove();
  $("noise-part").hidden = !any("noise");
  $("transform-part").hidden = !any("supports_transform");
  $("project-part").hidden = !any("projects");
  $("listen").hidden = canvases[0].kind !== "audio";
}

function attributeSlider([name, low, high], i) {
  const label = text("label", `${name} `);
  const value = Object.assign(text("span", "as drawn"), { id: `value-${i}` });
  const input = Object.assign(document.createElement("input"), {
    type: "range", id: `attribute-${i}`, min: low, max: high, step: (high - low) / 100 || 1, value: (low + high) / 2,
  });
  input.addEventListener("input", () => {
    state.attributes[name] = Number(input.value);
    value.textContent = input.value;
    readLatent();
  });
  label.append(value, input);
  return label;
}

/** Let the sliders of attributes show those that are given; the others are as the seed draws them. */
function showAttributes() {
  const attributes = state.models.find((m) => m.attributes.length)?.attributes || [];
  attributes.forEach(([name, low, high], i) => {
    const value = state.attributes[name];
    $(`attribute-${i}`).value = value ?? (low + high) / 2;
    $(`value-${i}`).textContent = value ?? "as drawn";
  });
}

async function chooseMethod() {
  state.method = $("method").value;
  state.amounts = [];
  $("directions").replaceChildren();
  if (!state.method) return render();
  say("finding directions …");
  try {
    const owner = state.models.findIndex((m) => m.walks.includes(state.method));
    const found = await (await ask(`api/directions?model=${owner}&method=${state.method}`)).json();
    state.amounts = found.shares.map(() => 0);
    found.shares.forEach((share, i) => $("directions").append(slider(i, share)));
    say("");
  } catch (error) {
    say(error.message);
    state.method = $("method").value = "";
  }
  render();
}

function slider(i, share) {
  const label = text("label", `${i + 1}`);
  label.append(text("span", ` (${(100 * share).toFixed(1)} %)`));
  const input = Object.assign(document.createElement("input"), {
    type: "range", id: `direction-${i}`, min: -4, max: 4, step: 0.1, value: 0,
  });
  const output = document.createElement("output");
  output.htmlFor = input.id;
  input.addEventListener("input", () => {
    state.amounts[i] = Number(input.value);
    render();
  });
  label.append(" ", output, input);
  return label;
}

function say(message) {
  $("message").textContent = message;
}

// Pins ----------------------------------------------------------------------------------------------------------

async function pin() {
  const canvas = canvases[0];
  if (!canvas.blob) return;
  // a copy: the image's own URL is revoked with the next image
  const found = { point: structuredClone(state.point), blob: canvas.blob, url: URL.createObjectURL(canvas.blob), name: nameOf(state.point) };
  state.pins.push(found);
  if (!state.ends.a) state.ends.a = found;
  else if (!state.ends.b) state.ends.b = found;
  showPins();
}

function showPins() {
  $("pins").replaceChildren(...state.pins.map((one, i) => {
    const item = document.createElement("li");
    const shown = small(one.blob, one.url, one.name);
    const row = document.createElement("div");
    row.className = "row";
    for (const end of ["a", "b"]) {
      const button = text("button", end.toUpperCase());
      button.title = `${one.name} as ${end.toUpperCase()}`;
      button.setAttribute("aria-label", button.title);
      button.setAttribute("aria-pressed", state.ends[end] === one);
      button.addEventListener("click", () => { state.ends[end] = one; showPins(); focusPin(i, end); });
      button.dataset.end = end;
      row.append(button);
    }
    const show = text("button", "↑");
    show.setAttribute("aria-label", `show ${one.name}`);
    show.addEventListener("click", () => { state.point = structuredClone(one.point); follow(); render(); });
    const drop = text("button", "×");
    drop.setAttribute("aria-label", `remove ${one.name}`);
    drop.addEventListener("click", () => {
      state.pins.splice(i, 1);
      for (const end of ["a", "b"]) if (state.ends[end] === one) state.ends[end] = null;
      URL.revokeObjectURL(one.url);
      showPins();
    });
    row.append(show, drop);
    item.append(shown, text("span", one.name), row);
    return item;
  }));
  $("pins-hint").hidden = state.pins.length >= 2;
  $("between").hidden = !(state.ends.a && state.ends.b);
}

function focusPin(i, end) {
  $("pins").children[i].querySelector(`[data-end="${end}"]`).focus();
}

/** Let the seed's and the class's controls show the point's. */
function follow() {
  if (!("seed" in state.point)) return;
  $("seed").value = state.point.seed;
  const label = state.point.label;
  $("label").value = typeof label === "number" ? label : "";
  state.attributes = label && typeof label === "object" ? { ...label } : {};
  showAttributes();
}

function walkBetween() {
  const { a, b } = state.ends;
  state.point = { start: a.point, end: b.point, t: Number($("t").value) };
  render();
}

function play() {
  if (state.playing) {
    cancelAnimationFrame(state.playing);
    state.playing = null;
    $("play").textContent = "Play";
    return;
  }
  $("play").textContent = "Pause";
  const began = performance.now();
  const tick = (now) => {
    // there and back in six seconds, slow at the ends; a frame waits for the image before it
    if (!canvases[0].busy) {
      $("t").value = (1 - Math.cos((now - began) * Math.PI / 3000)) / 2;
      walkBetween();
    }
    state.playing = requestAnimationFrame(tick);
  };
  state.playing = requestAnimationFrame(tick);
}

// Projection ----------------------------------------------------------------------------------------------------

async function project(file) {
  if (!file || state.projection) return;
  const model = state.models.findIndex((m) => m.projects);
  const form = new FormData();
  form.append("image", file);
  form.append("model", model);
  if (typeof state.point.label === "number") form.append("label", state.point.label);
  try {
    const { id, said } = await (await ask("api/projections", { method: "POST", body: form })).json();
    state.projection = id;
    say(said);
  } catch (error) {
    return say(error.message);
  }
  $("projecting").hidden = false;
  try {
    let now;
    do {
      now = await (await ask(`api/projections/${state.projection}`)).json();
      $("progress").value = now.step / now.steps;
      $("progress-text").textContent = `step ${now.step} of ${now.steps}, mean squared error ${now.error === null ? "…" : now.error.toPrecision(3)}`;
      if (now.error !== null) canvases[model].show(await (await ask(`api/projections/${state.projection}/image`)).blob());
      await new Promise((resolve) => setTimeout(resolve, 250));
    } while (!now.done);
    if (now.failed) throw new Error(now.failed);
    state.point = { latents: now.latents, model, name: file.name };
    say(`${file.name} is found with a mean squared error of ${now.error.toPrecision(3)}; pin it, mix it, walk from it`);
    $("truncated").checked = false;
    render();
  } catch (error) {
    say(error.message);
  } finally {
    state.projection = null;
    $("projecting").hidden = true;
    $("file").value = "";
  }
}

// Start ---------------------------------------------------------------------------------------------------------

function listen() {
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["truncated", "center", "mixed", "mix-seed", "mix-first", "mix-last", "noise", "x", "y", "rotate"])
    $(id).addEventListener("input", render);
  for (const id of ["mix-seed", "mix-first", "mix-last"]) $(id).addEventListener("change", () => { $(id).value = whole($(id)); });
  $("truncation").addEventListener("input", () => { $("truncated").checked = true; render(); });
  $("seed").addEventListener("input", () => { if ($("seed").value !== "") readLatent(); });
  $("label").addEventListener("input", readLatent);
  $("as-drawn").addEventListener("click", () => {
    state.attributes = {};
    showAttributes();
    readLatent();
  });
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("random").addEventListener("click", () => setSeed(Math.floor(Math.random() * 1e6)));
  $("pin").addEventListener("click", pin);
  $("listen").addEventListener("click", () => canvases[0].listen());
  $("t").addEventListener("input", walkBetween);
  $("play").addEventListener("click", play);
  $("method").addEventListener("input", chooseMethod);
  $("still").addEventListener("click", () => {
    state.amounts = state.amounts.map(() => 0);
    for (const input of $("directions").querySelectorAll("input")) input.value = 0;
    render();
  });
  $("file").addEventListener("change", () => project($("file").files[0]));
  $("cancel").addEventListener("click", () => state.projection && ask(`api/projections/${state.projection}`, { method: "DELETE" }).catch((e) => say(e.message)));
  listenToDrops();
  document.addEventListener("keydown", shortcut);
}

function listenToDrops() {
  for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") project(event.dataTransfer.files[0]);
  });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
}

function shortcut(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
  const acts = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), r: () => $("random").click(), p: pin, d: () => canvases[0].download(),
    l: () => canvases[0].kind === "audio" && canvases[0].listen(),
  };
  const act = acts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) {
    event.preventDefault();
    act();
  }
}

async function begin() {
  try {
    state.models = await (await ask("api/models")).json();
  } catch (error) {
    return say(error.message);
  }
  canvases = state.models.map((model, number) => new Canvas(number, model));
  $("figures").append(...canvases.map((canvas) => canvas.figure));
  buildControls();
  listen();
  setSeed(0);
}

begin();
