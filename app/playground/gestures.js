// What mouse, fingers, pen and keyboard do on the picture.
//
//     click, Enter            a point: this is part of it        drag             a box
//     right click, n          a point: this is not                space, two fingers, the hand tool: move the picture
//     long press              the same, for fingers               wheel, pinch, + and -: zoom

const A_DRAG_PX = 5;
const A_LONG_PRESS_MS = 500;

export class Gestures {
  /** tool(): "point", "negative", "box" or "hand". say: tells a screen reader. */
  constructor(stage, session, { tool, say }) {
    Object.assign(this, { stage, session, tool, say });
    this.pointers = new Map(); // of fingers and buttons that are down: id -> {x, y}
    this.drag = null;
    this.spaceIsDown = false;
    this.boxCorner = null; // the first corner of a box that the keyboard draws
    const canvas = stage.marks;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#cancel(event));
    canvas.addEventListener("pointerleave", () => session.hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("focus", () => stage.redraw());
    canvas.addEventListener("blur", () => stage.redraw());
    document.addEventListener("keydown", (event) => this.#space(event, true));
    document.addEventListener("keyup", (event) => this.#space(event, false));
  }

  /** There is another picture: what was begun on the one before is over. */
  reset() {
    this.boxCorner = null;
    this.#stopDrag();
  }

  // Pointers

  #down(event) {
    const { marks } = this.stage;
    if (this.boxCorner) this.#endKeyBox();
    marks.focus({ preventScroll: true, focusVisible: false });
    this.stage.crosshair = null; // the keyboard's; it comes back with the first arrow
    marks.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, place(event));
    if (this.pointers.size === 2) {
      this.#stopDrag();
      this.pinch = this.#pinchNow();
      return;
    }
    if (this.pointers.size > 2) return;
    const moves = this.spaceIsDown || event.button === 1 || this.tool() === "hand";
    const negative = event.button === 2 || event.ctrlKey || this.tool() === "negative"; // Ctrl: a Mac's right click
    this.drag = { start: place(event), last: place(event), moves, negative, far: false };
    if (event.pointerType !== "mouse" && !moves) {
      this.drag.timer = setTimeout(() => this.#longPress(), A_LONG_PRESS_MS);
    }
    if (event.button === 1) event.preventDefault();
  }

  #move(event) {
    const now = place(event);
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, now);
    if (this.pointers.size === 2) {
      this.#pinchBy(this.#pinchNow());
      return;
    }
    const { drag, stage } = this;
    if (!drag) {
      this.session.hover(this.session.at(...stage.viewport.toPicture(now.x, now.y))?.id ?? null);
      return;
    }
    if (!drag.far && Math.hypot(now.x - drag.start.x, now.y - drag.start.y) < A_DRAG_PX) return;
    drag.far = true;
    clearTimeout(drag.timer);
    if (drag.moves) {
      stage.viewport.panBy(now.x - drag.last.x, now.y - drag.last.y);
      stage.moved();
    } else if (this.session.canSegment && !drag.negative) {
      stage.rubberBand = this.#box(drag.start, now);
      stage.redraw();
    }
    drag.last = now;
  }

  #up(event) {
    const { drag, stage, session } = this;
    this.pointers.delete(event.pointerId);
    if (!drag || this.pointers.size) return;
    this.#stopDrag();
    if (drag.far) {
      if (!drag.moves && !drag.negative && session.canSegment) {
        const box = this.#box(drag.start, drag.last);
        if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) session.addBox(box);
      }
      return;
    }
    const [x, y] = stage.viewport.toPicture(drag.start.x, drag.start.y);
    const inside = x >= 0 && y >= 0 && x < session.picture.width && y < session.picture.height;
    if (drag.moves || !inside || !session.canSegment || this.tool() === "box") {
      session.select(inside ? (session.at(x, y)?.id ?? null) : null);
    } else {
      session.addPoint(x, y, !drag.negative);
    }
  }

  #cancel(event) {
    this.pointers.delete(event.pointerId);
    this.#stopDrag();
  }

  #longPress() {
    const { drag, stage, session } = this;
    if (!drag || drag.far) return;
    this.#stopDrag();
    const [x, y] = stage.viewport.toPicture(drag.start.x, drag.start.y);
    if (session.canSegment) session.addPoint(...stage.viewport.inPicture(x, y), false);
  }

  #stopDrag() {
    clearTimeout(this.drag?.timer);
    this.drag = null;
    this.stage.rubberBand = null;
    this.stage.redraw();
  }

  #box(one, other) {
    const { viewport } = this.stage;
    const [x1, y1] = viewport.inPicture(...viewport.toPicture(Math.min(one.x, other.x), Math.min(one.y, other.y)));
    const [x2, y2] = viewport.inPicture(...viewport.toPicture(Math.max(one.x, other.x), Math.max(one.y, other.y)));
    return [x1, y1, x2, y2];
  }

  #pinchNow() {
    const [one, other] = this.pointers.values();
    return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, apart: Math.hypot(one.x - other.x, one.y - other.y) || 1 };
  }

  #pinchBy(now) {
    const { viewport } = this.stage;
    viewport.panBy(now.x - this.pinch.x, now.y - this.pinch.y);
    viewport.zoomTo((viewport.scale * now.apart) / this.pinch.apart, now.x, now.y);
    this.pinch = now;
    this.stage.moved();
  }

  #wheel(event) {
    event.preventDefault();
    const { x, y } = place(event);
    const pixels = event.deltaMode === 1 ? event.deltaY * 16 : event.deltaY;
    this.stage.viewport.zoomTo(this.stage.viewport.scale * Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.002)), x, y);
    this.stage.moved();
  }

  // Keys

  #space(event, down) {
    if (event.key !== " ") return;
    if (event.target === this.stage.marks) event.preventDefault();
    else if (down) return;
    this.spaceIsDown = down;
    this.stage.element.classList.toggle("moving", down);
  }

  #key(event) {
    const { session, stage } = this;
    if (!session.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = (event.shiftKey ? 1 : 12) / stage.viewport.scale;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const act = {
      Enter: () => this.#keyPoint(true),
      n: () => this.#keyPoint(false),
      b: () => this.#keyBox(),
      m: () => this.#chooseNext(),
      s: () => this.#select(),
      Delete: () => this.#remove(),
      Backspace: () => this.#remove(),
      Escape: () => this.#escape(),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (moves[event.key]) this.#aimBy(...moves[event.key]);
    else if (act) act();
    else return;
    event.preventDefault();
  }

  #aim() {
    const { width, height } = this.session.picture;
    this.stage.crosshair ??= [width / 2, height / 2];
    return this.stage.crosshair;
  }

  #aimBy(dx, dy) {
    const { stage, session } = this;
    const [x, y] = this.#aim();
    const { width, height } = session.picture;
    stage.crosshair = [Math.min(Math.max(x + dx, 0), width - 1), Math.min(Math.max(y + dy, 0), height - 1)];
    if (this.boxCorner) stage.rubberBand = this.#keyedBox();
    stage.bringInSight(...stage.crosshair);
    const below = session.at(...stage.crosshair);
    session.hover(below?.id ?? null);
    stage.redraw();
    this.say(`${stage.crosshair.map(Math.round).join(", ")}${below ? `, on ${below.name}` : ""}`);
  }

  #chooseNext() {
    this.session.chooseNext();
    if (this.session.selected) this.say(this.session.selected.summary);
  }

  #select() {
    const { session } = this;
    session.select(session.at(...this.#aim())?.id ?? null);
    this.say(session.selected ? `${session.selected.name} selected` : "nothing selected");
  }

  #remove() {
    const { selected } = this.session;
    if (!selected) return;
    this.session.remove(selected.id);
    this.say(`${selected.name} removed`);
  }

  #keyPoint(positive) {
    if (this.boxCorner) this.#keyBox();
    else if (this.session.canSegment) this.session.addPoint(...this.#aim(), positive);
  }

  #keyBox() {
    if (!this.session.canSegment) return;
    if (!this.boxCorner) {
      this.boxCorner = [...this.#aim()];
      this.say("first corner of a box; move with the arrow keys and press b again");
      return;
    }
    const box = this.#keyedBox();
    this.#endKeyBox();
    if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) this.session.addBox(box);
  }

  #keyedBox() {
    const [[x1, y1], [x2, y2]] = [this.boxCorner, this.#aim()];
    return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
  }

  #endKeyBox() {
    this.boxCorner = this.stage.rubberBand = null;
    this.stage.redraw();
  }

  #escape() {
    if (this.boxCorner) this.#endKeyBox();
    else if (this.drag) this.#stopDrag();
    else this.session.select(null);
  }
}

function place(event) {
  return { x: event.offsetX, y: event.offsetY };
}
