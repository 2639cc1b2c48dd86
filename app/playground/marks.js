// Draws what was found over a picture: masks, boxes, names and points. The window and the files to keep look the same.

import { colourOf, css } from "./colours.js";
import { Pyramid } from "./pyramid.js";

const FILL = 96; // of 255
const EDGE = 240;
const painted = new WeakMap(); // mask -> {colour, pyramid}

/**
 * context: a 2D canvas. place: {x, y, scale}, where the picture's corner is and how large its pixels are.
 * things: in the order of the list. shown: {masks, boxes, names}. unit: the size of a pixel of the screen.
 */
export function drawMarks(context, place, things, { classes, shown, selected = null, hovered = null, unit = 1 }) {
  const colours = new Map(things.map((thing) => [thing, colourOf(thing.label, classes, thing.number)]));
  if (shown.masks) {
    for (const thing of things) {
      const mask = thing.best?.mask;
      if (!mask?.area) continue;
      const pyramid = paint(mask, colours.get(thing));
      const [x, y] = [place.x + mask.left * place.scale, place.y + mask.top * place.scale];
      pyramid.draw(context, x, y, place.scale);
      if (thing.id === hovered || thing.id === selected) pyramid.draw(context, x, y, place.scale);
    }
  }
  for (const thing of things) {
    const lit = thing.id === hovered || thing.id === selected;
    if (!thing.prompt.box || !(shown.boxes || thing.id === selected)) continue;
    drawBox(context, place, thing.prompt.box, colours.get(thing), (lit ? 3 : 1.75) * unit, unit);
  }
  if (shown.names) {
    for (const thing of things) {
      if (thing.box) drawName(context, place, thing, colours.get(thing), unit);
    }
  }
  const active = things.find(({ id }) => id === selected);
  for (const point of active?.prompt.points ?? []) drawPoint(context, place, point, unit);
}

/** A box that is being drawn: [x1, y1, x2, y2] in the picture. */
export function drawRubberBand(context, place, box) {
  context.save();
  context.setLineDash([6, 4]);
  drawBox(context, place, box, [255, 255, 255], 1.5, 1);
  context.restore();
}

/** Where the keyboard's next point will be. */
export function drawCrosshair(context, place, [pictureX, pictureY]) {
  const [x, y] = [place.x + pictureX * place.scale, place.y + pictureY * place.scale];
  for (const [width, colour] of [[4, "rgb(0 0 0 / .75)"], [1.5, "#fff"]]) {
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + dx * 5, y + dy * 5);
      context.lineTo(x + dx * 16, y + dy * 16);
    }
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  }
}

function drawBox(context, { x, y, scale }, [x1, y1, x2, y2], colour, width, unit) {
  const frame = [x + x1 * scale, y + y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale];
  context.lineJoin = "round";
  context.lineWidth = width + 2 * unit; // a dark rim, so that it can be seen on any photo
  context.strokeStyle = "rgb(0 0 0 / .55)";
  context.strokeRect(...frame);
  context.lineWidth = width;
  context.strokeStyle = css(colour);
  context.strokeRect(...frame);
}

function drawName(context, { x, y, scale }, thing, colour, unit) {
  const text = thing.score === null ? thing.name : `${thing.name} ${Math.round(thing.score * 100)}%`;
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  const width = context.measureText(text).width + 12 * unit;
  const height = 20 * unit;
  const left = x + thing.box[0] * scale - unit;
  const above = y + thing.box[1] * scale - height - 2 * unit;
  const top = Math.max(above, y); // at the picture's edge inside the box
  context.beginPath();
  context.roundRect(left, top, width, height, 4 * unit);
  context.fillStyle = css(colour);
  context.fill();
  context.fillStyle = "#101214";
  context.textBaseline = "middle";
  context.fillText(text, left + 6 * unit, top + height / 2 + 0.5 * unit);
}

function drawPoint(context, place, point, unit) {
  const [x, y] = [place.x + point.x * place.scale, place.y + point.y * place.scale];
  context.beginPath();
  context.arc(x, y, 7 * unit, 0, 2 * Math.PI);
  context.fillStyle = point.positive ? "#0a7f45" : "#c42b36";
  context.fill();
  context.lineWidth = 2 * unit;
  context.strokeStyle = "#fff";
  context.stroke();
  context.beginPath(); // plus or minus: colour alone tells some people nothing
  context.moveTo(x - 3 * unit, y);
  context.lineTo(x + 3 * unit, y);
  if (point.positive) {
    context.moveTo(x, y - 3 * unit);
    context.lineTo(x, y + 3 * unit);
  }
  context.stroke();
}

/** The mask in a colour, its rim stronger, as an image of the part that it covers. */
function paint(mask, colour) {
  const before = painted.get(mask);
  if (before?.colour === colour) return before.pyramid;
  const columns = mask.right - mask.left;
  const rows = mask.bottom - mask.top;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [columns, rows];
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const rgba = new Uint32Array(image.data.buffer);
  const [red, green, blue] = colour;
  const solid = red | (green << 8) | (blue << 16); // little endian, as all machines that run browsers are
  const inside = (solid | (FILL << 24)) >>> 0;
  const rim = (solid | (EDGE << 24)) >>> 0;
  const reach = Math.max(1, Math.round(Math.max(mask.width, mask.height) / 700));
  const { pixels } = mask;
  for (let y = 0, at = 0; y < rows; y++) {
    const nearTop = y < reach || y >= rows - reach;
    for (let x = 0; x < columns; x++, at++) {
      if (!pixels[at]) continue;
      const isRim =
        nearTop || x < reach || x >= columns - reach ||
        !pixels[at - reach] || !pixels[at + reach] || !pixels[at - reach * columns] || !pixels[at + reach * columns];
      rgba[at] = isRim ? rim : inside;
    }
  }
  context.putImageData(image, 0, 0);
  const pyramid = new Pyramid(canvas);
  painted.set(mask, { colour, pyramid });
  return pyramid;
}
