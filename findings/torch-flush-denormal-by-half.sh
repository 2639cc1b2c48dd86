#!/usr/bin/env bash
# One would guess: after torch.set_flush_denormal(True), torch's results on the CPU have no denormal numbers any more.
# Instead: it holds for the thread that calls it, and for threads that start later. Torch's own compute threads start
# with the first large operation, and stay as they were. Called after a warm-up, it sets half of one tensor to zero, and
# the other half keeps its denormals; called before, it works for all.
# Why it matters: it is called to make a slow model fast, often once the service is up and warm. Then the slow threads
# stay slow, and results differ with the tensor's size and the number of threads. A server that handles requests in
# threads of its own has the same: each thread must call it.
# Seen with: torch 2.13.0 (the CPU build is enough) on Linux, x86-64. Its documentation does not speak of threads.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat >"$work/try.py" <<'PY'
import sys

import numpy as np
import torch

torch.set_num_threads(2)
# Their squares, 1e-40, are denormal numbers. NumPy makes them, as torch.full would start threads already.
small = torch.from_numpy(np.full(1 << 20, 1e-20, np.float32))
when = sys.argv[1]
if when == "after":
    small.add(1)  # the warm-up: torch starts its second compute thread
torch.set_flush_denormal(True)
bits = small.mul(small).view(torch.int32)  # looked at as integers, which nothing flushes
kept = int((bits != 0).sum())
print(f"torch {torch.__version__}: called {when} the first large operation, {kept} of {len(bits)} denormals are left")
if kept != int(sys.argv[2]):
    sys.exit(f"no longer so: expected {sys.argv[2]}")
PY
"$work/venv/bin/python" "$work/try.py" before 0
"$work/venv/bin/python" "$work/try.py" after $((1 << 19))
echo "as stated: called late, it holds for one half of the tensor"
