// A session as text: what is needed to see the same picture again.

import { deflate, inflate } from "./png.js";

const FORMAT = 1;

function toBase64(bytes) {
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromBase64(text) {
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
}

async function pack(array) {
  return toBase64(await deflate(new Uint8Array(array.buffer, array.byteOffset, array.byteLength)));
}

export async function toJson(wish) {
  const { width, height, seed, blendSeed, blend, regionSeeds, size } = wish;
  const regions = regionSeeds.length ? await pack(wish.regions) : null;
  const names = wish.model.classes.map((c) => c.name);
  const values = { format: FORMAT, model: wish.model.name, classes: names, width, height, seed, blendSeed, blend, size };
  return JSON.stringify({ ...values, regionSeeds, labels: await pack(wish.labels), regions });
}

// raises Error for what is no session; a model that is not here is the caller's affair
export async function fromJson(text) {
  let values, labels, regions;
  try {
    values = JSON.parse(text);
    labels = new Uint16Array((await inflate(fromBase64(values.labels))).buffer);
    regions = values.regions ? await inflate(fromBase64(values.regions)) : new Uint8Array(labels.length);
  } catch {
    throw new Error("this is no session of the studio, or a damaged one");
  }
  if (values.format > FORMAT) throw new Error("this session was saved by a newer studio");
  const pixels = values.width * values.height;
  const whole = [values.width, values.height, values.seed, values.blendSeed, ...values.regionSeeds].every(Number.isInteger);
  const fits = labels.length === pixels && regions.length === pixels;
  if (!whole || !fits || !regions.every((k) => k <= values.regionSeeds.length))
    throw new Error("this session is damaged: its map does not fit its size");
  return { ...values, labels, regions };
}

export async function toFragment(wish) {
  return toBase64(await deflate(new TextEncoder().encode(await toJson(wish))));
}

export async function fromFragment(text) {
  let json;
  try {
    json = new TextDecoder().decode(await inflate(fromBase64(text)));
  } catch {
    throw new Error("the address holds no whole session: was it cut short?");
  }
  return fromJson(json);
}
