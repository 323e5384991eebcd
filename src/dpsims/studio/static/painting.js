// A label map that is painted on, its regions with noise of their own, and its history.

const HISTORY_BYTES = 64 * 1024 * 1024;
export const MAX_REGIONS = 32; // these two as the server's
export const MAX_PIXELS = 1024 * 1024;

export class Painting {
  // noise: {get, set} of the rest of the state (seeds), which is undone with the map
  constructor(width, height, labels, noise) {
    this.noise = noise;
    this.width = width;
    this.height = height;
    this.labels = labels; // Uint16Array, class indices
    this.opened = labels.slice(); // what the eraser brings back
    this.regions = new Uint8Array(width * height); // 0: the picture's own noise
    this.regionSeeds = []; // of regions 1, 2 ...
    this.past = [];
    this.future = [];
    this.dropped = [];
  }

  // to be called before a change that can be undone
  keep() {
    this.past.push(this.#state());
    this.dropped = this.future; // until the change is there to stay
    this.future = [];
    const most = Math.max(2, Math.floor(HISTORY_BYTES / (3 * this.labels.length)));
    if (this.past.length > most) this.past.shift();
  }

  undo() {
    return this.#swap(this.past, this.future);
  }

  redo() {
    return this.#swap(this.future, this.past);
  }

  // takes back the change begun with the last keep(), without a redo
  cancel() {
    if (!this.past.length) return;
    this.#restore(this.past.pop());
    this.future = this.dropped;
  }

  // another map in the place of this one, which undo brings back
  replace({ width, height, labels }) {
    this.keep();
    Object.assign(this, { width, height, labels, opened: labels.slice(), regions: new Uint8Array(labels.length), regionSeeds: [] });
  }

  #state() {
    const { width, height, opened } = this;
    const copies = { labels: this.labels.slice(), regions: this.regions.slice(), regionSeeds: [...this.regionSeeds] };
    return { width, height, opened, ...copies, seeds: this.noise.get() };
  }

  #restore(state) {
    const { seeds, ...rest } = state;
    Object.assign(this, rest);
    this.noise.set(seeds);
  }

  #swap(from, to) {
    if (!from.length) return false;
    to.push(this.#state());
    this.#restore(from.pop());
    return true;
  }

  // a stroke's piece with a round brush; value null: back to what was opened
  line(x0, y0, x1, y1, size, value) {
    const radius = size / 2;
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
    const right = Math.min(this.width - 1, Math.ceil(Math.max(x0, x1) + radius));
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
    const bottom = Math.min(this.height - 1, Math.ceil(Math.max(y0, y1) + radius));
    const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
    const reach = Math.max(radius * radius, 0.5); // a brush of one pixel still hits one
    for (let y = top; y <= bottom; y++) {
      for (let x = left; x <= right; x++) {
        const px = x + 0.5 - x0, py = y + 0.5 - y0;
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const ex = px - along * dx, ey = py - along * dy;
        if (ex * ex + ey * ey <= reach) this.#set(y * this.width + x, value);
      }
    }
  }

  rectangle(x0, y0, x1, y1, value) {
    const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)].map((x) => clamp(Math.floor(x), this.width));
    const [top, bottom] = [Math.min(y0, y1), Math.max(y0, y1)].map((y) => clamp(Math.floor(y), this.height));
    for (let y = top; y <= bottom; y++)
      for (let x = left; x <= right; x++) this.#set(y * this.width + x, value);
  }

  polygon(points, value) {
    for (const i of this.inside(points)) this.#set(i, value);
  }

  fill(x, y, value) {
    for (const i of this.area(x, y)) this.#set(i, value);
  }

  at(x, y) {
    return this.labels[clamp(Math.floor(y), this.height) * this.width + clamp(Math.floor(x), this.width)];
  }

  // pixels whose centres lie inside the polygon (even-odd rule)
  inside(points) {
    const found = [];
    const ys = points.map((p) => p[1]);
    const top = clamp(Math.floor(Math.min(...ys)), this.height);
    const bottom = clamp(Math.ceil(Math.max(...ys)), this.height);
    for (let y = top; y <= bottom; y++) {
      const cuts = [];
      points.forEach(([ax, ay], i) => {
        const [bx, by] = points[(i + 1) % points.length];
        if (ay <= y + 0.5 !== by <= y + 0.5) cuts.push(ax + ((y + 0.5 - ay) / (by - ay)) * (bx - ax));
      });
      cuts.sort((a, b) => a - b);
      for (let k = 0; k + 1 < cuts.length; k += 2) {
        const from = Math.max(0, Math.ceil(cuts[k] - 0.5));
        const to = Math.min(this.width - 1, Math.floor(cuts[k + 1] - 0.5));
        for (let x = from; x <= to; x++) found.push(y * this.width + x);
      }
    }
    return found;
  }

  // pixels of the same class that hang together with this one
  area(x, y) {
    const { width, height, labels } = this;
    const start = clamp(Math.floor(y), height) * width + clamp(Math.floor(x), width);
    const seen = new Uint8Array(labels.length);
    const found = [start];
    seen[start] = 1;
    for (let k = 0; k < found.length; k++) {
      const i = found[k], column = i % width;
      for (const j of [column > 0 ? i - 1 : -1, column < width - 1 ? i + 1 : -1, i - width, i + width]) {
        if (j >= 0 && j < labels.length && !seen[j] && labels[j] === labels[start]) {
          seen[j] = 1;
          found.push(j);
        }
      }
    }
    return found;
  }

  // these pixels get noise of this seed; regions that are painted over altogether are forgotten
  resample(pixels, seed) {
    const number = this.regionSeeds.push(seed);
    for (const i of pixels) this.regions[i] = number;
    const used = new Set(this.regions);
    const kept = this.regionSeeds.map((_, k) => k + 1).filter((k) => used.has(k));
    const renumbered = new Map(kept.map((k, i) => [k, i + 1]));
    this.regions = this.regions.map((k) => renumbered.get(k) ?? 0);
    this.regionSeeds = kept.map((k) => this.regionSeeds[k - 1]);
    return this.regionSeeds.length <= MAX_REGIONS;
  }

  #set(i, value) {
    this.labels[i] = value ?? this.opened[i];
  }
}

function clamp(value, length) {
  return Math.min(length - 1, Math.max(0, value));
}
