"""The list of families that `box2mask detectors` shows and docs/detectors.md has, from what a sweep found."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from app.commands.detectors import cells
from benchmarks.report import table
from benchmarks.service import REPOSITORY
from benchmarks.zoo.asked import Outcome
from benchmarks.zoo.chosen import configs
from models.checkpoints import ModelFilesError
from models.detector.configs import read_config
from models.detector.single_image import finds_masks
from models.detector.zoo import ZooFamily

DOCUMENT = REPOSITORY / "docs" / "detectors.md"
BEGIN, END = "<!-- the list begins -->", "<!-- the list ends -->"
HEADER = ("family", "served", "masks", "fine-tunes", "needs")


def families(root: Path, outcomes: Mapping[str, Outcome], stand: list[str]) -> list[ZooFamily]:
    """stand: the config of each family that stands for it. Raises ValueError where one failed."""
    failed = [config for config in stand if outcomes[config].state == "failed"]
    if failed:
        raise ValueError(f"expected served or refused, but these failed: {', '.join(failed)}")
    of_family = configs(root)
    return [_family(root, outcomes[config], of_family[config.split("/")[0]]) for config in stand]


def _family(root: Path, outcome: Outcome, of_family: list[str]) -> ZooFamily:
    source = root / outcome.config
    if outcome.state != "served":
        reason = outcome.said.removeprefix(f"{source.name}: ")
        return ZooFamily(outcome.family, outcome.config, reason, needs=outcome.needs)
    masks = [finds_masks(config.model) for config in (_config(root / one) for one in of_family) if config is not None]
    some: Literal["yes", "some", "no"] = "yes" if all(masks) else "some" if any(masks) else "no"
    return ZooFamily(outcome.family, outcome.config, "", some, why_not_trained(source), outcome.needs)


def why_not_trained(config: Path) -> str:
    """Why `box2mask finetune` would not train it, in its own words; "" where it would."""
    from models.finetuning.start import Start

    try:
        Start.read(config, "nothing").config_for(("one", "another"))
    except ModelFilesError as error:
        return str(error).removeprefix(f"{config}: ")
    return ""


def documented(found: list[ZooFamily]) -> str:
    """The list as the document has it."""
    served = sum(one.served for one in found)
    lines = [f"{served} of {len(found)} families are served.", table(HEADER, [cells(one) for one in found])]
    for title, reasons in (
        ("Not served:", {one.name: one.why_not_served for one in found if not one.served}),
        ("Not trained by `box2mask finetune`:", {one.name: one.why_not_trained for one in found if one.served}),
    ):
        told: dict[str, list[str]] = {}
        for name, reason in reasons.items():
            if reason:
                told.setdefault(reason, []).append(f"`{name}`")
        if told:
            lines += [title, "\n".join(f"- {', '.join(names)}: {reason}" for reason, names in told.items())]
    return "\n\n".join(lines)


def write_document(found: list[ZooFamily]) -> None:
    """Replace the list in the document."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{documented(found)}\n\n{END}{after}", encoding="utf-8")


def _config(path: Path) -> Any:
    """None for one that is not served."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_config(path)
    except ModelFilesError:
        return None
