// A binary mask of a picture: read from COCO's compressed run lengths, kept as the part of the picture that it covers.

export class Mask {
  /**
   * width, height: of the picture. rle: as the service sent it, for whoever wants it again.
   * left, top, right, bottom: the pixels that it covers, right and bottom exclusive; all 0 for an empty mask.
   * pixels: (bottom - top) x (right - left) bytes of 0 and 1, row by row.
   */
  constructor(rle, bounds, pixels, area) {
    [this.height, this.width] = rle.size;
    this.rle = rle;
    Object.assign(this, bounds);
    this.pixels = pixels;
    this.area = area;
  }

  /** rle: {"size": [H, W], "counts": text}. */
  static fromRle(rle) {
    const [height] = rle.size;
    const runs = runsOf(rle.counts);
    const ones = []; // [start, end) of each run of ones, counted down the columns
    let place = 0;
    runs.forEach((length, number) => {
      if (number % 2 && length) ones.push([place, place + length]);
      place += length;
    });
    const bounds = boundsOf(ones, height);
    const columns = bounds.right - bounds.left;
    const pixels = new Uint8Array(columns * (bounds.bottom - bounds.top));
    let area = 0;
    for (const [start, end] of ones) {
      area += end - start;
      let x = Math.floor(start / height);
      let y = start - x * height;
      for (let index = start; index < end; index++) {
        pixels[(y - bounds.top) * columns + x - bounds.left] = 1;
        if (++y === height) {
          y = 0;
          x++;
        }
      }
    }
    return new Mask(rle, bounds, pixels, area);
  }

  /** Whether the picture's pixel at these coordinates, which need not be whole, belongs to it. */
  covers(x, y) {
    const column = Math.floor(x);
    const row = Math.floor(y);
    if (column < this.left || column >= this.right || row < this.top || row >= this.bottom) return false;
    return this.pixels[(row - this.top) * (this.right - this.left) + column - this.left] === 1;
  }

  /** Writes `value` into (H, W) `bytes`, row by row, wherever the mask is. */
  stampInto(bytes, value) {
    const columns = this.right - this.left;
    for (let y = this.top; y < this.bottom; y++) {
      const from = (y - this.top) * columns;
      const to = y * this.width + this.left;
      for (let x = 0; x < columns; x++) if (this.pixels[from + x]) bytes[to + x] = value;
    }
  }

  /** [x1, y1, x2, y2] around it, in pixels. */
  get box() {
    return [this.left, this.top, this.right, this.bottom];
  }
}

/** The run lengths of zeros, ones, zeros, ... in COCO's text: five bits a character, each but the first three as the difference from the last but one. */
function runsOf(text) {
  const runs = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    let bits = 0;
    let character;
    do {
      character = text.charCodeAt(at++) - 48;
      value |= (character & 31) << bits;
      bits += 5;
    } while (character & 32);
    if (character & 16) value |= -1 << bits;
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

function boundsOf(ones, height) {
  if (!ones.length) return { left: 0, top: 0, right: 0, bottom: 0 };
  let top = height;
  let bottom = 0;
  for (const [start, end] of ones) {
    const first = Math.floor(start / height);
    const last = Math.floor((end - 1) / height);
    top = Math.min(top, first === last ? start - first * height : 0);
    bottom = Math.max(bottom, first === last ? end - last * height : height);
  }
  const left = Math.floor(ones[0][0] / height);
  const right = Math.floor((ones[ones.length - 1][1] - 1) / height) + 1;
  return { left, top, right, bottom };
}
