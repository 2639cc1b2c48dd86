// The last request as a program: the same question, asked with the picture's file by curl, Python or JavaScript.

const LONGEST_ARGUMENT = 100_000; // characters, below what Linux takes for one
const IMAGE = "\u0000"; // stands for the base64 text until it is known how a language puts it there

/**
 * asked: {url, names, values, params, photo: {name, url, home}, withKey}. Each gives a text that runs beside the photo's file,
 * or anywhere where the photo has an address that the service fetched it from.
 */
export const SNIPPETS = { curl, python, javascript };

function bodyOf({ names, values, params, photo }) {
  return { input_data: { columns: names, data: [[photo.url ?? IMAGE, ...values]] }, params };
}

function curl(asked) {
  // printf is the shell's own, so an image may be longer than a command's arguments.
  const body = JSON.stringify(bodyOf(asked)).replaceAll("\\", "\\\\").replaceAll("%", "%%").replace(/\\\\u0000/, "%s");
  const key = asked.withKey ? ' -H "Authorization: Bearer $BOX2MASK_KEY"' : "";
  if (asked.photo.url) {
    const text = shell(JSON.stringify(bodyOf(asked)));
    const isLong = text.length > LONGEST_ARGUMENT;
    return `${isLong ? `printf %s ${text} |\n  ` : ""}curl -sS ${shell(asked.url)} -H 'Content-Type: application/json'${key} \\
  --data-binary ${isLong ? "@-" : text}
`;
  }
  return `${whence("#", asked)}IMAGE=${shell(asked.photo.name)}
printf ${shell(body)} "$(base64 < "$IMAGE" | tr -d '\\n')" |
  curl -sS ${shell(asked.url)} -H 'Content-Type: application/json'${key} --data-binary @-
`;
}

function python(asked) {
  const key = asked.withKey ? ', "Authorization": f"Bearer {os.environ[\'BOX2MASK_KEY\']}"' : "";
  const read = `IMAGE = ${literal(asked.photo.name, PYTHON)}

with open(IMAGE, "rb") as file:
    image = base64.b64encode(file.read()).decode()
`;
  return `${whence("#", asked)}${asked.photo.url ? "" : "import base64\n"}import json
${asked.withKey ? "import os\n" : ""}import urllib.request

${asked.photo.url ? "" : read}body = ${literal(bodyOf(asked), PYTHON)}
headers = {"Content-Type": "application/json"${key}}
request = urllib.request.Request(${literal(asked.url, PYTHON)}, json.dumps(body).encode(), headers)
with urllib.request.urlopen(request) as answer:
    print(json.dumps(json.load(answer)))
`;
}

function javascript(asked) {
  const key = asked.withKey ? ", Authorization: `Bearer ${process.env.BOX2MASK_KEY}`" : "";
  const read = `import { readFile } from "node:fs/promises";

const IMAGE = ${literal(asked.photo.name, JAVASCRIPT)};

const image = (await readFile(IMAGE)).toString("base64");
`;
  return `${whence("//", asked)}// Node 18 or later, as a module: node ask.mjs
${asked.photo.url ? "" : read}const body = ${literal(bodyOf(asked), JAVASCRIPT)};
const headers = { "Content-Type": "application/json"${key} };
const answer = await fetch(${literal(asked.url, JAVASCRIPT)}, { method: "POST", headers, body: JSON.stringify(body) });
console.log(JSON.stringify(await answer.json()));
`;
}

/** A sample is in no folder until somebody puts it there. */
function whence(mark, { photo: { name, home } }) {
  return home ? `${mark} ${name} is at ${home}\n` : "";
}

const PYTHON = { true: "True", false: "False", null: "None" };
const JAVASCRIPT = { true: "true", false: "false", null: "null" };

/** A value as a language writes it; IMAGE becomes the variable `image`. */
function literal(value, words) {
  if (value === IMAGE) return "image";
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "number") return String(value);
  if (Array.isArray(value)) return `[${value.map((item) => literal(item, words)).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, words)}`).join(", ")}}`;
  }
  return words[String(value)];
}

function shell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
