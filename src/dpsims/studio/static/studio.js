// The page: its state, its controls, and when a picture is asked for.

import { MAX_REGIONS, Painting } from "./painting.js";
import * as server from "./server.js";
import * as session from "./session.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";

const PAUSE = 16; // ms after a change until a picture is asked for: about a frame
const VARIATIONS = 6;
const MAX_LINK = 30000; // letters that browsers and messengers take
const MAX_PIXELS = 1024 * 1024; // as the server's

const $ = (id) => document.getElementById(id);
const state = { models: [], model: null, painting: null, klass: 0, lastClass: 0, name: "map" };
const view = new View($("map"), $("picture"));
const tools = new Tools(view, {
  painting: () => state.painting,
  klass: () => state.klass,
  setClass: chooseClass,
  size: () => Number($("size").value),
  changed,
  resample,
  hover: (index) => { $("under").textContent = index === null ? "" : className(index); },
});

// ---- what is wanted, and getting it

function wish() {
  const { model, painting } = state;
  const { width, height, labels, regions, regionSeeds } = painting;
  const seeds = { seed: number("seed"), blendSeed: number("blend-seed"), blend: number("blend") / 100 };
  return { model, width, height, labels, regions, regionSeeds, ...seeds, size: $("works-at").value };
}

function number(id) {
  const field = $(id), value = Math.round(Number(field.value)) || 0;
  return Math.min(Number(field.max), Math.max(Number(field.min), value));
}

let wanted = 0; // counts changes
let shown = 0; // the change whose picture is seen
let asking = false;
let acting = 0; // controls' actions that go on
let timer = null;

function changed() {
  view.recolor();
  $("undo").disabled = !state.painting.past.length;
  $("redo").disabled = !state.painting.future.length;
  $("reset-regions").hidden = !state.painting.regionSeeds.length;
  $("strip").classList.add("stale");
  ask();
}

function ask(pause = PAUSE) {
  wanted++;
  mark();
  performance.mark(`change ${wanted}`);
  if (timer === null && !asking) timer = setTimeout(refresh, pause);
}

// One request at a time, always of the newest state: no older answer can overwrite a newer one.
async function refresh() {
  timer = null;
  asking = true;
  const number = wanted, model = state.model, begun = performance.now();
  let pause = 0;
  try {
    const bitmap = await createImageBitmap(await server.generate(wish()));
    if (model === state.model) {
      const shownBefore = shown;
      view.setPicture(bitmap);
      shown = number;
      document.body.dataset.shown = number;
      performance.measure("from change to picture", { start: `change ${number}`, detail: number });
      performance.clearMeasures(); // observers have seen it
      for (let old = number; old > shownBefore; old--) performance.clearMarks(`change ${old}`);
      $("timing").textContent = `${Math.round(performance.now() - begun)} ms`;
      say("");
    }
  } catch (error) {
    pause = await failed(error);
    if (pause === null) shown = number; // asking the same again would not help
  } finally {
    asking = false;
    mark();
  }
  if (wanted > shown) timer = setTimeout(refresh, pause ?? 0);
}

// whether anything is on its way
function mark() {
  document.body.classList.toggle("busy", wanted > shown || acting > 0);
}

// says why; ms until it is worth another try, or null
async function failed(error) {
  if (error.status === 401 && server.askForToken()) return 0;
  say(error.message, true);
  return error.retryAfter === null || error.retryAfter === undefined ? null : 1000 * error.retryAfter;
}

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", problem);
}

// runs a control's action; what goes wrong is said
function tell(action) {
  return async (...given) => {
    acting++;
    mark();
    try {
      await action(...given);
    } catch (error) {
      await failed(error);
    } finally {
      acting--;
      mark();
    }
  };
}

// ---- maps, models, sessions

function openMap({ name, width, height, labels }) {
  state.name = name;
  state.painting = new Painting(width, height, labels);
  tools.leavePolygon();
  view.clearPictures();
  view.show(state.painting, palette());
  changed();
}

function palette() {
  const colors = new Uint32Array(state.model.classes.length + 1);
  for (const { index, color: [r, g, b] } of [...state.model.classes, state.model.unlabelled])
    colors[index] = (255 << 24) | (b << 16) | (g << 8) | r;
  return colors;
}

function chooseModel(name) {
  state.model = state.models.find((model) => model.name === name) ?? state.models[0];
  $("model").value = state.model.name;
  const options = state.model.examples.map((title, i) => new Option(title, i));
  $("examples").replaceChildren(new Option("…", ""), ...options);
  $("examples").disabled = !options.length;
  for (const button of document.querySelectorAll('[data-tool="resample"]')) button.disabled = !state.model.region_noise;
  listClasses();
  chooseClass(0);
}

async function startWith(model) {
  const same = state.painting && JSON.stringify(state.model.classes) === JSON.stringify(model.classes);
  chooseModel(model.name);
  if (same) {
    if (!model.region_noise) resetRegions();
    else ask(0);
  } else if (model.examples.length) {
    openMap(await server.example(model, 0));
  } else {
    openMap(blank(2 * model.width, 2 * model.height, 0));
  }
}

function blank(width, height, value) {
  return { name: "blank", width, height, labels: new Uint16Array(width * height).fill(value) };
}

async function openFile(file) {
  if (file.name.endsWith(".json")) restore(await session.fromJson(await file.text()));
  else openMap(await server.readMap(file, state.model));
  say(`opened ${file.name}`);
}

function restore(values) {
  const model = state.models.find((item) => item.name === values.model);
  if (!model) throw new Error(`this session is of the model ${values.model}, which is not here`);
  if (JSON.stringify(model.classes.map((c) => c.name)) !== JSON.stringify(values.classes))
    throw new Error(`this session is of another model named ${values.model}: its classes differ`);
  if (!values.labels.every((index) => index <= model.classes.length)) throw new Error("this session is damaged");
  chooseModel(model.name);
  $("seed").value = values.seed;
  $("blend-seed").value = values.blendSeed;
  $("blend").value = 100 * values.blend;
  $("works-at").value = values.size;
  openMap({ name: "session", ...values });
  Object.assign(state.painting, { regions: values.regions, regionSeeds: values.regionSeeds });
  changed();
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copyLink() {
  const text = await session.toFragment(wish());
  if (text.length > MAX_LINK) throw new Error("this map is too large for a link; use Save session");
  history.replaceState(null, "", `#session=${text}`);
  try {
    await navigator.clipboard.writeText(location.href);
    say("link copied; it is in the address bar, too");
  } catch {
    say("the link is in the address bar");
  }
}

// ---- noise

function dice(id) {
  $(id).value = crypto.getRandomValues(new Uint32Array(1))[0];
  ask(0);
}

function resample(pixels) {
  state.painting.keep();
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  if (!state.painting.resample(pixels, seed)) {
    state.painting.cancel();
    say(`there are ${MAX_REGIONS} resampled areas already; reset them, or undo`, true);
    return;
  }
  changed();
}

function resetRegions() {
  state.painting.keep();
  state.painting.regions.fill(0);
  state.painting.regionSeeds = [];
  changed();
}

async function vary() {
  const seeds = [...crypto.getRandomValues(new Uint32Array(VARIATIONS))];
  const wishes = seeds.map((seed) => ({ ...wish(), labels: state.painting.labels.slice(), seed, blend: 0 }));
  const strip = $("strip");
  const pictures = await Promise.all(wishes.map((item) => server.generate(item))); // one batch, on the server
  for (const image of strip.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  strip.replaceChildren(...pictures.map((blob, i) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    image.src = URL.createObjectURL(blob);
    image.alt = "";
    button.append(image);
    button.ariaLabel = `Take variation ${i + 1}, seed ${seeds[i]}`;
    button.addEventListener("click", () => {
      $("seed").value = seeds[i];
      $("blend").value = 0;
      ask(0);
    });
    return button;
  }));
  strip.hidden = false;
  strip.classList.remove("stale");
}

// ---- classes

function className(index) {
  return state.model.classes[index]?.name ?? state.model.unlabelled.name;
}

function listClasses() {
  const { classes, unlabelled } = state.model;
  const offered = unlabelled.id === null ? classes : [...classes, unlabelled];
  $("palette").replaceChildren(...offered.map((item, i) => {
    const button = document.createElement("button");
    const swatch = document.createElement("span");
    const key = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${item.color.join(" ")})`;
    key.className = "key";
    key.textContent = i < 10 ? (i + 1) % 10 : "";
    button.append(swatch, item.name, key);
    button.ariaLabel = item.name;
    button.dataset.index = item.index;
    button.addEventListener("click", () => {
      chooseClass(item.index);
      if (!["brush", "fill", "rectangle", "polygon"].includes(tools.tool)) chooseTool("brush");
    });
    return button;
  }));
  $("search").value = "";
}

function chooseClass(index) {
  if (index !== state.klass) state.lastClass = state.klass;
  state.klass = index;
  for (const button of $("palette").children) button.ariaPressed = String(Number(button.dataset.index) === index);
}

function search() {
  const text = $("search").value.trim().toLowerCase();
  for (const button of $("palette").children) button.hidden = !button.ariaLabel.toLowerCase().includes(text);
}

function chooseTool(name) {
  tools.choose(name);
  for (const button of $("tools").children) button.ariaPressed = String(button.dataset.tool === name);
}

function swap(ok) {
  if (!ok) return;
  view.show(state.painting, palette());
  changed();
}

// ---- controls

function controls() {
  for (const button of $("tools").children) button.addEventListener("click", () => chooseTool(button.dataset.tool));
  const clicks = {
    undo: () => swap(state.painting.undo()),
    redo: () => swap(state.painting.redo()),
    dice: () => dice("seed"),
    "blend-dice": () => dice("blend-seed"),
    "reset-regions": resetRegions,
    vary: tell(vary),
    "zoom-in": () => view.zoom(1.25),
    "zoom-out": () => view.zoom(0.8),
    "zoom-fit": () => view.fit(),
    open: () => $("file").click(),
    blank: askForBlank,
    help: () => $("keys").showModal(),
    link: tell(copyLink),
    save: tell(async () => download(new Blob([await session.toJson(wish())], { type: "application/json" }), "dpsims-session.json")),
    download: tell(async () => download(await server.generate(wish(), { zip: true }), "dpsims-picture.zip")),
  };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
  for (const id of ["seed", "blend-seed", "blend", "works-at"]) $(id).addEventListener("input", () => ask());
  $("search").addEventListener("input", search);
  $("opacity").addEventListener("input", () => { view.opacity = $("opacity").value / 100; view.draw(); });
  $("outlines").addEventListener("change", () => { view.outlines = $("outlines").checked; view.recolor(); });
  $("model").addEventListener("change", tell(() => startWith(state.models.find((m) => m.name === $("model").value))));
  $("examples").addEventListener("change", tell(async () => {
    if ($("examples").value !== "") openMap(await server.example(state.model, Number($("examples").value)));
  }));
  $("file").addEventListener("change", tell(async () => {
    const [file] = $("file").files;
    $("file").value = "";
    if (file) await openFile(file);
  }));
  $("new-map").addEventListener("close", () => {
    if ($("new-map").returnValue !== "make") return;
    const [width, height] = [number("new-width"), number("new-height")];
    if (width * height > MAX_PIXELS) say(`at most ${MAX_PIXELS.toLocaleString("en")} pixels`, true);
    else openMap(blank(width, height, state.klass));
  });
  const hold = (on) => () => { view.showBefore = on; view.draw(); };
  $("before").addEventListener("pointerdown", hold(true));
  for (const end of ["pointerup", "pointerleave", "blur"]) $("before").addEventListener(end, hold(false));
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", tell(async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files.length) await openFile(event.dataTransfer.files[0]);
  }));
  window.addEventListener("hashchange", tell(restoreFromAddress));
}

function askForBlank() {
  $("new-width").value = state.painting.width;
  $("new-height").value = state.painting.height;
  $("new-map").returnValue = "";
  $("new-map").showModal();
}

const TOOL_KEYS = { b: "brush", e: "eraser", f: "fill", r: "rectangle", p: "polygon", i: "pick", l: "resample", h: "pan" };
const KEYS = {
  "[": () => resize(0.8), "]": () => resize(1.25), d: () => dice("seed"), v: tell(vary), x: () => chooseClass(state.lastClass),
  "/": () => $("search").focus(), "?": () => $("keys").showModal(), "+": () => view.zoom(1.25), "=": () => view.zoom(1.25),
  "-": () => view.zoom(0.8), ")": () => view.fit(), Enter: () => tools.closePolygon(), Escape: () => tools.leavePolygon(),
  o: () => $("outlines").click(),
};

function resize(factor) {
  const field = $("size"), value = Number(field.value);
  field.value = factor > 1 ? Math.max(value + 1, value * factor) : Math.min(value - 1, value * factor);
}

function keyDown(event) {
  if (event.target.matches("input:not([type=range]):not([type=checkbox]), select") || document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && event.target.matches("button")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") swap(event.shiftKey ? state.painting.redo() : state.painting.undo());
    else if (key === "y") swap(state.painting.redo());
    else return;
  } else if (event.altKey) {
    return;
  } else if (key === " " && !event.target.matches("button")) {
    tools.panning = true;
  } else if (key === "\\") {
    view.showBefore = true;
    view.draw();
  } else if (TOOL_KEYS[key]) {
    const button = document.querySelector(`[data-tool="${TOOL_KEYS[key]}"]`);
    if (!button.disabled) chooseTool(TOOL_KEYS[key]);
  } else if (event.code === "Digit0" && event.shiftKey) {
    view.fit();
  } else if (/^[0-9]$/.test(key)) {
    const chosen = $("palette").children[(Number(key) + 9) % 10];
    if (chosen) chosen.click();
  } else if (KEYS[key]) {
    KEYS[key]();
  } else {
    return;
  }
  event.preventDefault();
}

function keyUp(event) {
  if (event.key === " ") tools.panning = false;
  if (event.key === "\\") {
    view.showBefore = false;
    view.draw();
  }
}

async function restoreFromAddress() {
  const text = new URLSearchParams(location.hash.slice(1)).get("session");
  if (text) restore(await session.fromFragment(text));
  return Boolean(text);
}

async function start() {
  try {
    state.models = await server.models();
  } catch (error) {
    const pause = await failed(error);
    if (pause !== null) setTimeout(start, pause);
    return;
  }
  $("model").replaceChildren(...state.models.map((model) => new Option(model.name, model.name)));
  document.addEventListener("keydown", keyDown);
  document.addEventListener("keyup", keyUp);
  controls();
  chooseTool("brush");
  say("");
  try {
    if (await restoreFromAddress()) return;
  } catch (error) {
    await startWith(state.models[0]);
    say(error.message, true);
    return;
  }
  await tell(startWith)(state.models[0]);
}

start();
