// The polygons of things with masks, by the service's own hand: what gave the masks is asked once more, for outlines.

import { FRAME } from "./picture.js";
import { overlap } from "./thing.js";

const AS_POLYGONS = { ...FRAME, mask_format: "polygon", response_schema: "card" };
const NEARLY = 0.001; // what a score may differ by from one time to the next

/** Azure's instance-segmentation answer of one image. Raises what `service` raises, or an Error that can be shown. */
export async function polygonsOf(things, picture, service, signal) {
  const ask = (route, columns, params) =>
    service.score(route, picture, columns, { ...AS_POLYGONS, ...params }, { signal, quiet: true });
  const byPipeline = things.filter(({ prompt, chosen }) => prompt.asked && chosen === null);
  const question = ({ prompt }) => JSON.stringify(prompt.asked);
  const found = new Map(); // what was asked for -> the pipeline's boxes
  for (const asked of new Set(byPipeline.map(question))) {
    const least = Math.min(...byPipeline.filter((thing) => question(thing) === asked).map(({ score }) => score));
    const answer = await ask("pipeline/score", {}, { score_threshold: least - NEARLY, ...JSON.parse(asked) });
    found.set(asked, answer.boxes);
  }
  const boxes = [];
  for (const thing of things) {
    let polygon = byPipeline.includes(thing) ? again(thing, found.get(question(thing)), picture)?.polygon : undefined;
    if (!polygon && thing.prompt.isOfDetector) {
      throw new Error(`The detector did not find ${thing.name} again. Press Segment all, then save the polygons.`);
    }
    if (!polygon) {
      const answer = await ask("sam/score", thing.prompt.columns, thing.prompt.cleaning);
      polygon = answer.predictions[0].mask_per_prediction[thing.choice].polygon;
    }
    const [x1, y1, x2, y2] = thing.box ?? [0, 0, 0, 0];
    const { width, height } = picture;
    boxes.push({
      box: { topX: x1 / width, topY: y1 / height, bottomX: x2 / width, bottomY: y2 / height },
      label: thing.name,
      score: thing.score ?? thing.best.score,
      polygon,
    });
  }
  return [{ boxes }];
}

/** Of a later answer's boxes the one of a thing; where its score differs at all, SAM is asked for its mask instead. */
function again({ label, score, prompt }, boxes, picture) {
  const most = prompt.isOfDetector ? NEARLY : 0;
  const differs = (one) => Math.abs(one.score - score);
  return boxes
    .filter((one) => one.label === label && differs(one) <= most && overlap(picture.corners(one.box), prompt.box) > 0.9)
    .sort((one, other) => differs(one) - differs(other))[0];
}
