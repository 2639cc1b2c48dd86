// What was found, as files to keep: masks as PNG, a label map, COCO, polygons, and the picture with it all drawn in.

import { drawMarks } from "./marks.js";
import { greyPng } from "./png.js";
import { zip } from "./zip.js";

/** One thing's mask, 255 where it is, of the picture's size. */
export function maskPng({ best: { mask } }) {
  const bytes = new Uint8Array(mask.width * mask.height);
  mask.stampInto(bytes, 255);
  return greyPng(mask.width, mask.height, bytes);
}

/** All masks, each as a PNG of its own, in a ZIP. */
export async function masksZip(things) {
  const files = [];
  for (const [place, thing] of things.entries()) {
    files.push({ name: `${String(place + 1).padStart(3, "0")}-${fileName(thing.name)}.png`, blob: await maskPng(thing) });
  }
  return zip(files);
}

/** All masks as one: 255 where any is. */
export function unionPng(picture, things) {
  const bytes = new Uint8Array(picture.width * picture.height);
  for (const { best } of things) best.mask.stampInto(bytes, 255);
  return greyPng(picture.width, picture.height, bytes);
}

/** A PNG whose pixels are 0, or the place among `things`, from 1, of what is there; of several the smallest. */
export function labelMapPng(picture, things) {
  if (things.length > 255) throw new Error("a label map tells at most 255 objects apart: take the masks as a ZIP");
  const bytes = new Uint8Array(picture.width * picture.height);
  const bySize = things.map((thing, place) => [thing.best.mask, place + 1]).sort(([one], [other]) => other.area - one.area);
  for (const [mask, value] of bySize) mask.stampInto(bytes, value);
  return greyPng(picture.width, picture.height, bytes);
}

/** COCO's object annotations, as `box2mask run` writes them. */
export function coco(picture, things, classes) {
  const names = [...classes, ...(things.some(({ isDetected }) => !isDetected) ? ["object"] : [])];
  const annotations = things
    .filter(({ box }) => box)
    .map((thing, place) => {
      const [x1, y1, x2, y2] = thing.box;
      return {
        id: place + 1,
        image_id: 1,
        category_id: names.indexOf(thing.label ?? "object") + 1,
        bbox: [x1, y1, x2 - x1, y2 - y1],
        area: thing.best ? thing.best.mask.area : (x2 - x1) * (y2 - y1),
        iscrowd: 0,
        ...(thing.best && { segmentation: thing.best.mask.rle }),
        ...(thing.score !== null && { score: thing.score }),
        ...(thing.best && thing.best.score !== null && { iou_score: thing.best.score }),
      };
    });
  return json({
    images: [{ id: 1, file_name: picture.name, width: picture.width, height: picture.height }],
    annotations,
    categories: names.map((name, place) => ({ id: place + 1, name })),
  });
}

/** The picture in its own size, with masks, boxes and names. */
export async function overlayPng(picture, things, looks) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  const context = canvas.getContext("2d");
  picture.pyramid.draw(context, 0, 0, 1);
  const unit = Math.max(1, Math.max(picture.width, picture.height) / 1000);
  drawMarks(context, { x: 0, y: 0, scale: 1 }, things, { ...looks, unit });
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture is too large for this browser"))), "image/png");
  });
}

export function json(content) {
  return new Blob([JSON.stringify(content, null, 1)], { type: "application/json" });
}

/** Hands a file to whoever looks at the page. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be reading it
}

/** A name that no file system minds. */
export function fileName(text) {
  return text.replace(/[^\p{L}\p{N}._-]+/gu, "-");
}
