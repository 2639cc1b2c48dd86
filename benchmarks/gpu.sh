#!/usr/bin/env bash
# Checks and times everything that is written for NVIDIA GPUs: `benchmarks/gpu.sh`, or with --cpu what can be run without.
#
# Needs no network and installs nothing for good: PYTHON (by default this checkout's, else the system's) has to have
# torch and transformers. Wheels in the folder WHEELS, such as mmdet's for YOLOF, are used for this run.
# Results go to the folder OUT, or benchmarks/results. Ends with 1 where a check fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z "${PYTHON:-}" ]]; then
    PYTHON=python3
    if .venv/bin/python -c 'import sys, torch; sys.exit(not (torch.cuda.is_available() or "--cpu" in sys.argv))' "$@" \
        2>/dev/null; then
        PYTHON=.venv/bin/python
    fi
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
path=$PWD
if [[ -n "${WHEELS:-}" ]]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/site" "$WHEELS"/*.whl
    path=$path:$scratch/site
fi

PYTHONPATH=$path${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 "$PYTHON" -m benchmarks.gpu "$@"
