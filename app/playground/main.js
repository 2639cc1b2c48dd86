// The page: connects what is on it with the session, and says what goes on.

import * as files from "./files.js";
import { Gestures } from "./gestures.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { Service } from "./service.js";
import { Session } from "./session.js";
import { SNIPPETS } from "./snippets.js";
import { Stage } from "./stage.js";

const element = (id) => document.getElementById(id);
const service = new Service(new URL("../", import.meta.url));
const session = new Session(service);
const shown = { masks: true, boxes: true, names: true };
const stage = new Stage(element("view"), element("photo"), element("marks"), session, shown);
const panel = new Panel(session, { onsave: (thing) => save(`${files.fileName(thing.name)}.png`, () => files.maskPng(thing)) });
let version = null;

const gestures = new Gestures(stage, session, { tool: () => document.querySelector("input[name=tool]:checked").value, say });

// What goes on

const BUSY = { preparing: "Looking at the photo, so that clicks are fast…", detecting: "Detecting…", segmenting: "Segmenting…", writing: "Asking for polygons…" };
const READY = "Ready: click on something";
let fetching = null; // the address that is being fetched
let note = "";
let noteTimer;

function tell(text) {
  note = text;
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => {
    note = "";
    drawStatus();
  }, 3000);
  drawStatus();
}

function say(text) {
  element("said").textContent = text;
}

function sayCount() {
  const { length } = session.visible;
  say(length === 1 ? "1 object" : `${length || "no"} objects`);
}

function drawStatus() {
  const kind = Object.keys(BUSY).reverse().find((one) => session.busy.has(one));
  const busy = kind ? BUSY[kind] : session.asked.size ? "Looking for the mask…" : fetching ? "Fetching…" : "";
  const status = element("status");
  status.textContent = busy || note;
  status.classList.toggle("busy", Boolean(busy));
  element("view").setAttribute("aria-busy", String(Boolean(busy)));
}

function complain(error) {
  if (error.status === 401) {
    openSettings();
    element("key-problem").textContent = error.message; // what is beneath the dialog cannot be read
    element("key-problem").hidden = false;
  }
  element("alert-text").textContent = error.message;
  element("alert").hidden = false;
}

element("alert-close").addEventListener("click", () => {
  element("alert").hidden = true;
  element(element("view").hidden ? "file" : "marks").focus();
});
service.onrequest = (last) => panel.drawLast(last);
// Not when some answer comes: what went wrong may have been another object's.
session.addEventListener("ask", () => (element("alert").hidden = true));
session.addEventListener("fail", ({ detail }) => complain(detail));
session.addEventListener("mask", ({ detail }) => say(detail.summary));
session.addEventListener("ready", () => session.things.length || tell(READY));
session.addEventListener("change", ({ detail }) => {
  if (note === READY && session.things.length) tell("");
  if (detail === "hover") panel.light();
  else draw();
});

/** Whether a button does anything. It keeps the focus while it does not, as `disabled` would not let it. */
function enable(id, does) {
  element(id).setAttribute("aria-disabled", String(!does));
}

function onPress(id, act) {
  element(id).addEventListener("click", ({ currentTarget }) => {
    if (currentTarget.getAttribute("aria-disabled") !== "true") act();
  });
}

function draw() {
  const { picture, history, things, visible, busy } = session;
  drawStatus();
  panel.draw();
  enable("undo", history.canUndo);
  enable("redo", history.canRedo);
  enable("clear", things.length > 0);
  const [detector, segmenter] = [Boolean(session.detector), session.canSegment];
  enable("detect", picture && detector && !busy.has("detecting"));
  enable("segment", picture && detector && (segmenter || session.detectorHasMasks) && !busy.has("segmenting"));
  element("threshold").disabled = !detector;
  for (const button of element("downloads").children) {
    button.disabled = !(["overlay", "coco"].includes(button.dataset.file) ? visible.length : session.withMasks.length);
  }
  for (const radio of document.querySelectorAll("input[name=multimask]")) {
    radio.checked = (radio.value === "3") === session.multimaskNow;
  }
  for (const radio of document.querySelectorAll("input[name=masks]")) radio.checked = radio.value === session.masksFrom;
  element("hint").textContent = hint(detector, segmenter);
}

function hint(detector, segmenter) {
  const { selected, things } = session;
  if (selected && segmenter) return "Click to add to this object, right click to take away. Escape begins another one.";
  if (things.length && segmenter) return "Select an object to refine it, or click in the picture for another one.";
  if (things.length) return "Select an object to see where it is.";
  if (session.lacksTexts) return `Write what to find, then detect it${segmenter ? ", or click on something in the picture" : ""}.`;
  if (segmenter) return `Click on something in the picture or drag a box around it${detector ? ", or detect what is there" : ""}.`;
  return "Detect what is there.";
}

// Photos

let wish = new AbortController(); // of the photo that somebody wanted last

/** Another photo is wanted from now on, and no older one that is still on its way. Gives a signal of whether this one still is. */
function want() {
  wish.abort();
  fetching = null;
  wish = new AbortController();
  drawStatus();
  return wish.signal;
}

async function open(file, name, { reference = null, upright = null, url = null, home = null, signal = want() } = {}) {
  try {
    const picture = await Picture.open(file, name);
    if (signal.aborted) return picture.close();
    if (upright) picture.checkFrame(upright);
    Object.assign(picture, { reference, url, home });
    element("alert").hidden = true;
    showPicture();
    element("picture-name").textContent = element("picture-name").title = name;
    element("picture-size").textContent = `${picture.width} × ${picture.height} pixels, ${kilobytes(file.size)}`;
    element("marks").setAttribute("aria-label", `${name}, ${picture.width} by ${picture.height} pixels`);
    gestures.reset();
    session.open(picture);
    stage.show(picture);
    panel.drawLast((service.last = null));
    if (!version) greet(); // it may be there by now
  } catch (error) {
    if (!signal.aborted) complain(error);
  }
}

function showPicture() {
  element("empty").hidden = true;
  for (const id of ["view", "tools", "panel"]) element(id).hidden = false;
  element("marks").focus({ preventScroll: true, focusVisible: false });
}

function kilobytes(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function isPhoto(file) {
  return file.type.startsWith("image/") || !file.type;
}

function openFirst(list) {
  const file = [...(list ?? [])].find(isPhoto);
  if (file) open(file, file.name || "pasted.png");
  else if (list?.length) complain(new Error(`${list[0].name || "This"} is no image`));
}

element("file").addEventListener("change", ({ target }) => {
  openFirst(target.files);
  target.value = ""; // the same file may be chosen again
});
element("another").addEventListener("click", () => {
  element("empty").hidden = false;
  for (const id of ["view", "tools", "panel"]) element(id).hidden = true;
  element("back").hidden = false;
  element("file").focus();
});
element("back").addEventListener("click", () => {
  want(); // the one before, and none that would take its place later
  showPicture();
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const path = button.dataset.sample;
    const home = new URL(path, import.meta.url).href;
    const signal = want();
    try {
      const response = await fetch(home, { signal });
      if (!response.ok) throw new Error(`the sample is not there (${response.status})`);
      await open(await response.blob(), path.split("/").pop(), { home, signal });
    } catch (error) {
      if (!signal.aborted) complain(error);
    }
  });
}
element("url-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const url = element("url").value.trim();
  if (!url) return element("url").focus();
  if (url === fetching) return;
  const signal = want();
  fetching = url;
  drawStatus();
  try {
    const { file, ...kept } = await service.fetchImage(url, signal);
    await open(file, lastPart(url), { ...kept, url, signal });
  } catch (error) {
    if (!signal.aborted) complain(error);
  }
  if (signal.aborted) return;
  fetching = null;
  drawStatus();
});

function lastPart(url) {
  try {
    return decodeURIComponent(new URL(url).pathname.split("/").pop()) || "photo.jpg";
  } catch {
    return "photo.jpg";
  }
}

document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) openFirst(event.clipboardData.files);
});
let dragsInside = 0;
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // else the browser would leave the page for the file
    if (kind === "dragenter") dragsInside++;
    if (kind === "dragleave") dragsInside--;
    if (kind === "drop") {
      dragsInside = 0;
      openFirst(event.dataTransfer.files);
    }
    element("stage").classList.toggle("dropping", dragsInside > 0);
  });
}

// Finding things

async function ask(what) {
  if (session.lacksTexts) return element("texts").focus();
  if (await session[what]()) sayCount();
}

onPress("detect", () => ask("detect"));
onPress("segment", () => ask("segmentAll"));
element("texts-form").addEventListener("submit", (event) => {
  event.preventDefault();
  element("detect").click();
});
element("texts").addEventListener("input", ({ target }) => {
  session.texts = [...new Set(target.value.split(",").map((text) => text.trim()).filter(Boolean))];
  draw();
});
for (const radio of document.querySelectorAll("input[name=masks]")) {
  radio.addEventListener("change", () => (session.masksFrom = radio.value));
}
for (const box of document.querySelectorAll("[data-clean]")) {
  box.addEventListener("change", () => session.setCleaning(box.dataset.clean, box.checked && (Number(box.value) || true)));
}
element("threshold").addEventListener("input", ({ target }) => {
  element("threshold-value").textContent = `${target.value}%`;
  target.setAttribute("aria-valuetext", `${target.value} percent`);
  session.setThreshold(Number(target.value) / 100);
});
for (const radio of document.querySelectorAll("input[name=multimask]")) {
  radio.addEventListener("change", () => session.setMultimask(radio.value === "3"));
}
for (const radio of document.querySelectorAll("input[name=tool]")) {
  radio.addEventListener("change", () => (element("stage").dataset.tool = radio.value));
}
for (const part of Object.keys(shown)) {
  element(`show-${part}`).addEventListener("change", ({ target }) => {
    shown[part] = target.checked;
    stage.redraw();
  });
}
function undo() {
  session.undo();
  sayCount();
}

function redo() {
  session.redo();
  sayCount();
}

onPress("undo", undo);
onPress("redo", redo);
onPress("clear", () => {
  session.clear();
  sayCount();
});

// The view

function zoomBy(factor) {
  stage.zoomTo(stage.viewport.scale * factor);
}

function zoomTo(scale) {
  if (scale !== null) return stage.zoomTo(scale);
  stage.viewport.fit();
  stage.moved();
}

stage.onview = ({ scale }) => {
  element("zoom").textContent = `${scale < 0.1 ? (100 * scale).toFixed(1) : Math.round(100 * scale)}%`;
};
element("zoom-in").addEventListener("click", () => zoomBy(1.25));
element("zoom-out").addEventListener("click", () => zoomBy(0.8));
element("zoom").addEventListener("click", () => zoomTo(1));
element("fit").addEventListener("click", () => zoomTo(null));
element("sheet").addEventListener("click", ({ currentTarget }) => {
  currentTarget.setAttribute("aria-expanded", String(currentTarget.getAttribute("aria-expanded") !== "true"));
});
document.addEventListener("keydown", (event) => {
  if (!session.picture || element("view").hidden || element("settings").open) return;
  if (event.target.matches("input[type=url], input[type=text], input[type=password], input[type=range]")) return;
  const withControl = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  let act;
  if (withControl && key === "z") act = event.shiftKey ? redo : undo;
  else if (withControl && key === "y") act = redo;
  else if (withControl || event.altKey) return; // the browser's own
  else act = { "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: () => zoomTo(null), 1: () => zoomTo(1) }[key];
  if (!act) return;
  event.preventDefault();
  act();
});

// Files and snippets

const FILES = {
  masks: ["masks.zip", () => files.masksZip(session.withMasks)],
  union: ["union.png", () => files.unionPng(session.picture, session.withMasks)],
  labels: ["labels.png", () => files.labelMapPng(session.picture, session.withMasks)],
  overlay: ["overlay.png", () => files.overlayPng(session.picture, session.visible, { classes: session.classes, shown })],
  coco: ["coco.json", () => files.coco(session.picture, session.visible, session.classes)],
  polygons: ["polygons.json", async () => {
    const answer = await session.polygons();
    return answer && files.json(answer);
  }],
};

async function save(name, make) {
  const { stem } = session.picture; // there may be another one by the time that the file is made
  try {
    const blob = await make();
    if (blob) files.download(blob, `${files.fileName(stem)}-${name}`);
  } catch (error) {
    complain(error);
  }
}

element("downloads").addEventListener("click", ({ target }) => {
  const chosen = FILES[target.dataset.file];
  if (chosen) save(...chosen);
});
element("last").addEventListener("click", async ({ target }) => {
  const language = target.dataset.copy;
  if (!language) return;
  const text = SNIPPETS[language](service.last);
  try {
    await navigator.clipboard.writeText(text);
    const { name, url } = service.last.photo;
    tell(url ? "Copied. It has the service fetch the photo from its address." : `Copied. It reads ${name} from where it is run.`);
  } catch {
    // Without HTTPS, browsers have no clipboard but on localhost.
    files.download(new Blob([text], { type: "text/plain" }), { curl: "ask.sh", python: "ask.py", javascript: "ask.mjs" }[language]);
    tell("This browser lets pages copy only over HTTPS; it is a download instead.");
  }
});

// Settings, and what the service has

function openSettings() {
  if (element("settings").open) return;
  element("key").value = service.key;
  element("key-problem").hidden = true;
  element("settings").returnValue = "";
  element("settings").showModal();
}

element("open-settings").addEventListener("click", openSettings);
// Enter in the field saves; without this it would press the first button, which closes.
element("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  element("save-settings").click();
});
element("settings").addEventListener("close", () => {
  if (element("settings").returnValue !== "save") return;
  service.key = element("key").value.trim();
  element("alert").hidden = true;
  if (session.picture) session.picture.reference = null; // it was another's
  greet();
});

/** The field for what to find, and what holds while it is empty. */
function drawTexts(detector) {
  element("texts-form").hidden = !detector?.takes_texts;
  if (!detector?.takes_texts) return;
  const [example, otherwise] = detector.classes.length
    ? [detector.classes.join(", "), "Empty: what the service was started with."]
    : ["can, milk carton", "The detector has no classes of its own."];
  element("texts").placeholder = example;
  element("texts-note").textContent = `Words with commas between them. ${otherwise}`;
}

async function greet() {
  try {
    version = await service.version();
  } catch (error) {
    complain(error);
    return;
  }
  const { detector, segmenter } = version;
  session.detector = detector;
  session.canSegment = segmenter !== null;
  const names = [detector, segmenter].filter(Boolean).map(({ name }) => name);
  element("models").textContent = names.join(" + ");
  element("models").title = version.demo_weights ? "Demo weights are small, and trained on drawn scenes" : "";
  element("served").textContent = `box2mask ${version.box2mask}, ${names.join(" and ")}, on ${(detector ?? segmenter).device}.`;
  const reasons = [];
  if (!detector) reasons.push("This service has no detector, so there is nothing to detect with: it was started without one.");
  if (!segmenter && detector.has_masks) reasons.push("This service has no segmenter, so all masks are the detector's own.");
  else if (!segmenter) reasons.push("This service has no segmenter, so there are boxes but no masks: it was started without one.");
  element("why-not").textContent = reasons.join(" ");
  element("why-not").hidden = !reasons.length;
  element("threshold-row").hidden = !detector;
  element("clean-classes").hidden = !detector;
  element("cleaning").hidden = !segmenter && !detector?.has_masks;
  element("masks-row").hidden = !(detector?.has_masks && segmenter);
  drawTexts(detector);
  element("click-section").hidden = !segmenter;
  for (const radio of document.querySelectorAll("input[name=tool]")) radio.disabled = !segmenter && radio.value !== "hand";
  if (!segmenter) document.querySelector("input[name=tool][value=hand]").click();
  draw();
  if (!session.picture || !segmenter) return;
  session.prepare();
  session.retry(); // a key may have been what was missing
}

draw();
greet();
