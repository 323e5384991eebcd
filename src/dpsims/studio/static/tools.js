// Pointer (mouse, pen, touch) -> changes of the painting and of the view.

const PEN_ERASER = 32; // of PointerEvent.buttons

export class Tools {
  // on: {painting(), klass(), setClass(index), size(), begin(), changed(), resample(pixels), hover(index or null)};
  // begin() before a change that can be undone, changed() after each part of it
  constructor(view, on) {
    this.view = view;
    this.on = on;
    this.tool = "brush";
    this.panning = false; // while space is held
    this.pointers = new Map(); // of touches: id -> [x, y]
    this.stroke = null; // {id, pen, tool, first, last, points}
    this.corners = []; // of a polygon
    const [map, picture] = view.panes;
    for (const pane of view.panes) {
      pane.addEventListener("pointerdown", (event) => this.#down(event, pane === map));
      pane.addEventListener("pointermove", (event) => this.#move(event, pane === map));
      pane.addEventListener("pointerup", (event) => this.#up(event));
      pane.addEventListener("pointercancel", (event) => this.#leave(event));
      pane.addEventListener("pointerleave", () => this.#hover(null));
      pane.addEventListener("wheel", (event) => {
        event.preventDefault();
        view.zoom(Math.exp(-event.deltaY * 0.0015), view.point(event));
      }, { passive: false });
      pane.addEventListener("contextmenu", (event) => event.preventDefault());
    }
    map.addEventListener("dblclick", () => this.closePolygon());
  }

  choose(tool) {
    this.leavePolygon();
    this.tool = tool;
  }

  leavePolygon() {
    this.corners = [];
    this.#mark([]);
  }

  closePolygon() {
    if (this.tool !== "polygon") return;
    const points = this.corners.filter(([x, y], i, all) => !i || Math.hypot(x - all[i - 1][0], y - all[i - 1][1]) > 0.01);
    this.leavePolygon();
    if (points.length < 3) return;
    this.on.begin();
    this.on.painting().polygon(points, this.on.klass());
    this.on.changed();
  }

  #down(event, onMap) {
    if (event.pointerType === "touch" && this.stroke?.pen) return; // the palm beside the pen
    event.target.setPointerCapture(event.pointerId);
    if (onMap) event.target.focus({ preventScroll: true });
    if (event.pointerType === "touch") {
      this.pointers.set(event.pointerId, this.view.place(event));
      if (this.pointers.size >= 2) { // two fingers: no stroke, but zoom and move
        this.#dropStroke();
        return;
      }
    }
    if (this.stroke) {
      if (event.pointerType !== "pen") return; // one stroke at a time
      this.#dropStroke();
    }
    const point = this.view.point(event);
    const owner = { id: event.pointerId, pen: event.pointerType === "pen", first: point, last: point };
    if (!onMap || this.panning || this.tool === "pan" || event.button === 1) {
      this.stroke = { ...owner, tool: "pan", last: this.view.place(event) };
      return;
    }
    const erasing = event.buttons & PEN_ERASER;
    if (event.button !== 0 && !erasing) return;
    this.stroke = { ...owner, tool: erasing ? "eraser" : this.tool, points: [point] };
    if (this.stroke.tool === "brush" || this.stroke.tool === "eraser") {
      this.on.begin();
      this.#draw([point]);
    }
  }

  #move(event, onMap) {
    const place = this.view.place(event);
    if (this.pointers.has(event.pointerId)) {
      if (this.pointers.size >= 2) {
        if (this.pointers.size === 2) this.#pinch(event.pointerId, place);
        return;
      }
      this.pointers.set(event.pointerId, place);
    }
    const point = this.view.point(event), stroke = this.stroke;
    if (onMap) this.#hover(point);
    if (!stroke) {
      if (this.tool === "polygon" && this.corners.length) this.#mark([...this.corners, point]);
      return;
    }
    if (stroke.id !== event.pointerId) return;
    if (stroke.tool === "pan") {
      this.view.pan(place[0] - stroke.last[0], place[1] - stroke.last[1]);
      stroke.last = place;
    } else if (stroke.tool === "brush" || stroke.tool === "eraser") {
      const passed = event.getCoalescedEvents?.() ?? [];
      this.#draw((passed.length ? passed : [event]).map((item) => this.view.point(item, event.target)));
    } else if (stroke.tool === "rectangle") {
      const [[x0, y0], [x1, y1]] = [stroke.first, point];
      stroke.last = point;
      this.#mark([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]);
    } else if (stroke.tool === "resample") {
      stroke.points.push(point);
      this.#mark(stroke.points);
    }
  }

  // what is one touch or click acts when it ends: until then it may become a pinch
  #up(event) {
    this.pointers.delete(event.pointerId);
    const stroke = this.stroke, painting = this.on.painting();
    if (!stroke || stroke.id !== event.pointerId) return;
    this.stroke = null;
    const inside = this.#inside(stroke.first);
    if (stroke.tool === "rectangle") {
      this.#mark([]);
      this.on.begin();
      painting.rectangle(...stroke.first, ...stroke.last, this.on.klass());
      this.on.changed();
    } else if (stroke.tool === "fill" && inside) {
      this.on.begin();
      painting.fill(...stroke.first, this.on.klass());
      this.on.changed();
    } else if (stroke.tool === "pick" && inside) {
      this.on.setClass(painting.at(...stroke.first));
    } else if (stroke.tool === "polygon") {
      this.#corner(stroke.first);
    } else if (stroke.tool === "resample") {
      this.#mark([]);
      const reach = stroke.points.map(([x, y]) => Math.hypot(x - stroke.first[0], y - stroke.first[1]));
      const drawn = Math.max(...reach) * this.view.scale > 8; // screen pixels; less is a click
      if (!drawn && !inside) return;
      const pixels = drawn ? painting.inside(stroke.points) : painting.area(...stroke.first);
      if (pixels.length) this.on.resample(pixels);
    }
  }

  #leave(event) {
    this.pointers.delete(event.pointerId);
    if (this.stroke?.id === event.pointerId) this.#dropStroke();
  }

  #dropStroke() {
    const stroke = this.stroke;
    this.stroke = null;
    if (stroke && (stroke.tool === "brush" || stroke.tool === "eraser")) {
      this.on.painting().cancel();
      this.on.changed();
    }
    this.#mark([]);
  }

  #draw(points) {
    const value = this.stroke.tool === "eraser" ? null : this.on.klass();
    for (const point of points) {
      this.on.painting().line(...this.stroke.last, ...point, this.on.size(), value);
      this.stroke.last = point;
    }
    this.on.changed();
  }

  #corner(point) {
    const [first] = this.corners;
    const near = first && Math.hypot(point[0] - first[0], point[1] - first[1]) * this.view.scale < 12;
    if (near && this.corners.length >= 3) {
      this.closePolygon();
      return;
    }
    this.corners.push(point);
    this.#mark(this.corners);
  }

  #pinch(id, place) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const before = this.pointers.get(id);
    this.pointers.set(id, place);
    const [was, is] = [before, place].map(([x, y]) => Math.hypot(x - other[0], y - other[1]));
    this.view.pan((place[0] - before[0]) / 2, (place[1] - before[1]) / 2);
    const [x, y] = this.view.middle, scale = 2 * this.view.scale;
    if (was > 1) this.view.zoom(is / was, [x + (place[0] + other[0]) / scale, y + (place[1] + other[1]) / scale]);
  }

  #hover(point) {
    const painting = this.on.painting();
    const inside = point && painting && this.#inside(point);
    this.on.hover(inside ? painting.at(...point) : null);
    const shown = point && (this.tool === "brush" || this.tool === "eraser");
    this.view.cursor = shown ? { x: point[0], y: point[1], size: this.on.size() } : null;
    this.view.draw();
  }

  #inside([x, y]) {
    const { width, height } = this.on.painting();
    return x >= 0 && y >= 0 && x < width && y < height;
  }

  #mark(points) {
    this.view.marks = points;
    this.view.closable = points.length > 0 && this.tool === "polygon";
    this.view.draw();
  }
}
