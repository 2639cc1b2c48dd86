// The panel beside the picture: what there is, which of three masks counts, how long the last request took.

import { colourOf, css } from "./colours.js";

const element = (id) => document.getElementById(id);

export class Panel {
  /** onsave(thing): somebody wants a thing's mask as a file. */
  constructor(session, { onsave }) {
    Object.assign(this, { session, onsave });
    this.rows = new Map(); // a thing's id -> its entry in the list
    this.shownCandidates = null;
  }

  /** Everything, after something has changed. */
  draw() {
    this.#drawList();
    this.#drawCandidates();
    this.light();
  }

  /** The entry of what the pointer is on. */
  light() {
    const { hovered, history } = this.session;
    for (const [id, row] of this.rows) {
      row.classList.toggle("lit", id === hovered);
      row.classList.toggle("selected", id === history.state.selected);
      row.querySelector(".name").setAttribute("aria-pressed", String(id === history.state.selected));
    }
  }

  #drawList() {
    const { visible, things } = this.session;
    const list = element("things");
    const ids = new Set(visible.map(({ id }) => id));
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      const held = row.contains(document.activeElement);
      const next = (row.nextElementSibling ?? row.previousElementSibling)?.querySelector(".name");
      row.remove();
      this.rows.delete(id);
      if (held) (next ?? element("marks")).focus(); // whoever uses the keyboard goes on from there
    }
    visible.forEach((thing, place) => {
      const row = this.rows.get(thing.id) ?? this.#newRow(thing.id);
      this.#fill(row, thing);
      if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
    });
    const hidden = things.length - visible.length;
    element("count").textContent = things.length ? `${visible.length} shown${hidden ? `, ${hidden} below the score` : ""}` : "";
  }

  #newRow(id) {
    const row = element("thing").content.cloneNode(true).firstElementChild;
    const find = () => this.session.things.find((thing) => thing.id === id);
    row.querySelector(".name").addEventListener("click", () => {
      const isDone = this.session.selected?.id === id && !find().prompt.failed;
      this.session.select(isDone ? null : id);
    });
    row.querySelector(".save").addEventListener("click", () => this.onsave(find()));
    row.querySelector(".remove").addEventListener("click", () => this.session.remove(id));
    row.addEventListener("pointerenter", () => this.session.hover(id));
    row.addEventListener("pointerleave", () => this.session.hover(null));
    row.addEventListener("focusin", () => this.session.hover(id));
    row.addEventListener("focusout", () => this.session.hover(null));
    this.rows.set(id, row);
    return row;
  }

  #fill(row, thing) {
    const colour = css(colourOf(thing.label, this.session.classes, thing.number));
    const swatch = row.querySelector(".swatch");
    swatch.style.backgroundColor = swatch.style.borderColor = colour;
    swatch.classList.toggle("outline", thing.best === null);
    row.querySelector(".label").textContent = thing.name;
    row.querySelector(".name").title = thing.prompt.failed ? "Select to ask for its mask again" : "";
    row.querySelector(".figures").textContent = figures(thing, this.session.waitsFor(thing));
    const save = row.querySelector(".save");
    save.disabled = thing.best === null;
    save.setAttribute("aria-label", `Download the mask of ${thing.name}`);
    save.title = "Download this mask (PNG)";
    const remove = row.querySelector(".remove");
    remove.setAttribute("aria-label", `Remove ${thing.name}`);
    remove.title = "Remove (Delete)";
  }

  #drawCandidates() {
    const { selected, picture } = this.session;
    const masks = selected?.prompt.masks ?? [];
    const field = element("candidates");
    field.hidden = masks.length < 2;
    const list = field.querySelector("div");
    if (field.hidden) {
      this.shownCandidates = null; // else they would be kept for as long as no others are shown
      list.replaceChildren();
      return;
    }
    if (this.shownCandidates !== masks) {
      this.shownCandidates = masks;
      const around = surroundings(picture, masks);
      list.replaceChildren(
        ...masks.map(({ mask, score }, place) => {
          const label = element("candidate").content.cloneNode(true).firstElementChild;
          const radio = label.querySelector("input");
          radio.setAttribute("aria-label", `Mask ${place + 1}, score ${percent(score)}`);
          radio.addEventListener("change", () => this.session.choose(place));
          label.querySelector(".figures").textContent = percent(score);
          drawThumbnail(label.querySelector("canvas"), picture, mask, around);
          return label;
        }),
      );
    }
    list.querySelectorAll("input").forEach((radio, place) => (radio.checked = place === selected.choice));
  }

  /** What the service says of the last request, or null. */
  drawLast(last) {
    element("last").hidden = last === null;
    if (last === null) return;
    const { route, times, totalMs } = last;
    element("last-route").textContent = `POST /${route}`;
    const rows = [...times, { name: "in all, with the way", ms: totalMs }];
    element("times").replaceChildren(
      ...rows.flatMap(({ name, ms }) => {
        const [term, bar, value] = [document.createElement("dt"), document.createElement("dd"), document.createElement("dd")];
        term.textContent = term.title = name;
        bar.setAttribute("aria-hidden", "true");
        bar.append(document.createElement("span"));
        bar.className = "bar-of";
        bar.firstChild.style.width = `${Math.min(100, (100 * ms) / totalMs)}%`;
        value.textContent = ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
        return [term, bar, value];
      }),
    );
  }
}

function figures(thing, waiting) {
  if (waiting) return "…";
  const parts = [];
  if (thing.score !== null) parts.push(percent(thing.score));
  if (thing.best) parts.push(thing.best.score === null ? "mask" : `mask ${percent(thing.best.score)}`);
  else if (thing.prompt.failed) parts.push("no mask");
  return parts.join(" · ");
}

function percent(score) {
  return `${Math.round(score * 100)}%`;
}

/** [left, top, width, height] of the part of the picture where the masks are, with something around it. */
function surroundings(picture, masks) {
  const covered = masks.map(({ mask }) => mask).filter(({ area }) => area);
  if (!covered.length) return [0, 0, picture.width, picture.height];
  const [left, top] = [Math.min(...covered.map((mask) => mask.left)), Math.min(...covered.map((mask) => mask.top))];
  const [right, bottom] = [Math.max(...covered.map((mask) => mask.right)), Math.max(...covered.map((mask) => mask.bottom))];
  const margin = 0.12 * Math.max(right - left, bottom - top);
  return [left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin];
}

/** That part of the picture, small and dark, with what belongs to the mask lit. */
function drawThumbnail(canvas, picture, mask, [left, top, width, height]) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const x = (canvas.width - width * scale) / 2 - left * scale;
  const y = (canvas.height - height * scale) / 2 - top * scale;
  picture.pyramid.draw(context, x, y, scale);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let row = 0, at = 0; row < canvas.height; row++) {
    for (let column = 0; column < canvas.width; column++, at += 4) {
      if (mask.covers((column + 0.5 - x) / scale, (row + 0.5 - y) / scale)) continue;
      for (let channel = 0; channel < 3; channel++) image.data[at + channel] *= 0.22;
    }
  }
  context.putImageData(image, 0, 0);
}
