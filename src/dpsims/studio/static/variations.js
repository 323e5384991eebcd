// Pictures of the same map with other seeds, to choose from.

import * as server from "./server.js";

const COUNT = 6;

export class Variations {
  // chosen(seed) is called for the one that is clicked
  constructor(strip, choices, chosen) {
    this.strip = strip;
    this.choices = choices;
    this.chosen = chosen;
    this.number = 0; // of the newest request; older ones are not wanted any more
  }

  async ask(wish) {
    const mine = ++this.number;
    const kept = { labels: wish.labels.slice(), regions: wish.regions.slice(), blend: 0 };
    const wishes = [...crypto.getRandomValues(new Uint32Array(COUNT))].map((seed) => ({ ...wish, ...kept, seed }));
    this.fresh = true;
    const pictures = await Promise.all(wishes.map((item) => server.generate(item))); // one batch, on the server
    if (mine !== this.number) return;
    this.clear();
    this.choices.replaceChildren(...pictures.map((blob, i) => this.#choice(blob, wishes[i].seed, i + 1)));
    this.strip.hidden = false;
    this.#mark();
  }

  // something has changed: the pictures are of another state
  age() {
    this.fresh = false;
    this.#mark();
  }

  // the one of this seed is what the picture shows
  take(seed) {
    for (const button of this.choices.children) button.ariaPressed = String(button.dataset.seed === String(seed));
    this.fresh = true; // the map is the same
    this.#mark();
  }

  clear() {
    for (const image of this.choices.querySelectorAll("img")) URL.revokeObjectURL(image.src);
    this.choices.replaceChildren();
    this.strip.hidden = true;
  }

  #mark() {
    this.strip.classList.toggle("stale", !this.fresh);
  }

  #choice(blob, seed, number) {
    const button = document.createElement("button");
    const image = document.createElement("img");
    image.src = URL.createObjectURL(blob);
    image.alt = "";
    button.append(image);
    button.ariaLabel = `Take variation ${number}, seed ${seed}`;
    button.dataset.seed = seed;
    button.addEventListener("click", () => this.chosen(seed));
    return button;
  }
}
