// One thing in the picture: what prompts its mask, and the masks that this gave. Nobody changes one; `with...` make others.

/**
 * What SAM is asked: a box, points, or both, perhaps with the logits of the mask that they refine, and for how many
 * masks. Coordinates are the picture's pixels.
 * The answer is filled in when it comes, so that going back to an earlier prompt finds its masks there.
 */
export class Prompt {
  constructor({ box = null, points = [], logits = null, multimask = false }) {
    this.box = box; // [x1, y1, x2, y2] or null
    this.points = points; // [{x, y, positive}]
    this.logits = logits; // as the service gave them, or null
    this.multimask = multimask;
    // [{mask, score, logits}], score SAM's own guess of the mask's quality; without both for a mask of the detector's
    this.masks = null;
    this.asked = null; // the params of /pipeline/score, where the masks came from there
    this.cleaning = {}; // the params by which /sam/score cleaned its masks
    this.failed = false;
  }

  /** Whether its mask is the detector's own, and SAM has not been asked. */
  get isOfDetector() {
    return this.asked?.masks === "detector";
  }

  /** The values of SAM's columns. */
  get columns() {
    return {
      input_points: this.points.length ? [this.points.map(({ x, y }) => [x, y])] : null,
      input_boxes: this.box ? [this.box] : null,
      input_labels: this.points.length ? [this.points.map(({ positive }) => (positive ? 1 : 0))] : null,
      multimask_output: this.multimask,
      ...(this.logits ? { input_masks: this.logits } : {}),
    };
  }
}

let made = 0;

export class Thing {
  /** label, score: the detector's, null for what was drawn by hand. chosen: which of three masks, null for the best. */
  constructor({ id = ++made, number = 0, label = null, score = null, prompt, chosen = null, segmented = false }) {
    // segmented: whether a mask is wanted, which detecting alone does not say.
    Object.assign(this, { id, number, label, score, prompt, chosen, segmented });
  }

  /** What to call it. */
  get name() {
    return this.label ?? `object ${this.number}`;
  }

  get isDetected() {
    return this.label !== null;
  }

  /** Whether somebody has said more of it than the detector did. */
  get isRefined() {
    return this.prompt.points.length > 0;
  }

  /** {mask, score} of the mask that counts, or null as long as there is none. */
  get best() {
    const { masks } = this.prompt;
    return masks?.length ? masks[this.choice] : null;
  }

  get choice() {
    const { masks } = this.prompt;
    if (this.chosen !== null || !masks) return this.chosen ?? 0;
    return masks.reduce((best, { score }, place) => (score > masks[best].score ? place : best), 0);
  }

  /** What a screen reader is told of it. */
  get summary() {
    const masks = this.prompt.masks ?? [];
    if (!this.best) return this.name;
    if (this.best.score === null) return `${this.name}, mask of the detector`;
    const which = masks.length > 1 ? `${this.choice + 1} of ${masks.length}, ` : "";
    return `${this.name}, mask ${which}${Math.round(this.best.score * 100)}%`;
  }

  /** [x1, y1, x2, y2]: the box that it has, or the one around its mask; null without either. */
  get box() {
    return this.prompt.box ?? (this.best?.mask.area ? this.best.mask.box : null);
  }

  with(changes) {
    return new Thing({ ...this, ...changes });
  }

  /** The same with another prompt, of which nothing is known yet. */
  withPrompt(changes) {
    const { box, points, logits, multimask } = this.prompt;
    return this.with({ prompt: new Prompt({ box, points, logits, multimask, ...changes }), chosen: null, segmented: true });
  }
}

/** How much two boxes have in common, 0..1. */
export function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  return (width * height) / (area(one) + area(other) - width * height);
}
