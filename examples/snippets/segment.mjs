// The boxes of a photo, and then the mask of each: node segment.mjs PHOTO [FOLDER]. Node 18 or later, no packages.
// SCORING_URL is the service's address; SCORING_KEY is a key, where there is something that asks for one.
//
// `ask`, `detect` and `segment` run in browsers just so, with a service of the page's own origin or a proxy in between.

/** What a scoring route answers to one row, an object of columns. Comes again after 429, when Retry-After says so. */
export async function ask(route, row, params = {}, { key, tries = 5 } = {}) {
  const request = {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) },
    body: JSON.stringify({
      input_data: { columns: Object.keys(row), index: [0], data: [Object.values(row)] },
      params,
    }),
  };
  for (let left = tries - 1; ; left--) {
    const answer = await fetch(route, request);
    if (answer.ok) return (await answer.json())[0];
    const text = await answer.text();
    if (answer.status !== 429 || left <= 0) {
      throw new Error(`${answer.status} (request ${answer.headers.get("x-request-id")}): ${text}`);
    }
    const seconds = Number(answer.headers.get("retry-after")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  }
}

/** [{box: {topX, topY, bottomX, bottomY}, label, score}], corners in 0..1 of the photo's width and height. */
export async function detect(url, image, options) {
  return (await ask(`${url}/yolof/score`, { image }, { score_threshold: 0.3 }, options)).boxes;
}

/** For each of the boxes that `detect` gave the base64 of a PNG of the photo's size, 255 the object and 0 not. */
export async function segment(url, image, boxes, options) {
  if (boxes.length === 0) return [];
  const corners = boxes.map(({ box }) => [box.topX, box.topY, box.bottomX, box.bottomY]);
  const row = {
    image,
    input_points: "",
    input_boxes: JSON.stringify(corners),
    input_labels: "",
    multimask_output: false,
  };
  // Azure's endpoint takes boxes in pixels only: multiply by the photo's size and leave `coordinates` out.
  const answer = await ask(`${url}/sam/score`, row, { coordinates: "normalized" }, options);
  const { predictions } = answer.response ?? answer; // as Azure's endpoint has it, or as the model card does
  if (!predictions) throw new Error(`an answer without masks: ${JSON.stringify(answer).slice(0, 200)}`);
  return predictions.map((one) => (one.mask_per_prediction ?? one.masks_per_prediction)[0].encoded_binary_mask);
}

async function main([photo, folder = "masks"]) {
  if (!photo) throw new Error("usage: node segment.mjs PHOTO [FOLDER]");
  const { mkdir, readFile, writeFile } = await import("node:fs/promises");
  const url = (process.env.SCORING_URL ?? "http://localhost:5001").replace(/\/$/, "");
  const options = { key: process.env.SCORING_KEY };
  const image = (await readFile(photo)).toString("base64");
  const boxes = await detect(url, image, options);
  const masks = await segment(url, image, boxes, options);
  await mkdir(folder, { recursive: true });
  for (const [number, { label, score }] of boxes.entries()) {
    await writeFile(`${folder}/mask-${number}.png`, Buffer.from(masks[number], "base64"));
    console.log(`${folder}/mask-${number}.png  ${label}  ${score}`);
  }
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("segment.mjs")) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error.cause ? `${error.message}: ${error.cause.message}` : error.message);
    process.exitCode = 1;
  });
}
