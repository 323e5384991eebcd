// Two panes, map and picture, that show the same part of it at the same scale.

const MOST = 64; // screen pixels a map pixel

export class View {
  constructor(map, picture) {
    this.panes = [map, picture];
    this.opacity = 0; // of the picture over the map
    this.outlines = true;
    this.picture = null; // ImageBitmap
    this.before = null; // the one before it
    this.showBefore = false;
    this.marks = []; // points of a shape that is being drawn, in map pixels
    this.closable = false; // a click on the first of them ends the shape
    this.cursor = null; // {x, y, size}
    this.sheet = document.createElement("canvas"); // the map in colours, a pixel each
    this.scale = 1; // screen pixels a map pixel
    this.whole = true; // all of the map is seen
    this.middle = [0, 0]; // of both panes, in map pixels
    this.waiting = false;
    this.stale = false; // the sheet is older than the map
    const observer = new ResizeObserver(() => this.#measure());
    for (const pane of this.panes) observer.observe(pane);
  }

  // whole: all of it is to be seen, as after another map was opened
  show(painting, palette, whole) {
    this.painting = painting;
    this.palette = palette;
    this.edges = palette.map(edgeColor);
    if (whole) this.fit();
    this.recolor();
  }

  // after the map has changed
  recolor() {
    this.stale = true;
    this.draw();
  }

  #color() {
    const { width, height, labels } = this.painting;
    this.sheet.width = width;
    this.sheet.height = height;
    const context = this.sheet.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < labels.length; i++) pixels[i] = this.palette[labels[i]];
    if (this.outlines) {
      for (let y = 0, i = 0; y < height; y++)
        for (let x = 0; x < width; x++, i++)
          if ((x + 1 < width && labels[i] !== labels[i + 1]) || (y + 1 < height && labels[i] !== labels[i + width]))
            pixels[i] = this.edges[labels[i]];
    }
    context.putImageData(image, 0, 0);
    this.stale = false;
  }

  #measure() {
    for (const pane of this.panes) {
      const box = pane.getBoundingClientRect(), ratio = devicePixelRatio || 1;
      const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
      if (pane.width !== width) pane.width = width;
      if (pane.height !== height) pane.height = height;
    }
    if (this.whole) this.fit(); // what was seen whole stays so; what was zoomed stays where it is
    else this.draw();
  }

  fit() {
    this.whole = true;
    if (!this.painting) return;
    const { width, height } = this.painting;
    this.scale = 0.98 * Math.min(...this.panes.flatMap((pane) => [pane.width / width, pane.height / height]));
    this.middle = [width / 2, height / 2];
    this.draw();
  }

  // around a point that stays where it is, in map pixels
  zoom(factor, [x, y] = this.middle) {
    const before = this.scale;
    this.whole = false;
    this.scale = Math.min(MOST, Math.max(0.1, before * factor));
    const rest = before / this.scale;
    this.middle = [x + (this.middle[0] - x) * rest, y + (this.middle[1] - y) * rest];
    this.draw();
  }

  // by screen pixels
  pan(dx, dy) {
    this.whole = false;
    this.middle = [this.middle[0] - dx / this.scale, this.middle[1] - dy / this.scale];
    this.draw();
  }

  // of an event in a pane: in screen pixels from the pane's middle
  place(event, pane = event.target) {
    const box = pane.getBoundingClientRect(), ratio = pane.width / box.width;
    return [(event.clientX - box.left - box.width / 2) * ratio, (event.clientY - box.top - box.height / 2) * ratio];
  }

  // of an event in a pane: in map pixels
  point(event, pane = event.target) {
    const [x, y] = this.place(event, pane);
    return [this.middle[0] + x / this.scale, this.middle[1] + y / this.scale];
  }

  setPicture(picture) {
    if (this.picture !== this.before) this.picture?.close();
    this.picture = picture;
    this.draw();
  }

  // the picture that is seen now is what `Before` shows
  keepBefore() {
    if (this.before !== this.picture) this.before?.close();
    this.before = this.picture;
  }

  clearPictures() {
    this.keepBefore();
    this.before?.close();
    this.before = this.picture = null;
  }

  draw() {
    if (this.waiting || !this.painting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.stale) this.#color();
      this.#paint(this.panes[0], true);
      this.#paint(this.panes[1], false);
    });
  }

  #paint(pane, isMap) {
    const { width, height } = this.painting;
    const context = pane.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, pane.width, pane.height);
    const [x, y] = this.middle;
    context.setTransform(this.scale, 0, 0, this.scale, pane.width / 2 - x * this.scale, pane.height / 2 - y * this.scale);
    const picture = this.showBefore && this.before ? this.before : this.picture;
    if (isMap) {
      context.imageSmoothingEnabled = this.scale < 1;
      context.drawImage(this.sheet, 0, 0);
    }
    context.imageSmoothingEnabled = true;
    context.globalAlpha = isMap ? this.opacity : 1;
    if (picture && context.globalAlpha > 0) context.drawImage(picture, 0, 0, width, height);
    context.globalAlpha = 1;
    this.#paintMarks(context);
  }

  #paintMarks(context) {
    const path = new Path2D();
    if (this.marks.length) {
      path.moveTo(...this.marks[0]);
      for (const point of this.marks.slice(1)) path.lineTo(...point);
    }
    if (this.closable) { // the corner that closes the shape
      const [x, y] = this.marks[0], radius = 6 / this.scale;
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
    }
    if (this.cursor) {
      const { x, y, size } = this.cursor;
      path.moveTo(x + size / 2, y);
      path.arc(x, y, size / 2, 0, 2 * Math.PI);
    }
    // dark on light: seen on any ground
    for (const [color, width] of [["#000", 3], ["#fff", 1.2]]) {
      context.strokeStyle = color;
      context.lineWidth = (width * (devicePixelRatio || 1)) / this.scale;
      context.stroke(path);
    }
  }
}

// of an outline inside a class of this colour (0xAABBGGRR): told from it by lightness alone
function edgeColor(color) {
  const [red, green, blue] = [color & 255, (color >>> 8) & 255, (color >>> 16) & 255];
  const light = 0.299 * red + 0.587 * green + 0.114 * blue;
  const mixed = light > 90 ? (part) => part >> 2 : (part) => 128 + (part >> 1);
  return ((255 << 24) | (mixed(blue) << 16) | (mixed(green) << 8) | mixed(red)) >>> 0;
}
