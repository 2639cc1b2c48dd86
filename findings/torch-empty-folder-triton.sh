#!/usr/bin/env bash
# One would guess: a folder without any Python in it is nothing to an import, least of all to the check of whether an
# optional package is installed; on a machine without a GPU nobody needs Triton anyway.
# Instead: an empty folder `triton` in the working directory counts as Triton. `torch.compile` ends with "module 'triton'
# has no attribute 'language'", also with a backend that compiles nothing, and transformers 5 says that it "could not
# import module 'SamModel'" and asks whether its requirements are there. `import torch` alone is well.
# Why it matters: kernels, a cache or a model repository for Triton's inference server are kept in folders of that name,
# and no message names the folder.
# Seen with: torch 2.13.0 (CPU), transformers 5.23.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 numpy==2.4.6
mkdir -p "$work/without" "$work/with/triton"

# The last line that each of three programs says.
programs() {
    cd "$1"
    "$work/venv/bin/python" -W ignore -c 'import torch; print("import torch:", torch.ones(2).sum().item())' 2>&1 | tail -n 1 || true
    "$work/venv/bin/python" -W ignore -c '
import torch
print("torch.compile:", torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())' 2>&1 | tail -n 1 || true
    "$work/venv/bin/python" -W ignore -c 'from transformers import SamModel; print("SamModel:", SamModel.__name__)' 2>&1 | tail -n 1 || true
}

"$work/venv/bin/pip" list 2>/dev/null | grep -E '^(torch|transformers|triton) '
without=$(programs "$work/without")
with=$(programs "$work/with")
echo "in an empty folder:"; echo "$without"
echo "in a folder that holds an empty folder triton:"; echo "$with"
if [ "$without" != "$(printf 'import torch: 2.0\ntorch.compile: 2.0\nSamModel: SamModel')" ] ||
    ! grep -q '^import torch: 2.0$' <<<"$with" ||
    ! grep -q "'triton' has no attribute 'language'" <<<"$with" || ! grep -q "Could not import module 'SamModel'" <<<"$with"; then
    echo "no longer so" >&2
    exit 1
fi
echo "as stated: an empty folder counts as Triton"
