// The list of classes to paint with.

export class ClassList {
  // chosen() is called when one was clicked
  constructor(list, search, chosen) {
    this.list = list;
    this.search = search;
    this.chosen = chosen;
    this.index = this.last = 0; // what is painted with, and what was before
    search.addEventListener("input", () => this.#find());
    search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") [...this.list.children].find((button) => !button.hidden)?.click();
      if (event.key === "Enter" || event.key === "Escape") {
        this.search.value = "";
        this.#find();
        this.search.blur();
      }
    });
  }

  show(model) {
    this.model = model;
    const { classes, unlabelled } = model;
    const offered = unlabelled.id === null ? classes : [...classes, unlabelled];
    this.list.replaceChildren(...offered.map((item, i) => this.#button(item, i < 10 ? String((i + 1) % 10) : "")));
    this.search.value = "";
    this.choose(0);
  }

  choose(index) {
    if (index !== this.index) this.last = this.index;
    this.index = index;
    for (const button of this.list.children) button.ariaPressed = String(Number(button.dataset.index) === index);
  }

  name(index) {
    return this.model.classes[index]?.name ?? this.model.unlabelled.name;
  }

  click(place) {
    this.list.children[place]?.click();
  }

  #button({ index, name, color }, digit) {
    const button = document.createElement("button");
    const swatch = document.createElement("span");
    const key = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${color.join(" ")})`;
    key.className = "key";
    key.textContent = digit;
    button.append(swatch, name, key);
    button.ariaLabel = name;
    button.dataset.index = index;
    button.addEventListener("click", () => {
      this.choose(index);
      this.chosen();
    });
    return button;
  }

  #find() {
    const text = this.search.value.trim().toLowerCase();
    for (const button of this.list.children) button.hidden = !button.ariaLabel.toLowerCase().includes(text);
    this.search.setCustomValidity([...this.list.children].every((button) => button.hidden) ? "no such class" : "");
    this.search.reportValidity();
  }
}
