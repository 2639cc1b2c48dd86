// An image at its own size and at halves of it, so that what is drawn small costs as little as it shows.

export class Pyramid {
  /** image: anything that a canvas can draw. */
  constructor(image) {
    this.levels = [image];
  }

  get width() {
    return this.levels[0].width;
  }

  get height() {
    return this.levels[0].height;
  }

  /** Draws it into `context` with its corner at x, y and its pixels `scale` large. */
  draw(context, x, y, scale) {
    const scaleOfScreen = scale * context.getTransform().a; // a screen may have several pixels to one of CSS
    const wanted = Math.max(0, Math.floor(Math.log2(1 / (scaleOfScreen * 1.001))));
    const image = this.#level(wanted);
    context.imageSmoothingEnabled = scale < 3; // closer than that, pixels are what one wants to see
    context.drawImage(image, x, y, this.width * scale, this.height * scale);
  }

  /** Gives its memory back now, as a photo's is large. */
  close() {
    this.levels[0].close?.();
    this.levels = [];
  }

  #level(wanted) {
    while (this.levels.length <= wanted) {
      const last = this.levels[this.levels.length - 1];
      if (last.width < 2 || last.height < 2) break;
      const half = document.createElement("canvas");
      half.width = Math.ceil(last.width / 2);
      half.height = Math.ceil(last.height / 2);
      half.getContext("2d").drawImage(last, 0, 0, half.width, half.height);
      this.levels.push(half);
    }
    return this.levels[Math.min(wanted, this.levels.length - 1)];
  }
}
