#!/usr/bin/env bash
# One would guess: image.save(path, exif=exif) leaves the caller's Exif object as it is, so that the same object can be
# given to several saves.
# Instead: saving as AVIF removes the orientation from the object, as the file states it in its own way (irot, imir).
# What is saved with the same object afterwards, as JPEG or WebP, has no orientation and is shown on its side.
# Why it matters: writing one photo in several formats with its EXIF kept is common, and the order decides which files
# are upright.
# Seen with: Pillow 13.0.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pillow==13.0.0
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys

from PIL import Image, __version__

ORIENTATION = 0x0112


def orientations(formats):
    """The orientation that each file has, saved one after another with one Exif object."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found = []
    for suffix in formats:
        Image.new("RGB", (64, 32)).save(f"a.{suffix}", exif=exif)
        with Image.open(f"a.{suffix}") as again:
            found.append(again.getexif().get(ORIENTATION))
    return found, exif.get(ORIENTATION)


print("Pillow", __version__)
alone = orientations(["jpg", "webp"])
after = orientations(["avif", "jpg", "webp"])
print("JPEG, WebP:       orientations", *alone)
print("AVIF, JPEG, WebP: orientations", *after)
if alone != ([6, 6], 6) or after[0][1:] != [None, None] or after[1] is not None:
    sys.exit("no longer so")
print("as stated: after AVIF, the object and all that is saved with it have none")
PY
