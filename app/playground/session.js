// The work on one picture: the things in it, which of them is selected, and the requests that find them. Draws nothing.

import { History } from "./history.js";
import { Mask } from "./mask.js";
import { FRAME, FrameError } from "./picture.js";
import { polygonsOf } from "./polygons.js";
import { Prompt, Thing, overlap } from "./thing.js";

// Boxes that score less are not even asked for; it is YOLOF's own threshold.
const LOWEST_SCORE = 0.05;
const EMPTY = { things: [], selected: null };
// Run lengths are the smallest exact form of a mask.
const AS_RUNS = { ...FRAME, mask_format: "rle", response_schema: "card" };
// The next click goes on from these.
const WITH_LOGITS = { ...AS_RUNS, return_logits: true };

/** Fires "change" whenever there is something else to see, "ask" when somebody asks for something, "mask" with the thing that has got one, "fail" with the error, "ready" once the picture is embedded. */
export class Session extends EventTarget {
  constructor(service) {
    super();
    this.service = service;
    this.picture = null;
    this.history = new History(EMPTY);
    this.threshold = 0.3;
    this.multimask = false;
    this.hovered = null;
    this.detector = null; // what the service says of it, or null
    this.canSegment = false;
    this.masksFrom = "segmenter"; // or "detector", where both have masks
    this.cleaning = {}; // how masks are cleaned, as params of a request
    this.texts = []; // what to find, where the detector takes that
    this.labels = new Set(); // of all that was found in this picture
    this.busy = new Map(); // what is being waited for -> its AbortController
    this.asked = new Map(); // a thing's id -> the prompt whose masks are on their way
  }

  get things() {
    return this.history.state.things;
  }

  get selected() {
    return this.things.find(({ id }) => id === this.history.state.selected) ?? null;
  }

  /** The names of detected things: the detector's classes, or the texts that were found. */
  get classes() {
    return this.detector?.takes_texts ? [...this.labels] : (this.detector?.classes ?? []);
  }

  get detectorHasMasks() {
    return Boolean(this.detector?.has_masks);
  }

  /** Whether the detector has to be told what to find, and nobody has. */
  get lacksTexts() {
    return Boolean(this.detector?.takes_texts) && !this.texts.length && !this.detector.classes.length;
  }

  /** Those that the score slider lets through. */
  get visible() {
    return this.things.filter((thing) => this.shows(thing));
  }

  get withMasks() {
    return this.visible.filter(({ best }) => best !== null);
  }

  shows(thing) {
    return thing.score === null || thing.isRefined || thing.score >= this.threshold;
  }

  // The picture

  /** Begin anew with a picture. */
  open(picture) {
    this.#stop();
    this.picture?.close();
    this.picture = picture;
    this.history = new History(EMPTY);
    this.hovered = null;
    this.labels = new Set();
    this.#changed();
    this.prepare();
  }

  /** Has the service see the picture before it is asked anything, so that the first click need not wait. */
  prepare() {
    if (!this.canSegment) return;
    const { width, height } = this.picture;
    const prompt = new Prompt({ points: [{ x: width / 2, y: height / 2, positive: true }] });
    this.#run("preparing", async (signal) => {
      const { picture } = this;
      const answer = await this.service.score("sam/score", picture, prompt.columns, AS_RUNS, { signal, quiet: true });
      masksOf(answer.predictions[0].mask_per_prediction, picture); // says at once if they would not fit
      this.dispatchEvent(new Event("ready"));
    });
  }

  // The detector

  /** Gives true; null where it was given up or failed. */
  detect() {
    return this.#run("detecting", async (signal) => {
      const boxesAlone = this.detectorHasMasks ? { masks: "none" } : {};
      const { class_agnostic_nms } = this.cleaning;
      const oneClass = class_agnostic_nms ? { class_agnostic_nms } : {};
      const params = { ...FRAME, score_threshold: LOWEST_SCORE, ...this.#textsAsked(), ...boxesAlone, ...oneClass };
      const { boxes } = await this.service.score("yolof/score", this.picture, {}, params, { signal });
      const before = this.things;
      const found = this.#recognised(boxes.map((box) => this.#detected(box)), ({ segmented }) => segmented);
      this.#push([...found, ...without(before, found).filter((thing) => !thing.isDetected || thing.segmented)]);
      return true;
    });
  }

  /** Boxes of all that scores as much as the slider says, with masks of SAM's or the detector's own. */
  segmentAll() {
    return this.#run("segmenting", async (signal) => {
      const least = this.threshold;
      const asked = { ...this.#masksAsked(), ...this.#textsAsked(), ...this.#cleaningAsked() };
      const params = { ...AS_RUNS, score_threshold: least, ...asked };
      const { boxes } = await this.service.score("pipeline/score", this.picture, {}, params, { signal });
      const names = asked.texts ?? this.detector.classes;
      const before = this.things;
      const found = this.#recognised(boxes.map((box) => this.#detected(box, asked)), ({ isRefined }) => isRefined);
      const isNotAsked = ({ label, score }) => score < least && names.includes(label);
      const others = without(before, found).filter((thing) => !thing.isDetected || thing.isRefined || isNotAsked(thing));
      this.#push([...found, ...others]);
      return true;
    });
  }

  /** What was found, each as the thing that it was before, which stays as it is where `keeps` says so. */
  #recognised(found, keeps) {
    const before = [...this.things]; // each is found once: some detectors say things twice
    return found.map((one) => {
      const place = before.findIndex((thing) => same(one, thing));
      if (place < 0) return one;
      const [other] = before.splice(place, 1);
      return keeps(other) ? other : one.with({ id: other.id });
    });
  }

  /** Whose masks are wanted. A detector of boxes alone is not asked that. */
  #masksAsked() {
    if (!this.detectorHasMasks) return { multimask_output: this.multimask };
    if (!this.canSegment || this.masksFrom === "detector") return { masks: "detector" };
    return { masks: "segmenter", multimask_output: this.multimask };
  }

  /** How the masks of all boxes are cleaned. Three masks of one object overlap, and each has a box of its own. */
  #cleaningAsked() {
    const { no_overlaps, tight_boxes, ...others } = this.cleaning;
    return this.multimask && this.#masksAsked().masks !== "detector" ? others : this.cleaning;
  }

  /** How masks are cleaned from now on; those that are there stay as they are. */
  setCleaning(name, value) {
    const { [name]: before, ...others } = this.cleaning;
    this.cleaning = value ? { ...others, [name]: value } : others;
  }

  /** What is to be found, where the detector takes that; without any, the service has its own. */
  #textsAsked() {
    return this.detector.takes_texts && this.texts.length ? { texts: this.texts } : {};
  }

  /** asked: for whose masks, where there are some. */
  #detected({ box, label, score, mask_per_prediction }, asked = null) {
    this.labels.add(label);
    const prompt = new Prompt({ box: this.picture.corners(box), multimask: this.multimask });
    if (mask_per_prediction) {
      prompt.masks = masksOf(mask_per_prediction, this.picture);
      prompt.asked = asked;
      prompt.cleaning = ofOneMask(asked);
    }
    return new Thing({ label, score, prompt, segmented: Boolean(mask_per_prediction) });
  }

  // Points and boxes

  /** A point on the selected thing, or on a new one. */
  addPoint(x, y, positive) {
    const { selected } = this;
    const point = { x: tenth(x), y: tenth(y), positive };
    const multimask = this.multimaskNow;
    if (!selected) {
      this.#add({ points: [point] });
      return;
    }
    const { best, prompt } = selected;
    const logits = best ? best.logits : prompt.logits; // the last mask may still be on its way
    this.#exchange(selected, selected.withPrompt({ points: [...prompt.points, point], logits, multimask }));
  }

  /** A new thing in a box. */
  addBox([x1, y1, x2, y2]) {
    this.#add({ box: [x1, y1, x2, y2].map(tenth) });
  }

  /** Whether the next prompt gives three masks: the selected thing's says so, once SAM has been asked. */
  get multimaskNow() {
    const { selected } = this;
    return selected?.segmented && !selected.prompt.isOfDetector ? selected.prompt.multimask : this.multimask;
  }

  /** How many masks a prompt gives, from now on and for the selected thing. */
  setMultimask(multimask) {
    this.multimask = multimask;
    const { selected } = this;
    if (selected?.segmented && !selected.prompt.isOfDetector && selected.prompt.multimask !== multimask) {
      this.#exchange(selected, selected.withPrompt({ multimask }));
    } else {
      this.#changed();
    }
  }

  /** Which of three masks counts for the selected thing. */
  choose(place) {
    const { selected } = this;
    if (selected && selected.choice !== place) this.#exchange(selected, selected.with({ chosen: place }));
  }

  chooseNext() {
    const count = this.selected?.prompt.masks?.length ?? 0;
    if (count > 1) this.choose((this.selected.choice + 1) % count);
  }

  #add(prompt) {
    const number = 1 + Math.max(0, ...this.things.map((thing) => thing.number));
    const thing = new Thing({ number, prompt: new Prompt({ ...prompt, multimask: this.multimask }), segmented: true });
    this.#push([...this.things, thing], thing.id);
  }

  #exchange(old, thing) {
    this.#push(this.things.map((one) => (one === old ? thing : one)), thing.id);
  }

  // What there is

  select(id) {
    if (this.history.state.selected !== id) {
      this.history.replace({ ...this.history.state, selected: id });
      this.#changed();
    }
    if (this.selected?.prompt.failed) this.retry([this.selected]);
  }

  /** Ask once more for those masks that there was no answer to. */
  retry(things = this.things) {
    for (const { prompt } of things) prompt.failed = false;
    this.#askForMasks();
  }

  hover(id) {
    if (this.hovered === id) return;
    this.hovered = id;
    this.#changed("hover");
  }

  setThreshold(threshold) {
    this.threshold = threshold;
    if (this.selected && !this.shows(this.selected)) this.select(null);
    this.#changed();
  }

  remove(id) {
    this.#push(this.things.filter((thing) => thing.id !== id));
  }

  clear() {
    if (this.things.length) this.#push([]);
  }

  undo() {
    this.history.undo();
    this.#changed();
    this.retry();
  }

  redo() {
    this.history.redo();
    this.#changed();
    this.retry();
  }

  /** The visible thing at a place in the picture; of several the smallest. */
  at(x, y) {
    const size = ({ best, box }) => best?.mask.area ?? (box ? (box[2] - box[0]) * (box[3] - box[1]) : Infinity);
    const there = this.visible.filter(({ best, box }) =>
      best ? best.mask.covers(x, y) : box && x >= box[0] && x < box[2] && y >= box[1] && y < box[3],
    );
    return there.sort((one, other) => size(one) - size(other))[0] ?? null;
  }

  /** What is selected stays so, unless it is gone: an answer may come while somebody works on it. */
  #push(things, selected = this.history.state.selected) {
    this.history.push({ things, selected: things.some(({ id }) => id === selected) ? selected : null });
    this.#changed();
    this.#askForMasks();
  }

  /** Ask for the masks that are wanted and not there. A thing's older prompt, which nobody waits for any more, is given up. */
  #askForMasks() {
    for (const { id, segmented, prompt } of this.things) {
      if (!segmented || prompt.masks || prompt.failed || this.asked.get(id) === prompt) continue;
      this.asked.set(id, prompt);
      prompt.cleaning = ofOneMask(this.cleaning);
      const params = { ...WITH_LOGITS, ...prompt.cleaning };
      this.#run(`mask ${id}`, async (signal) => {
        try {
          const answer = await this.service.score("sam/score", this.picture, prompt.columns, params, { signal });
          prompt.masks = masksOf(answer.predictions[0].mask_per_prediction, this.picture);
          const thing = this.things.find((one) => one.prompt === prompt);
          if (thing) this.dispatchEvent(new CustomEvent("mask", { detail: thing }));
        } catch (error) {
          prompt.failed = error.name !== "AbortError";
          throw error;
        } finally {
          if (this.asked.get(id) === prompt) this.asked.delete(id);
        }
      });
    }
  }

  /** Whether a mask of this thing is on its way. */
  waitsFor(thing) {
    return this.asked.has(thing.id);
  }

  // Requests

  /** Azure's instance-segmentation answer of all things with masks. */
  polygons() {
    return this.#run("writing", (signal) => polygonsOf(this.withMasks, this.picture, this.service, signal));
  }

  /** Do one thing of a kind at a time; a second takes the place of the first. Gives null where it was given up or failed. */
  async #run(kind, work) {
    this.busy.get(kind)?.abort();
    const controller = new AbortController();
    this.busy.set(kind, controller);
    if (kind !== "preparing") this.dispatchEvent(new Event("ask"));
    this.#changed();
    try {
      return await work(controller.signal);
    } catch (error) {
      const isSaid = kind !== "preparing" || error.status === 401 || error instanceof FrameError;
      if (error.name !== "AbortError" && isSaid) this.#fail(error);
      return null;
    } finally {
      if (this.busy.get(kind) === controller) this.busy.delete(kind);
      this.#changed();
    }
  }

  #stop() {
    for (const controller of this.busy.values()) controller.abort();
    this.busy.clear();
    this.asked.clear();
  }

  #fail(error) {
    this.dispatchEvent(new CustomEvent("fail", { detail: error }));
  }

  #changed(what = "all") {
    this.dispatchEvent(new CustomEvent("change", { detail: what }));
  }
}

/** predicted: the masks of an answer about `picture`. Raises FrameError. */
function masksOf(predicted, picture) {
  return predicted.map(({ rle, iou_score, logits }) => {
    picture.checkFrame({ width: rle.size[1], height: rle.size[0] });
    return { mask: Mask.fromRle(rle), score: iou_score ?? null, logits: logits ?? null }; // only SAM has these
  });
}

/** What of the cleaning is done to one mask by itself. */
function ofOneMask({ min_region_area, fill_holes, largest_part }) {
  const asked = { min_region_area, fill_holes, largest_part };
  return Object.fromEntries(Object.entries(asked).filter(([, value]) => value));
}

function same(one, other) {
  return one.label === other.label && other.prompt.box !== null && overlap(one.prompt.box, other.prompt.box) > 0.9;
}

function without(things, others) {
  return things.filter(({ id }) => !others.some((other) => other.id === id));
}

const tenth = (value) => Math.round(value * 10) / 10;
