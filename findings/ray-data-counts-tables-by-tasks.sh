#!/usr/bin/env bash
# One would guess: `ray.data.from_arrow(tables)`, of tables that the calling process has, counts their rows itself, as
# `from_items` and `from_blocks` do, and runs nothing on the cluster until the dataset is used.
# Instead: it runs one task for each table, only to be told how many rows it has and of which types, and waits for all
# of them; `from_pandas` does the same for each frame.
# Why it matters: a work list in a thousand small tables is a thousand tasks before the first row, and starts processes
# that nobody else needs. `from_blocks` runs none.
# Seen with: ray 2.60.0, pyarrow 26.0.1, pandas 3.1.1.
set -euo pipefail
work=$(mktemp -d /tmp/ray-XXXX)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'ray[data]==2.60.0' pyarrow==26.0.1 pandas==3.1.1
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0

"$work/venv/bin/python" -W ignore - <<'PY' 2>/dev/null
import sys
import time

import pandas
import pyarrow
import ray
import ray.data

COUNT = 40
TABLES = [pyarrow.table({"x": [number]}) for number in range(COUNT)]
WAYS = {
    "from_blocks": lambda: ray.data.from_blocks(TABLES),
    "from_items": lambda: ray.data.from_items([{"x": 1}] * COUNT, override_num_blocks=COUNT),
    "from_pandas": lambda: ray.data.from_pandas([table.to_pandas() for table in TABLES]),
    "from_arrow": lambda: ray.data.from_arrow(TABLES),
}


def tasks_so_far(at_least=0):
    """Ray hears of tasks a little later."""
    end = time.monotonic() + (20 if at_least else 4)
    while True:
        count = sum(event["cat"].startswith("task::") for event in ray.timeline())
        if time.monotonic() > end or (at_least and count >= at_least):
            return count
        time.sleep(0.5)


ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
print(f"ray {ray.__version__}, pyarrow {pyarrow.__version__}, pandas {pandas.__version__}; {COUNT} tables of one row")
found, before = {}, 0
for name, make in WAYS.items():
    made = make()
    assert made.count() == COUNT
    now = tasks_so_far(before + COUNT if name in ("from_pandas", "from_arrow") else 0)
    found[name], before = now - before, now
    print(f"{name}: {found[name]} tasks before anything was asked of the dataset")
ray.shutdown()
if found != {"from_blocks": 0, "from_items": 0, "from_pandas": COUNT, "from_arrow": COUNT}:
    print("no longer so")
    sys.exit(1)
print("as stated: a task for each table and each frame, and none for blocks and items")
PY
