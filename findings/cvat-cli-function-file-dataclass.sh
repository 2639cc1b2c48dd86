#!/usr/bin/env bash
# One would guess: `cvat-cli ... --function-file FILE` takes a Python file that imports and runs without a fault.
# Instead: a file with `from __future__ import annotations` and a dataclass ends with "AttributeError: 'NoneType' object
# has no attribute '__dict__'", which names neither the file nor a reason. cvat-cli executes the module without putting it
# into sys.modules, where dataclasses look for the names of such annotations. As a --function-module it works.
# Why it matters: both are in most modern code, and the message leads nowhere.
# Seen with: cvat-cli 2.80.0, Python 3.11. The loader is called as `task auto-annotate` calls it; a server is not needed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet cvat-cli==2.80.0
cat > "$work/my_function.py" <<'PY'
from __future__ import annotations

from dataclasses import dataclass

import cvat_sdk.auto_annotation as cvataa


@dataclass
class Settings:
    score: float


spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec("can", 0)])


def detect(context, image):
    return []
PY
PYTHONPATH="$work" "$work/venv/bin/python" - "$work/my_function.py" <<'PY'
import importlib
import sys
from importlib.metadata import version
from pathlib import Path

from cvat_cli._internal.common import FunctionLoader

print("cvat-cli", version("cvat-cli"), "- Python", sys.version.split()[0])
importlib.import_module("my_function")
print("import my_function: works")
FunctionLoader("my_function", None, {}).load()
print("--function-module my_function: works")
try:
    FunctionLoader(None, Path(sys.argv[1]), {}).load()
except AttributeError as error:
    print("--function-file my_function.py: AttributeError:", error)
else:
    sys.exit("no longer so: the file is loaded")
print("as stated: a dataclass in the file ends in an error that does not say so")
PY
