"""`box2mask detectors`: which families of detectors are served, find masks, and can be trained."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from app.commands.arguments import failed

if TYPE_CHECKING:
    from models.detector.zoo import ZooFamily

NOTES = """\
MMDetection's families are the folders of its configs. One config of each, with random weights, was asked:
`box2mask detectors NAME` names it. What is not served has its reason below the list.
`python -m benchmarks.zoo` in a checkout asks them again; docs/detectors.md has the same list.

  SERVED      whether BOX2MASK_DETECTOR takes a folder of it: config .py and checkpoint, or Hugging Face's files
  MASKS       whether it finds masks with its boxes; some: some of the family's configs do
  FINE-TUNES  whether `box2mask finetune` trains it
  NEEDS       what must be installed, or lie in its folder, besides

examples:
  box2mask detectors
  box2mask detectors rtmdet solo
  box2mask detectors --json
"""
COLUMNS = ("FAMILY", "SERVED", "MASKS", "FINE-TUNES", "NEEDS")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "detectors",
        help="list the families of detectors that are served",
        description="List the families of detectors: MMDetection's and Hugging Face's.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="only these, with what there is to say about each")
    command.add_argument("--json", action="store_true", help="one JSON object in a line for each family")
    command.set_defaults(run=_detectors)


def _detectors(args: argparse.Namespace) -> int:
    from models.detector.huggingface.model_types import CLOSED, CONCEPTS, MODEL_TYPES
    from models.detector.zoo import ZooFamily, families

    why = "Hugging Face's detectors are served, but not trained here"
    others = [
        ZooFamily(
            name,
            "",
            masks="yes" if name in CONCEPTS else "no",
            why_not_trained=why,
            needs="" if name in CLOSED else "a tokenizer in its folder",
        )
        for name in MODEL_TYPES
    ]
    everything = [*families(), *others]
    unknown = sorted(set(args.names) - {one.name for one in everything})
    if unknown:
        return failed(f"there is no family {', '.join(map(repr, unknown))}: `box2mask detectors` lists all")
    chosen = [one for one in everything if one.name in args.names or not args.names]
    if args.json:
        for one in chosen:
            source = "mmdetection" if one.config else "huggingface"
            said = {"source": source, **dataclasses.asdict(one), "served": one.served, "trained": one.trained}
            print(json.dumps(said))
    elif args.names:
        print("\n\n".join("\n".join(_told(one)) for one in chosen))
    else:
        _list("MMDetection's, by the folder of their configs", families())
        _list("Hugging Face's, by the model_type of config.json", others)
    sys.stdout.flush()
    return 0


def cells(family: ZooFamily) -> tuple[str, ...]:
    """A family's line in the list."""
    if not family.served:
        return family.name, "no", "-", "-", family.needs or "-"
    return family.name, "yes", family.masks, "yes" if family.trained else "no", family.needs or "-"


def _list(title: str, families: tuple[ZooFamily, ...] | list[ZooFamily]) -> None:
    rows = [COLUMNS, *map(cells, families)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    served = sum(one.served for one in families)
    print(f"{title}: {served} of {len(families)} are served")
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    for one in families:
        if not one.served:
            print(f"{one.name}: {one.why_not_served}")
    if served < len(families):
        print()


def _told(family: ZooFamily) -> list[str]:
    """All that there is to say about one."""
    whose = "MMDetection's" if family.config else "Hugging Face's"
    lines = [f"{family.name}, {whose}", f"  served: {'yes' if family.served else 'no: ' + family.why_not_served}"]
    if family.config:
        lines.append(f"  asked with: {family.config}")
    if family.served:
        lines.append(f"  masks: {family.masks}")
        lines.append(f"  fine-tunes: {'yes' if family.trained else 'no: ' + family.why_not_trained}")
    if family.needs:
        lines.append(f"  needs: {family.needs}")
    return lines
