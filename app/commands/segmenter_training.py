"""`box2mask finetune --segmenter`: its options, and which of a detector's it has no use for."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from app.commands.arguments import failed, read_parts, say_trained
from models.finetuning.options import OptionError, TrainingOptions
from models.finetuning.segmenter.options import SegmenterOptions

# The command's own options that are a detector's alone: what they are called, and where argparse puts them.
_DETECTORS = {
    "--from": "start",
    "--backbone-only": "backbone_only",
    "--from-scratch": "from_scratch",
    "--student": "student",
    "--name": "name",
    "--azure-defaults": "azure_defaults",
}


def own_options() -> list[dataclasses.Field[object]]:
    """Those of a segmenter that no detector has."""
    shared = {one.name for one in dataclasses.fields(TrainingOptions)}
    return [one for one in dataclasses.fields(SegmenterOptions) if one.name not in shared]


def description() -> str:
    """What the help says of the options that detectors have too."""
    shared = {one.name for one in dataclasses.fields(TrainingOptions)}
    told = [
        f"{one.name} ({'-' if one.default is None else str(one.default).lower()})"
        for one in dataclasses.fields(SegmenterOptions)
        if one.name in shared
    ]
    return textwrap.fill(f"and of the options above, with these defaults: {', '.join(told)}", 78)


def refuse_segmenters(args: argparse.Namespace) -> None:
    """Raises OptionError for an option that --segmenter alone has, of a command without it."""
    for one in own_options():
        if hasattr(args, one.name):
            raise OptionError(f"{one.name}: expected --segmenter with it, as detectors have no such option")


def chosen(args: argparse.Namespace) -> SegmenterOptions:
    """The options that are given. Raises OptionError for a detector's, and for values that cannot be used."""
    known = {one.name for one in dataclasses.fields(SegmenterOptions)}
    given = [flag for flag, name in _DETECTORS.items() if getattr(args, name)]
    others = (one.name for one in dataclasses.fields(TrainingOptions) if one.name not in known)
    given += [name for name in others if hasattr(args, name)]
    if given:
        raise OptionError(f"{', '.join(given)}: expected without --segmenter, as only detectors have such options")
    return SegmenterOptions(**{name: getattr(args, name) for name in sorted(known) if hasattr(args, name)})


def run(args: argparse.Namespace, start: Path, options: SegmenterOptions, say: Callable[[str], None]) -> int:
    """Train, and say what came out."""
    from app.settings import Settings, SettingsError
    from models.checkpoints import ModelFilesError
    from models.data import DataError
    from models.devices import fastest_dtype, usable_device
    from models.finetuning.checkpoint_files import TrainingError
    from models.finetuning.segmenter.training import finetune_segmenter

    try:
        device = usable_device(Settings.from_environment().device.split(",")[0])
        training, validation = read_parts(args)
        done = finetune_segmenter(
            training,
            validation,
            start,
            args.out,
            options,
            device=device,
            dtype=fastest_dtype(device),
            minutes=args.minutes,
            say=say,
            stream=None if args.quiet else sys.stderr,
        )
    except (OptionError, SettingsError, DataError, ModelFilesError, TrainingError, OSError, ValueError) as error:
        return failed(error)
    say_trained("segmenter", done, options.metric_for_best_model, say)
    return 0
