"""What the configs answered, as a benchmark's result: a table of time and memory, and the sentences of refusals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.machine import Machine
from benchmarks.report import table
from benchmarks.zoo.asked import Limits, Outcome

HEADER = ("config", "model", "parameters", "ready after", "answer", "peak memory", "boxes", "masks")

NOTES = """\
Each config was written out in full, beside a checkpoint of random weights in the official format; `box2mask serve` was
started for that folder in a process of its own, and asked once over HTTP for the boxes of one drawn scene. "Ready
after" has reading and hashing the weights and the first forward pass, without the imports, which are done before (some
seconds). Peak memory is that of the service's process. Other programs ran on the same machine: times are for orders of
magnitude."""


def document(
    machine: Machine,
    command: str,
    image_wh: tuple[int, int],
    limits: Limits,
    outcomes: Sequence[Outcome],
    distinct: int,
) -> str:
    """The whole result file. distinct: how many configs the outcomes stand for, if not for themselves."""
    served = [one for one in outcomes if one.state == "served"]
    families = {one.family for one in outcomes}
    with_masks = sum(bool(one.masks) for one in served)
    stand = f", which stand for {distinct} that differ in no more than schedule and data" if distinct else ""
    lines = [
        *machine.lines(),
        f"- `{command}`: {len(outcomes)} configs{stand}, of {len(families)} families",
        f"- a scene of {image_wh[0]} x {image_wh[1]} pixels, resized "
        f"{'as each config says' if limits.longest is None else f'to {limits.longest} at most'}"
        f"{'' if limits.proposals is None else f'; at most {limits.proposals} proposals'}; {limits.threads} "
        f"thread{'s' * (limits.threads != 1)}; at most {limits.memory_gb:g} GB",
        f"- served: {len(served)} configs, {with_masks} of them with masks, of "
        f"{len({one.family for one in served})} families",
    ]
    if served:
        lines.append(
            f"- median: ready after {statistics.median(one.starts_s for one in served):.1f} s, answer in "
            f"{statistics.median(one.answer_s for one in served):.1f} s, "
            f"{statistics.median(one.peak_mb for one in served):.0f} MB"
        )
    parts = [
        f"# MMDetection's zoo on {machine.name}",
        "\n".join(lines),
        NOTES,
        table(HEADER, [_cells(o) for o in served]),
    ]
    for state, title in (("refused", "Refused, with the service's sentence"), ("failed", "Failed")):
        chosen = [one for one in outcomes if one.state == state]
        if chosen:
            parts += [f"## {title}", "\n".join(f"- `{one.config}`: {one.said}" for one in chosen)]
    return "\n\n".join(parts) + "\n"


def _cells(one: Outcome) -> tuple[str, ...]:
    return (
        one.config, one.model, f"{one.parameters / 1e6:.1f} M", f"{one.starts_s:.1f} s", f"{one.answer_s:.2f} s",
        f"{one.peak_mb:.0f} MB", str(one.boxes), "yes" if one.masks else "no",
    )  # fmt: skip
