// The service as the page talks to it: which models it has, images that it keeps, and requests in AzureML's form.

import { FRAME } from "./picture.js";

const KEY = "box2mask.key";
// Where images are sent: encoding begins as they arrive, in the frame of the page's requests.
const IMAGES = `images?embed=true&exif_orientation=${FRAME.exif_orientation}`;

/** An answer that says what went wrong. status: HTTP's, or 0 where there was no answer. */
export class ServiceError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export class Service {
  #key;

  /** root: the URL below which its routes are. */
  constructor(root) {
    this.root = root;
    this.#key = stored();
    this.last = null; // the request that was made last for the user, with its times
    this.onrequest = () => {};
  }

  get key() {
    return this.#key;
  }

  /** It outlives a reload of the page, where the browser keeps anything. */
  set key(value) {
    this.#key = value;
    try {
      if (value) sessionStorage.setItem(KEY, value);
      else sessionStorage.removeItem(KEY);
    } catch {
      // then it holds until the page is left
    }
  }

  /** What it serves: `GET /version`. */
  async version() {
    return (await this.#ask("version")).json();
  }

  /** Has the service fetch an image, and gives its file, and its size turned upright. Raises ServiceError. */
  async fetchImage(url, signal) {
    const kept = await this.#ask(IMAGES, { body: JSON.stringify({ url }), type: "application/json", signal });
    const { image, upright } = await kept.json();
    return { reference: image, upright, file: await (await this.#ask(`images/${image}`, { signal })).blob() };
  }

  /** Sends the picture ahead, so that requests need only name it. Where the service keeps none, requests carry it. Raises FrameError. */
  async keep(picture, signal) {
    if (picture.reference || !picture.keepable) return;
    picture.keeping ??= this.#send(picture).finally(() => (picture.keeping = null));
    try {
      await picture.keeping;
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    }
  }

  /** All requests about a picture wait for the same sending, so none of them may end it. */
  async #send(picture) {
    try {
      const { signal } = picture.closing;
      const kept = await this.#ask(IMAGES, { body: picture.file, type: "application/octet-stream", signal });
      const { image, upright } = await kept.json();
      picture.checkFrame(upright);
      picture.reference = image;
    } catch (error) {
      if (![404, 413].includes(error.status)) throw error;
      picture.keepable = false;
    }
  }

  /**
   * One row's answer. columns: what stands in the row beside the image. quiet: whether it is the page's own doing and
   * no request of the user's. Raises ServiceError, or AbortError when `signal` says so.
   */
  async score(route, picture, columns, params, { signal, quiet = false } = {}) {
    const asked = { route, names: ["image", ...Object.keys(columns)], values: Object.values(columns), params };
    const began = performance.now();
    let response;
    try {
      await this.keep(picture, signal);
      response = await this.#post(picture, asked, signal);
    } catch (error) {
      if (error.status !== 410) throw error; // the image had to make room for others
      picture.reference = null;
      await this.keep(picture, signal);
      response = await this.#post(picture, asked, signal);
    }
    const [answer] = await response.json();
    if (!quiet) {
      // The picture's name and not itself, whose pixels it would keep.
      this.last = { ...asked, photo: { name: picture.name, url: picture.url, home: picture.home }, url: new URL(route, this.root).href, withKey: Boolean(this.key) };
      this.last.times = timesOf(response.headers);
      this.last.totalMs = performance.now() - began;
      this.onrequest(this.last);
    }
    return answer;
  }

  async #post(picture, { route, names, values, params }, signal) {
    const image = picture.reference ?? (await picture.base64());
    const body = JSON.stringify({ input_data: { columns: names, data: [[image, ...values]] }, params });
    return this.#ask(route, { body, type: "application/json", signal });
  }

  async #ask(route, { body, type, signal } = {}) {
    const headers = {};
    if (type) headers["Content-Type"] = type;
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(new URL(route, this.root), {
        method: body === undefined ? "GET" : "POST",
        body,
        headers,
        signal,
        credentials: "same-origin",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError("The service cannot be reached. Is it still running?", 0);
    }
    if (response.ok) return response;
    let message = `${response.status} ${response.statusText}`;
    try {
      message = (await response.json()).message ?? message;
    } catch {
      // of a proxy in between, which words its errors otherwise
    }
    throw new ServiceError(message, response.status);
  }
}

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // a browser that keeps nothing
  }
}

/** [{name, ms}] of the headers: the parts in Server-Timing, and what AzureML's header says of the whole. */
function timesOf(headers) {
  const times = [];
  for (const part of (headers.get("server-timing") ?? "").split(",")) {
    const [name, ...fields] = part.split(";").map((field) => field.trim());
    const duration = fields.find((field) => field.startsWith("dur="));
    const words = fields.find((field) => field.startsWith("desc="));
    if (name && duration) times.push({ name: words?.slice(5).replaceAll('"', "") || name, ms: Number(duration.slice(4)) });
  }
  const whole = headers.get("x-ms-run-fn-exec-ms");
  if (whole) times.push({ name: "models and masks", ms: Number(whole), whole: true });
  return times;
}
