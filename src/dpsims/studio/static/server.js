// The API, from the page's side.

import { greyPng } from "./png.js";

// The token may come with the address (#token=...); it is kept for this tab and leaves the address bar.
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {
  sessionStorage.setItem("token", fragment.get("token"));
  fragment.delete("token");
  history.replaceState(null, "", fragment.size ? `#${fragment}` : location.pathname);
}

export class Refusal extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const PATIENCE = 70000; // ms, a little more than the server's own

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Refusal(0, "the server cannot be reached", 2);
  }
  if (answer.ok) return answer;
  let detail = answer.statusText;
  try {
    detail = (await answer.json()).detail;
  } catch { /* not ours: the status has to do */ }
  const retry = answer.headers.get("Retry-After");
  throw new Refusal(answer.status, detail, retry === null ? null : Number(retry));
}

export async function models() {
  return (await ask("/v1/models")).json();
}

export function askForToken() {
  const token = prompt("This studio wants a token (the word given to `dpsims studio --token`):");
  if (token === null) return false;
  sessionStorage.setItem("token", token.trim());
  return true;
}

function content(map, model) {
  const bytes = Uint8Array.from(atob(map.indices), (letter) => letter.charCodeAt(0));
  const labels = model.classes.length < 256 ? Uint16Array.from(bytes) : new Uint16Array(bytes.buffer);
  return { name: map.name, width: map.width, height: map.height, labels };
}

export async function example(model, number) {
  const answer = await ask(`/v1/models/${encodeURIComponent(model.name)}/examples/${number}`);
  return content(await answer.json(), model);
}

export async function readMap(file, model) {
  const form = new FormData();
  form.append("map", file);
  form.append("model", model.name);
  return content(await (await ask("/v1/maps", { method: "POST", body: form })).json(), model);
}

// wish: {model, width, height, labels, seed, blendSeed, blend, regions, regionSeeds, size}
export async function generate(wish, { zip = false } = {}) {
  const { model, width, height } = wish;
  const ids = [...model.classes.map((c) => c.id), model.unlabelled.id ?? model.classes[0].id];
  const form = new FormData();
  form.append("map", await greyPng(wish.labels.map((index) => ids[index]), width, height), "map.png");
  form.append("model", model.name);
  form.append("seed", wish.seed);
  form.append("size", wish.size);
  if (wish.blend > 0) {
    form.append("blend_seed", wish.blendSeed);
    form.append("blend", wish.blend);
  }
  if (wish.regionSeeds.length && model.region_noise) {
    form.append("regions", await greyPng(wish.regions, width, height), "regions.png");
    for (const seed of wish.regionSeeds) form.append("region_seeds", seed);
  }
  if (zip) form.append("format", "zip");
  return (await ask("/v1/generate", { method: "POST", body: form })).blob();
}
