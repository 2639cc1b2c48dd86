// The window on the picture: two canvases, the photo below and what was found above, drawn once a frame at most.

import { drawCrosshair, drawMarks, drawRubberBand } from "./marks.js";
import { Viewport } from "./viewport.js";

export class Stage {
  /** element: holds both canvases, whose size follows it. */
  constructor(element, photo, marks, session, shown) {
    Object.assign(this, { element, photo, marks, session, shown });
    this.viewport = new Viewport();
    this.rubberBand = null; // [x1, y1, x2, y2] in the picture
    this.crosshair = null; // [x, y] in the picture
    this.onview = () => {};
    this.photoIsOld = this.frame = false;
    new ResizeObserver(() => this.#resize()).observe(element);
    session.addEventListener("change", () => this.redraw());
  }

  /** Show a picture whole. */
  show({ width, height }) {
    this.crosshair = this.rubberBand = null;
    this.#resize();
    this.viewport.show(width, height);
    this.moved();
  }

  /** The viewport has changed. */
  moved() {
    this.photoIsOld = true;
    this.redraw();
    this.onview(this.viewport);
  }

  /** Moves the picture no further than to show a place in it. */
  bringInSight(x, y) {
    if (this.viewport.bringInSight(x, y)) this.moved();
  }

  /** Zooms about the crosshair, if there is one, or the middle of the window. */
  zoomTo(scale) {
    this.viewport.zoomTo(scale, ...(this.crosshair ? this.viewport.toWindow(...this.crosshair) : []));
    this.moved();
  }

  /** What is above the photo has changed. */
  redraw() {
    if (this.frame) return;
    this.frame = true;
    requestAnimationFrame(() => {
      this.frame = false;
      this.#draw();
    });
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) return;
    this.ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.photo, this.marks]) {
      const [across, down] = [Math.round(width * this.ratio), Math.round(height * this.ratio)];
      if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
    }
    this.viewport.resize(width, height);
    this.moved();
  }

  #draw() {
    const { picture } = this.session;
    if (!picture) return;
    const { x, y, scale } = this.viewport;
    if (this.photoIsOld) {
      this.photoIsOld = false;
      const context = this.#clean(this.photo);
      picture.pyramid.draw(context, x, y, scale);
    }
    const context = this.#clean(this.marks);
    const { classes, hovered, visible, selected } = this.session;
    const looks = { classes, hovered, shown: this.shown, selected: selected?.id };
    drawMarks(context, { x, y, scale }, visible, looks);
    if (this.rubberBand) drawRubberBand(context, { x, y, scale }, this.rubberBand);
    if (this.crosshair && document.activeElement === this.marks) drawCrosshair(context, { x, y, scale }, this.crosshair);
  }

  #clean(canvas) {
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    return context;
  }
}
