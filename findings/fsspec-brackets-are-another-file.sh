#!/usr/bin/env bash
# One would guess: `fs.cat(name)` and `fs.get(name, folder)` with the name of a file that is there, as `fs.ls` gives it, are
# about that file; patterns are for names that are not there.
# Instead: a name with brackets is a pattern first. `photo[1].jpg` is the pattern that `photo1.jpg` fits, and if there is
# such a file, that one is read, or copied, without a word; and `fs.rm` of the file system in memory removes it. `fs.exists`,
# `fs.open` and `fs.cat_file` take the same name as it is.
# Why it matters: mail programs and older browsers save attachments as `photo[1].jpg`. A folder of photos that is copied file
# by file then lacks one and has another twice. Use `cat_file`, `get_file` and `rm_file`. Box2mask reads stores by pyarrow,
# which has no patterns.
# Seen with: fsspec 2026.9.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet fsspec==2026.9.0
"$work/venv/bin/python" - "$work" <<'PY'
import os
import sys

import fsspec

ASKED, OTHER = "photo[1].jpg", "photo1.jpg"
print("fsspec", fsspec.__version__, "- asked for", ASKED)
seen = []
for kind, folder in (("file", f"{sys.argv[1]}/photos"), ("memory", "/photos")):
    fs = fsspec.filesystem(kind)
    fs.makedirs(folder)
    for name in (ASKED, OTHER):
        fs.pipe_file(f"{folder}/{name}", name.encode())
    listed = next(path for path in fs.ls(folder, detail=False) if path.endswith(ASKED))
    read = {os.path.basename(path): content.decode() for path, content in fs.cat(listed).items()}
    to = f"{sys.argv[1]}/copies of {kind}/"
    os.mkdir(to)
    fs.get(listed, to)
    copied = os.listdir(to)
    fs.rm(listed)
    left = [os.path.basename(path) for path in fs.ls(folder, detail=False)]
    seen.append((fs.cat_file(f"{folder}/{left[0]}").decode(), read, copied, left))
    print(f"  {kind}: cat gives {read}, get copies {copied}, after rm there is {left}")
found = [(read, copied, left) for _, read, copied, left in seen]
if found != [({OTHER: OTHER}, [OTHER], [OTHER]), ({OTHER: OTHER}, [OTHER], [ASKED])]:
    sys.exit("no longer so: a file that is there is taken by its name")
print("as stated: cat and get take another file than the one that was named, and rm removes it where files are in memory")
PY
