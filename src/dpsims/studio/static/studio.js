// The page: its state and its controls.

import { Asking, failed, say } from "./asking.js";
import { ClassList } from "./classes.js";
import { listen } from "./keys.js";
import { MAX_PIXELS, MAX_REGIONS, Painting } from "./painting.js";
import * as server from "./server.js";
import * as session from "./session.js";
import { Tools } from "./tools.js";
import { Variations } from "./variations.js";
import { View } from "./view.js";

const MAX_LINK = 30000; // letters that browsers and messengers take

const $ = (id) => document.getElementById(id);
const state = { models: [], model: null, painting: null };
const view = new View($("map"), $("picture"));
const asking = new Asking(wish, show);
const tell = (action) => asking.tell(action);
const classes = new ClassList($("palette"), $("search"), () => {
  if (!["brush", "fill", "rectangle", "polygon"].includes(tools.tool)) chooseTool("brush");
});
const variations = new Variations($("strip"), $("choices"), (seed) => {
  reseed({ seed, blend: 0 });
  variations.take(seed);
});
const vary = tell(() => variations.ask(wish()));
const tools = new Tools(view, {
  painting: () => state.painting,
  klass: () => classes.index,
  setClass: (index) => classes.choose(index),
  size: () => Number($("size").value),
  begin,
  changed,
  resample,
  hover: (index) => { $("under").textContent = index === null ? "" : classes.name(index); },
});

function wish() {
  const { model, painting } = state;
  const { width, height, labels, regions, regionSeeds } = painting;
  return { model, width, height, labels, regions, regionSeeds, ...seeds(), size: $("works-at").value };
}

function seeds() {
  return { seed: number("seed"), blendSeed: number("blend-seed"), blend: number("blend") / 100 };
}

function setSeeds({ seed, blendSeed, blend }) {
  $("seed").value = seed;
  $("blend-seed").value = blendSeed;
  $("blend").value = 100 * blend;
}

function number(id) {
  const field = $(id), value = Math.round(Number(field.value)) || 0;
  return Math.min(Number(field.max), Math.max(Number(field.min), value));
}

// whether the picture is of what is there
function show(bitmap, { model, width, height }) {
  const { painting } = state;
  if (model !== state.model || width !== painting.width || height !== painting.height) return false;
  view.setPicture(bitmap);
  return true;
}

// before a change that can be undone
function begin() {
  say(""); // what was said is seen
  if (location.hash) history.replaceState(null, "", location.pathname); // it was of the state before
  view.keepBefore();
  state.painting.keep();
}

// after each part of a change of the map
function changed() {
  variations.age();
  view.recolor();
  $("undo").disabled = !state.painting.past.length;
  $("redo").disabled = !state.painting.future.length;
  $("reset-regions").disabled = !state.painting.regionSeeds.length;
  asking.ask();
}

// ---- maps, models, sessions

let opening = 0; // counts what is opened: what comes late is not wanted any more

// runs `fetch`, then `open` with its result, unless something else was opened meanwhile
async function openNewest(fetch, open) {
  const mine = ++opening;
  const result = await fetch();
  if (mine === opening) open(result);
}

// a map of the chosen model's classes; undo brings back the one before
function openMap(map) {
  view.clearPictures();
  tools.leavePolygon();
  if (state.painting) state.painting.replace(map);
  else state.painting = new Painting(map.width, map.height, map.labels, { get: seeds, set: setSeeds });
  view.show(state.painting, palette(), true);
  changed();
}

function palette() {
  const colors = new Uint32Array(state.model.classes.length + 1);
  for (const { index, color: [r, g, b] } of [...state.model.classes, state.model.unlabelled])
    colors[index] = (255 << 24) | (b << 16) | (g << 8) | r;
  return colors;
}

function sameClasses(one, other) {
  return JSON.stringify(one.classes) === JSON.stringify(other.classes);
}

// chooses the model and, where its classes are others, opens `map`
function chooseModel(model, map = null) {
  const others = !state.model || !sameClasses(state.model, model);
  if (others) state.painting = null; // its history is of other classes
  state.model = model;
  $("model").value = model.name;
  const options = model.examples.map((title, i) => new Option(title, i));
  $("examples").replaceChildren(new Option("choose…", ""), ...options);
  $("examples").disabled = !options.length;
  for (const button of document.querySelectorAll('[data-tool="resample"]')) button.disabled = !model.region_noise;
  classes.show(model);
  if (map !== null) openMap(map);
  else asking.ask();
}

// its first example that can be read, or a blank map
async function firstMap(model) {
  for (let i = 0; i < model.examples.length && i < 3; i++) {
    try {
      return await server.example(model, i);
    } catch (error) {
      if (error.status === 401 || error.status === 0) throw error;
      say(error.message, true);
    }
  }
  return blank(2 * model.width, 2 * model.height, 0);
}

async function switchModel(model) {
  if (sameClasses(state.model, model)) {
    opening++;
    chooseModel(model);
    return;
  }
  const painted = state.painting.past.length > 0;
  if (painted && !confirm(`${model.name} has other classes: the painted map cannot stay. Go on?`)) {
    $("model").value = state.model.name;
    return;
  }
  try {
    await openNewest(() => firstMap(model), (map) => chooseModel(model, map));
  } finally {
    $("model").value = state.model.name;
  }
}

function blank(width, height, value) {
  const fit = Math.min(1, Math.sqrt(MAX_PIXELS / (width * height)));
  const [w, h] = [width, height].map((side) => Math.max(8, Math.floor(side * fit)));
  return { width: w, height: h, labels: new Uint16Array(w * h).fill(value) };
}

async function openFile(file) {
  const isSession = file.name.endsWith(".json");
  const read = isSession ? async () => session.fromJson(await file.text()) : () => server.readMap(file, state.model);
  await openNewest(read, (content) => {
    const note = isSession ? restore(content) : openMap(content);
    say(note ?? `opened ${file.name}`);
  });
}

// gives what is to be said, or nothing; raises Error for a session that is not of a model here
function restore(values) {
  const model = state.models.find((item) => item.name === values.model);
  if (!model) throw new Error(`this session is of the model ${values.model}, which is not here`);
  if (JSON.stringify(model.classes.map((c) => c.name)) !== JSON.stringify(values.classes))
    throw new Error(`this session is of another model named ${values.model}: its classes differ`);
  chooseModel(model, values);
  setSeeds(values);
  $("works-at").value = values.size;
  Object.assign(state.painting, { regions: values.regions, regionSeeds: values.regionSeeds });
  changed();
  return model.digest === values.digest ? null : `${model.name} has other weights than when this was saved: the picture differs`;
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

function reseed(changes) {
  begin();
  setSeeds({ ...seeds(), ...changes });
  changed();
}

function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}

function resample(pixels) {
  begin();
  if (!state.painting.resample(pixels, newSeed())) {
    state.painting.cancel();
    say(`there are ${MAX_REGIONS} resampled areas already; reset them, or undo`, true);
    return;
  }
  changed();
}

function resetRegions() {
  begin();
  state.painting.regions.fill(0);
  state.painting.regionSeeds = [];
  changed();
}

// ---- tools

function chooseTool(name) {
  tools.choose(name);
  for (const button of $("tools").children) {
    button.ariaPressed = String(button.dataset.tool === name);
    if (button.dataset.tool === name) say(button.title);
  }
}

function swap(direction) {
  const { width, height } = state.painting;
  view.keepBefore();
  if (!state.painting[direction]()) return;
  const resized = width !== state.painting.width || height !== state.painting.height;
  if (resized) view.clearPictures();
  view.show(state.painting, palette(), resized);
  changed();
}

function before(held) {
  view.showBefore = held;
  view.draw();
}

// ---- controls

function controls() {
  for (const button of $("tools").children) button.addEventListener("click", () => chooseTool(button.dataset.tool));
  const clicks = {
    undo: () => swap("undo"),
    redo: () => swap("redo"),
    dice: () => reseed({ seed: newSeed() }),
    "blend-dice": () => reseed({ blendSeed: newSeed() }),
    "reset-regions": resetRegions,
    vary,
    "close-strip": () => variations.clear(),
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
  for (const id of ["seed", "blend-seed", "blend", "works-at"]) {
    let kept = false; // once for all values on the way from one to the next
    $(id).addEventListener("beforeinput", () => { kept ||= (begin(), true); });
    $(id).addEventListener("pointerdown", () => { kept ||= (begin(), true); });
    $(id).addEventListener("input", () => asking.ask());
    $(id).addEventListener("change", () => {
      kept = false;
      if ($(id).type === "number" && $(id).value !== String(number(id))) {
        say(`seeds are 0 to ${Number($(id).max).toLocaleString("en")}`, true);
        $(id).value = number(id);
      }
      changed();
    });
  }
  $("opacity").addEventListener("input", () => { view.opacity = $("opacity").value / 100; view.draw(); });
  $("outlines").addEventListener("change", () => { view.outlines = $("outlines").checked; view.recolor(); });
  $("model").addEventListener("change", tell(() => switchModel(state.models.find((m) => m.name === $("model").value))));
  $("examples").addEventListener("change", tell(async () => {
    const chosen = $("examples").value;
    if (chosen !== "") await openNewest(() => server.example(state.model, Number(chosen)), openMap);
  }));
  $("file").addEventListener("change", tell(async () => {
    const [file] = $("file").files;
    if (file) await openFile(file);
    $("file").value = "";
  }));
  $("new-map").addEventListener("close", () => {
    if ($("new-map").returnValue !== "make") return;
    const [width, height] = [number("new-width"), number("new-height")];
    if (width * height > MAX_PIXELS) say(`at most ${MAX_PIXELS.toLocaleString("en")} pixels`, true);
    else openMap(blank(width, height, classes.index));
  });
  for (const start of ["pointerdown", "keydown"]) $("before").addEventListener(start, () => before(true));
  for (const end of ["pointerup", "pointerleave", "blur", "keyup"]) $("before").addEventListener(end, () => before(false));
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", tell(async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files.length) await openFile(event.dataTransfer.files[0]);
  }));
  window.addEventListener("hashchange", tell(restoreFromAddress));
  window.addEventListener("beforeunload", (event) => {
    if (state.painting?.past.length && !location.hash) event.preventDefault(); // with a link, nothing is lost
  });
}

function askForBlank() {
  $("new-width").value = state.painting.width;
  $("new-height").value = state.painting.height;
  $("new-map").returnValue = "";
  $("new-map").showModal();
}

function resize(factor) {
  const field = $("size"), value = Number(field.value);
  field.value = factor > 1 ? Math.max(value + 1, value * factor) : Math.min(value - 1, value * factor);
}

function keys() {
  const named = {
    "[": () => resize(0.8), "]": () => resize(1.25), d: () => reseed({ seed: newSeed() }), v: vary, x: () => classes.choose(classes.last),
    "/": () => $("search").focus(), "?": () => $("keys").showModal(), "+": () => view.zoom(1.25), "=": () => view.zoom(1.25),
    "-": () => view.zoom(0.8), fit: () => view.fit(), Enter: () => tools.closePolygon(), Escape: () => tools.leavePolygon(),
    o: () => $("outlines").click(),
  };
  listen({
    tool: (name) => { if (!document.querySelector(`[data-tool="${name}"]`).disabled) chooseTool(name); },
    class: (place) => classes.click(place),
    undo: () => swap("undo"),
    redo: () => swap("redo"),
    hand: (held) => { tools.panning = held; },
    before,
    keys: named,
  });
}

async function restoreFromAddress() {
  const text = new URLSearchParams(location.hash.slice(1)).get("session");
  if (!text) return false;
  await openNewest(() => session.fromFragment(text), (values) => {
    const note = restore(values);
    if (note) say(note);
  });
  return true;
}

async function start() {
  try {
    state.models = await server.models();
    $("model").replaceChildren(...state.models.map((model) => new Option(model.name, model.name)));
    say("");
    let problem = null;
    try {
      if (await restoreFromAddress()) return begun();
    } catch (error) {
      problem = error; // to be said once there is something to see
    }
    const map = await firstMap(state.models[0]);
    chooseModel(state.models[0], map);
    if (problem) say(problem.message, true);
    begun();
  } catch (error) {
    const pause = await failed(error);
    if (pause !== null) setTimeout(start, pause);
  }
}

function begun() {
  controls();
  keys();
  const { labels } = state.painting, counts = new Map();
  for (const index of labels) counts.set(index, (counts.get(index) ?? 0) + 1);
  // a rare class, so that painting shows, but not one of mere specks
  const byArea = [...counts].sort((a, b) => a[1] - b[1]);
  const [rare] = byArea.find(([, area]) => area >= 0.02 * labels.length) ?? byArea[0];
  if (counts.size > 1) classes.choose(rare);
  const said = $("status").textContent;
  chooseTool("brush");
  if (said) say(said, true);
  changed();
}

start();
