#!/usr/bin/env bash
# One would guess: Ray keeps the process of a task that has ended for whatever comes next, so that a task which imports
# large libraries, or asks once what a model can do, warms a process up for the actor that is made after it.
# Instead: such a process is kept for tasks alone. An actor gets one that has run nothing yet, or a new one, and imports
# all anew; the warm process lies idle meanwhile, with all the memory that it has taken.
# Why it matters: a short task before a pool of actors costs their start once more. Let an actor of the pool answer.
# Seen with: ray 2.60.0.
set -euo pipefail
work=$(mktemp -d /tmp/ray-XXXX)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet ray==2.60.0
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0

"$work/venv/bin/python" -W ignore - <<'PY' 2>/dev/null
import os
import sys

import ray


@ray.remote(num_cpus=1)
def task():
    return os.getpid()


@ray.remote(num_cpus=1)
class Actor:
    def process(self):
        return os.getpid()


ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
before = {ray.get(task.remote()) for _ in range(5)}
actor = Actor.remote()
of_actor = ray.get(actor.process.remote())
after = {ray.get(task.remote()) for _ in range(5)}
another = Actor.remote()  # while the tasks' process is idle again
of_another = ray.get(another.process.remote())
ray.shutdown()
places = {}
for pid in [*before, of_actor, *after, of_another]:
    places.setdefault(pid, "ABCDEF"[len(places)])
print(f"ray {ray.__version__}")
print("five tasks, one after the other, in process", *(places[pid] for pid in before))
print("then an actor, in process", places[of_actor])
print("then five tasks, in process", *(places[pid] for pid in after))
print("then another actor, in process", places[of_another])
if len(before) != 1 or after != before or {of_actor, of_another} & before:
    print("no longer so: an actor took a task's process, or tasks did not share one")
    sys.exit(1)
print("as stated: tasks share a process, and no actor gets it")
PY
