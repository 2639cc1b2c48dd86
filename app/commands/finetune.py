"""`box2mask finetune`: train a detector, or a segmenter, on your own images."""

from __future__ import annotations

import argparse
import dataclasses
import io
import sys
from contextlib import nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from app.commands import segmenter_training
from app.commands.arguments import add_data_arguments, failed, read_parts, say_trained
from models.finetuning.options import STUDENTS, OptionError, TrainingOptions

# Where training starts if nothing is said: the best weights that are here.
STARTS = ("yolof", "demo-yolof")
Option = dataclasses.Field[Any]

NOTES = """\
DATA is what `box2mask data check` reads: COCO, Pascal VOC, AzureML, YOLO and more. Without --validation every
fifth image is kept for validation. The result in --out is a detector folder: BOX2MASK_DETECTOR=OUT box2mask serve
serves it. The same command again goes on with an interrupted training. docs/finetuning.md has all
defaults beside Azure's.

With --segmenter, a SAM learns the masks of DATA instead, whatever their classes, and DIR is a SAM folder:
BOX2MASK_SEGMENTER=OUT box2mask serve serves it.

examples:
  box2mask finetune photos/ --out fridge
  box2mask finetune train.jsonl --validation val.jsonl --from yolof --out fridge --number_of_epochs 60
  box2mask finetune photos/ --from demo-yolof --out fridge --image_max_size 512 --image_min_size 512
  box2mask finetune photos/ --out azure --azure-defaults
  box2mask run photos/images --prompts photos/annotations.json --formats coco --out masks    # masks by SAM, and then
  box2mask finetune masks/coco.json --images-root photos/images --from fridge --student rtmdet-ins --out student
  box2mask finetune corrected/ --segmenter sam-base --out my-sam
  torchrun --nproc-per-node 4 --no-python box2mask finetune photos/ --out fridge
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "finetune",
        help="train a detector, or a segmenter, on your own images",
        description="Train an MMDetection detector on annotated images. Boxes are all that most need; one that finds "
        "masks (Mask R-CNN, RTMDet-Ins, ...) needs masks too. With --segmenter, train a SAM on masks. The best epoch, "
        "by a figure on images that were not trained on, becomes a folder that can be served.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("data", type=Path, metavar="DATA", help="annotated images to train on")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the trained model")
    command.add_argument("--validation", type=Path, metavar="DATA2", help="images to validate on")
    command.add_argument(
        "--every", type=int, metavar="N", help="without --validation: keep every Nth image of DATA for it (default: 5)"
    )
    add_data_arguments(command)
    command.add_argument(
        "--from",
        dest="start",
        metavar="DETECTOR",
        help="detector folder, or a name that `box2mask weights list` shows, to start from (default: yolof if it has "
        "been pulled, else the demo detector)",
    )
    command.add_argument(
        "--segmenter",
        metavar="SEGMENTER",
        help="train this SAM in place of a detector: a folder, or a name that `box2mask weights list` shows",
    )
    taken = command.add_mutually_exclusive_group()
    taken.add_argument("--backbone-only", action="store_true", help="take only the backbone's weights of it")
    taken.add_argument(
        "--from-scratch", action="store_true", help="take none of its weights; DETECTOR may then be a config .py alone"
    )
    command.add_argument(
        "--student",
        choices=STUDENTS,
        help="train a small model that finds masks on DETECTOR's backbone, in place of DETECTOR; DATA then has masks",
    )
    command.add_argument("--name", help="of the config and weights in DIR (default: the start's)")
    command.add_argument(
        "--minutes", type=float, metavar="M", help="stop after so long, with the best so far as the result"
    )
    command.add_argument(
        "--azure-defaults",
        action="store_true",
        help="Azure's defaults for all options that are not given, but resume_from_checkpoint",
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_options(command)
    command.set_defaults(run=_run)


def _add_options(command: argparse.ArgumentParser) -> None:
    """Every option of a training, by its own name and with dashes."""
    group = command.add_argument_group("training options", "by the names of Azure's fine-tuning component")
    for one in dataclasses.fields(TrainingOptions):
        _add_option(group, one)
    group = command.add_argument_group("training options of --segmenter", segmenter_training.description())
    for one in segmenter_training.own_options():
        _add_option(group, one)


def _add_option(group: Any, one: Option) -> None:
    kind = str(one.type).split(" |")[0]
    flags = list(dict.fromkeys((f"--{one.name}", f"--{one.name.replace('_', '-')}")))
    choices = one.metadata.get("choices")
    shown = one.default if one.default not in (None, "") else None
    text = one.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
    if shown is not None:
        text += f" (default: {str(shown).lower() if isinstance(shown, bool) else shown})"
    more: dict[str, Any] = {"type": {"int": int, "float": float, "bool": _boolean}.get(kind, str)}
    if kind == "bool":
        more |= {"nargs": "?", "const": True}
    group.add_argument(
        *flags,
        dest=one.name,
        default=argparse.SUPPRESS,
        metavar={"int": "N", "float": "X", "bool": "BOOL"}.get(kind, "TEXT" if choices is None else "NAME"),
        help=text.replace("%", "%%"),
        **more,
    )


def _run(args: argparse.Namespace) -> int:
    from app.settings import SettingsError

    try:
        _check_times(args)
        if args.segmenter is not None:
            options = segmenter_training.chosen(args)
            return segmenter_training.run(args, _start(args.segmenter, "segmenter"), options, _say)
        segmenter_training.refuse_segmenters(args)
    except (OptionError, SettingsError) as error:
        return failed(error)
    return _train_detector(args)


def _check_times(args: argparse.Namespace) -> None:
    """Raises OptionError for --minutes and --every that cannot be used."""
    if args.minutes is not None and not args.minutes > 0:
        raise OptionError(f"minutes: expected more than 0, found {args.minutes:g}")
    if args.every is not None and (args.validation is not None or args.every < 2):
        raise OptionError(
            "every: expected either --validation or --every"
            if args.validation is not None
            else f"every: expected at least 2, found {args.every}"
        )


def _train_detector(args: argparse.Namespace) -> int:
    from app.settings import SettingsError

    chosen = {
        one.name: getattr(args, one.name) for one in dataclasses.fields(TrainingOptions) if hasattr(args, one.name)
    }
    try:
        options = TrainingOptions.by_azure(chosen) if args.azure_defaults else TrainingOptions(**chosen)
        start = _start(args.start, "from")
    except (OptionError, SettingsError) as error:
        return failed(error)

    from models.detector import mmcv_ops

    mmcv_ops.install()

    from models.data import DataError
    from models.finetuning.checkpoint_files import TrainingError
    from models.finetuning.processes import is_first
    from models.finetuning.training import finetune
    from models.model_errors import MissingOpError, ModelFilesError

    speaks = is_first()
    try:
        with nullcontext() if speaks else redirect_stderr(io.StringIO()):  # errors are raised, and said by all
            training, validation = read_parts(args)
        done = finetune(
            training,
            validation,
            start,
            args.out,
            options,
            student=args.student,
            take="nothing" if args.from_scratch else "backbone" if args.backbone_only else "all",
            name=args.name,
            minutes=args.minutes,
            say=_say,
            stream=None if args.quiet else sys.stderr,
        )
    except (OptionError, DataError, ModelFilesError, TrainingError, MissingOpError, OSError) as error:
        return failed(error)
    if not speaks:
        return 0
    say_trained("detector", done, options.metric_for_best_model, _say)
    return 0


def _start(wanted: str | None, option: str) -> Path:
    """The folder that a name, a path or nothing at all means. Raises OptionError, about this option, or
    SettingsError."""
    from app.settings import Settings
    from models import weights

    places = weights.find_places(Settings.from_environment().weights_dir)
    known = weights.load_manifest(places)
    if wanted is None:
        states = {name: weights.status(name, places, manifest=known).state for name in STARTS}
        here = [name for name, state in states.items() if state in ("present", "verified")]
        if not here:
            raise OptionError("from: expected a detector to start from; there are no weights here")
        wanted = here[0]
    if wanted in known:
        if weights.status(wanted, places, manifest=known).state in ("absent", "partial"):
            raise OptionError(f"{option}: {wanted} is not here: run `box2mask weights pull {wanted}`")
        return places.folder_of(known[wanted])
    path, what = Path(wanted), "detector folder" if option == "from" else "SAM folder"
    if not path.exists():
        raise OptionError(f"{option}: expected a {what} or one of {', '.join(known)}, found {wanted!r}")
    return path


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")


def _say(line: str) -> None:
    print(line, flush=True)
