// The photo that is worked on: its file as it came, its pixels as a viewer shows them, and its name at the service.

import { Pyramid } from "./pyramid.js";

// What requests say of it: turned upright, as browsers show it, and places in pixels.
export const FRAME = { exif_orientation: true, coordinates: "absolute" };

/** The service sees the picture in another frame than the browser, so that no place in it means the same to both. */
export class FrameError extends Error {}

export class Picture {
  /** width, height: of the photo turned upright, which is the frame of all boxes, points and masks. */
  constructor(file, name, bitmap) {
    this.file = file;
    this.name = name;
    this.url = null; // where the service had it from, if it was an address
    this.home = null; // where it can be downloaded, if it is a sample
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.pyramid = new Pyramid(bitmap);
    this.reference = null; // "sha256:...", once the service has it
    this.keepable = true; // whether the service keeps images at all
    this.keeping = null; // the promise of its being sent, while it is
    this.closing = new AbortController();
  }

  /** width, height: of the photo as the service turns it. Raises FrameError unless they are the browser's. */
  checkFrame({ width, height }) {
    if (width === this.width && height === this.height) return;
    throw new FrameError(
      `${this.name}: this browser shows ${this.width} × ${this.height} pixels, and the service sees ${width} × ${height}, ` +
        "as the two read its orientation differently. Save it turned upright, without an orientation, and open that.",
    );
  }

  /** [x1, y1, x2, y2] in pixels of an answer's box in 0..1. */
  corners({ topX, topY, bottomX, bottomY }) {
    const { width, height } = this;
    return [topX * width, topY * height, bottomX * width, bottomY * height];
  }

  /** It is not worked on any more. */
  close() {
    this.closing.abort();
    this.pyramid.close();
  }

  /** Reads an image's file. Raises an Error that can be shown. */
  static async open(file, name) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      throw new Error(`${name}: this browser cannot show it. It knows JPEG, PNG, WebP, BMP and GIF.`);
    }
    return new Picture(file, name, bitmap);
  }

  /** The file as base64. */
  async base64() {
    const reader = new FileReader();
    await new Promise((resolve, reject) => {
      reader.onload = resolve;
      reader.onerror = () => reject(new Error(`${this.name} cannot be read any more`));
      reader.readAsDataURL(this.file);
    });
    return reader.result.slice(reader.result.indexOf(",") + 1);
  }

  /** Its name without the extension, for the files made of it. */
  get stem() {
    return this.name.replace(/\.[^.]*$/, "") || "picture";
  }
}
