// Writes ZIP files without compressing anything again: several PNGs as one download.

import { crc32 } from "./png.js";

const VERSION = 20;
const NAMES_ARE_UTF8 = 0x0800;
const A_DAY = (1 << 5) | 1; // the first of January 1980: what is made here has no date

/** files: [{name, blob}]. Gives the file. */
export async function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, blob } of files) {
    const content = new Uint8Array(await blob.arrayBuffer());
    const encoded = new TextEncoder().encode(name);
    const shared = [VERSION, NAMES_ARE_UTF8, 0, 0, A_DAY];
    const sizes = [crc32(content), content.length, content.length];
    const local = record(0x04034b50, shared, sizes, [encoded.length, 0]);
    directory.push(record(0x02014b50, [VERSION, ...shared], sizes, [encoded.length, 0, 0, 0, 0], [0, offset]), encoded);
    parts.push(local, encoded, content);
    offset += local.length + encoded.length + content.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  const end = record(0x06054b50, [0, 0, files.length, files.length], [size, offset], [0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** A signature of 32 bits; then groups of 16 and 32 bits in turn. */
function record(signature, ...groups) {
  const bytes = new Uint8Array(4 + groups.reduce((sum, group, place) => sum + group.length * (place % 2 ? 4 : 2), 0));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, signature, true);
  let at = 4;
  groups.forEach((group, place) => {
    for (const value of group) {
      if (place % 2) view.setUint32(at, value, true);
      else view.setUint16(at, value, true);
      at += place % 2 ? 4 : 2;
    }
  });
  return bytes;
}
