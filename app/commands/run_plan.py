"""What a run's options ask for, of models that are known: checked, and as the journal is to say it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from app.commands.mask_options import mask_params
from app.commands.run_options import FORMATS, GRID, NOT_BY_DEFAULT, SCORE_THRESHOLD, RunError
from app.commands.tile_options import tile_params

if TYPE_CHECKING:
    from app.contract.schemas import MaskSource
    from app.folders.image_work import Asked
    from app.folders.prompts import BoxPrompts
    from app.folders.sources import Sources


class KnownModels(Protocol):
    """What there is to know of models before an image is asked for: see `app.prediction.Predictor`."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def description(self) -> Mapping[str, Any]: ...

    def identity(self) -> dict[str, str | None]: ...


@dataclass(frozen=True)
class Plan:
    """settings: what must be the same for results to be gone on with. asked: how objects are found."""

    formats: tuple[str, ...]
    settings: dict[str, Any]
    asked: Asked
    class_names: tuple[str, ...]
    model_version: str


def make_plan(args: argparse.Namespace, sources: Sources, prompts: BoxPrompts | None, models: KnownModels) -> Plan:
    """Raises RunError where the models, or where the images are, do not do for the options."""
    from app.folders import outputs
    from app.folders.image_work import Asked

    identity = models.identity()
    if prompts is not None:
        identity["detector"] = None
        if identity["segmenter"] is None:
            raise RunError("--prompts: expected a segmenter to give the boxes to, found none")
    elif args.everything:
        identity["detector"] = None
        if identity["segmenter"] is None:
            raise RunError("--everything: expected a segmenter to find masks, found none")
    elif identity["detector"] is None:
        raise RunError("there is no detector to find boxes: name one with --detector, or give boxes with --prompts")
    source: MaskSource = "segmenter" if identity["segmenter"] is not None else "none"
    if args.masks == "detector":
        identity["segmenter"] = None
        source = args.masks
        detector = models.description["detector"]
        if not detector.get("has_masks"):
            raise RunError(f"--masks detector: the detector {detector['name']} finds boxes alone, and no masks")
    elif args.masks == "segmenter" and source == "none":
        raise RunError("--masks segmenter: expected a segmenter, found none")
    has_masks = source != "none"
    possible = (one for one in FORMATS if has_masks or one not in outputs.NEED_MASKS)
    formats = args.formats or tuple(one for one in possible if one not in NOT_BY_DEFAULT)
    if not has_masks and (lacking := [one for one in formats if one in outputs.NEED_MASKS]):
        raise RunError(f"--formats {','.join(lacking)}: expected a segmenter to make masks, found none")

    threshold = args.score_threshold
    if prompts is None and threshold is None and not args.everything:
        threshold = SCORE_THRESHOLD
    settings = {"images": str(sources.root), "score_threshold": threshold if prompts is None else None, **identity}
    if args.page != 1:
        settings["page"] = args.page
    if cleaned := mask_params(args):
        settings["clean_masks"] = cleaned
    settings |= tile_params(args)
    settings["boxes"] = "of the detector" if prompts is None else "of --prompts"
    grid = {name: value for name in GRID if (value := getattr(args, name)) is not None}
    if args.everything:
        grid = {"points_per_side": 32} | grid
        settings |= {"boxes": "of everything", **grid}
    if args.order is not None:  # what SAM's three masks say is in the journal then
        settings["order"] = args.order
    asked = Asked(
        "everything" if args.everything else "detector" if prompts is None else "prompts",
        threshold or 0.0,
        source,
        grid,
        agreement=args.order is not None and source == "segmenter",
    )
    names = () if args.everything else models.class_names if prompts is None else prompts.class_names
    version = " + ".join(name for name in identity.values() if name)
    return Plan(formats, settings, asked, names, version)
