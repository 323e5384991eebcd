// A session as text: what is needed to see the same picture again.

import { MAX_PIXELS, MAX_REGIONS } from "./painting.js";
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
  const { name: model, digest, classes } = wish.model;
  const values = { format: FORMAT, model, digest, classes: classes.map((c) => c.name), width, height };
  return JSON.stringify({ ...values, seed, blendSeed, blend, regionSeeds, size, labels: await pack(wish.labels), regions });
}

// raises Error for what is no session, with a number out of range, or of a map that does not fit; a model that is
// not here is the caller's affair
export async function fromJson(text) {
  let values, labels, regions;
  try {
    values = JSON.parse(text);
    if (values.format > FORMAT) throw new Newer("this session was saved by a newer studio");
    labels = new Uint16Array((await inflate(fromBase64(values.labels))).buffer);
    regions = values.regions ? await inflate(fromBase64(values.regions)) : new Uint8Array(labels.length);
  } catch (error) {
    throw error instanceof Newer ? error : new Error("this is no session of the studio, or a damaged one");
  }
  if (!isWhole(values, labels, regions)) throw new Error("this session is damaged: its numbers or its map do not fit");
  return { ...values, labels, regions };
}

class Newer extends Error {}

function isWhole({ width, height, seed, blendSeed, blend, regionSeeds, size, classes }, labels, regions) {
  const sides = [width, height].every((side) => Number.isInteger(side) && side >= 8) && width * height <= MAX_PIXELS;
  if (!sides || labels.length !== width * height || regions.length !== labels.length) return false;
  if (!Array.isArray(regionSeeds) || regionSeeds.length > MAX_REGIONS || !Array.isArray(classes)) return false;
  const seeds = [seed, blendSeed, ...regionSeeds].every((n) => Number.isInteger(n) && n >= 0 && n < 2 ** 32);
  const rest = blend >= 0 && blend <= 1 && ["auto", "map", "model"].includes(size);
  return seeds && rest && regions.every((n) => n <= regionSeeds.length) && labels.every((n) => n <= classes.length);
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
