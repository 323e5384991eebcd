// When a picture is asked for, and what is said of it.

import * as server from "./server.js";

const PAUSE = 16; // ms after a change until a picture is asked for: about a frame
const status = document.getElementById("status");

// One request at a time, always of the newest state: no older answer can overwrite a newer one.
export class Asking {
  // wish() tells what is wanted now; show(bitmap, wish) takes the picture
  constructor(wish, show) {
    this.wish = wish;
    this.show = show;
    this.wanted = 0; // counts changes
    this.shown = 0; // the change whose picture is seen, or was refused
    this.acting = 0; // controls' actions that go on
    this.asking = false;
    this.timer = null;
  }

  ask() {
    this.wanted++;
    performance.mark(`change ${this.wanted}`);
    this.#mark();
    if (this.timer === null && !this.asking) this.timer = setTimeout(() => this.#refresh(), PAUSE);
  }

  // runs a control's action; what goes wrong is said
  tell(action) {
    return async (...given) => {
      this.acting++;
      this.#mark();
      try {
        await action(...given);
      } catch (error) {
        await failed(error);
      } finally {
        this.acting--;
        this.#mark();
      }
    };
  }

  async #refresh() {
    this.timer = null;
    this.asking = true;
    const number = this.wanted, wish = this.wish(), begun = performance.now();
    let pause = 0;
    try {
      const bitmap = await createImageBitmap(await server.generate(wish));
      if (this.show(bitmap, wish)) this.#count(number, begun);
      else this.shown = number; // of a map that is no longer there; the new one is asked for next
      if (status.dataset.from === "picture") say("");
    } catch (error) {
      pause = await failed(error, "picture");
      if (pause === null) this.shown = number; // asking the same again would not help
    } finally {
      this.asking = false;
      this.#mark();
    }
    if (this.wanted > this.shown) this.timer = setTimeout(() => this.#refresh(), pause ?? 0);
  }

  #count(number, begun) {
    const before = this.shown;
    this.shown = number;
    document.body.dataset.shown = number;
    performance.measure("from change to picture", { start: `change ${number}`, detail: number });
    performance.clearMeasures(); // observers have seen it
    for (let old = number; old > before; old--) performance.clearMarks(`change ${old}`);
    document.getElementById("timing").textContent = `${Math.round(performance.now() - begun)} ms`;
  }

  #mark() {
    document.body.classList.toggle("busy", this.wanted > this.shown || this.acting > 0);
  }
}

// says why; ms until it is worth another try, or null
export async function failed(error, from = "") {
  if (error.status === 401 && server.askForToken()) return 0;
  say(error.message, true, from);
  return error.retryAfter === null || error.retryAfter === undefined ? null : 1000 * error.retryAfter;
}

// from: who says it; the next picture that comes takes back only what is said of pictures
export function say(text, problem = false, from = "") {
  status.textContent = text;
  status.classList.toggle("problem", problem);
  status.dataset.from = from;
}
