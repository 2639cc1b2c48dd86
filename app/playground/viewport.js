// How the picture lies in its window: its scale and where its corner is. Coordinates are pixels of CSS and of the picture.

const LARGEST = 32;
const TOOLS = 72; // what the tools take at the bottom

export class Viewport {
  constructor() {
    Object.assign(this, { scale: 1, x: 0, y: 0, width: 1, height: 1, pictureWidth: 1, pictureHeight: 1 });
    this.fitted = true; // whether it follows when the window changes
  }

  /** The window's size. What was in its middle stays there. */
  resize(width, height) {
    this.x += (width - this.width) / 2;
    this.y += (height - this.height) / 2;
    Object.assign(this, { width, height });
    if (this.fitted) this.fit();
    else this.#keepInSight();
  }

  /** Another picture, as large as the window shows it whole. */
  show(pictureWidth, pictureHeight) {
    Object.assign(this, { pictureWidth, pictureHeight });
    this.fit();
  }

  fit() {
    this.scale = this.fitScale;
    this.x = (this.width - this.pictureWidth * this.scale) / 2;
    this.y = (this.height - TOOLS + this.#margin - this.pictureHeight * this.scale) / 2;
    this.fitted = true;
  }

  get fitScale() {
    const across = (this.width - 2 * this.#margin) / this.pictureWidth;
    const scale = Math.min(across, (this.height - this.#margin - TOOLS) / this.pictureHeight);
    return Math.max(1e-3, Math.min(scale, 4)); // a tiny picture need not fill the window
  }

  get #margin() {
    return Math.min(24, this.width / 20);
  }

  /** Zooms so that what is at x, y of the window, its middle unless given, stays there. */
  zoomTo(scale, x = this.width / 2, y = this.height / 2) {
    const next = Math.min(LARGEST, Math.max(Math.min(this.fitScale, 1) / 2, scale));
    this.x = x - ((x - this.x) * next) / this.scale;
    this.y = y - ((y - this.y) * next) / this.scale;
    this.scale = next;
    this.fitted = false;
    this.#keepInSight();
  }

  panBy(x, y) {
    this.x += x;
    this.y += y;
    this.fitted = false;
    this.#keepInSight();
  }

  /** Pans until a place in the picture is in the window and not under the tools. Gives whether it had to. */
  bringInSight(pictureX, pictureY) {
    const [x, y] = this.toWindow(pictureX, pictureY);
    const [dx, dy] = [into(x, this.#margin, this.width - this.#margin) - x, into(y, this.#margin, this.height - TOOLS) - y];
    if (Math.hypot(dx, dy) < 0.5) return false;
    this.panBy(dx, dy);
    return true;
  }

  /** [x, y] in the picture of a place in the window. */
  toPicture(x, y) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  /** [x, y] in the window of a place in the picture. */
  toWindow(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /** [x, y] moved to the nearest place that is in the picture. */
  inPicture(x, y) {
    return [Math.min(Math.max(x, 0), this.pictureWidth), Math.min(Math.max(y, 0), this.pictureHeight)];
  }

  #keepInSight() {
    const least = 48;
    this.x = Math.min(this.width - least, Math.max(least - this.pictureWidth * this.scale, this.x));
    this.y = Math.min(this.height - least, Math.max(least - this.pictureHeight * this.scale, this.y));
    if (this.scale === 1) [this.x, this.y] = [Math.round(this.x), Math.round(this.y)]; // one pixel is one pixel
  }
}

function into(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
