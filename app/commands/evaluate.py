"""`box2mask evaluate`: measure boxes and masks against ground truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands.arguments import (
    add_data_arguments,
    add_models,
    chosen_settings,
    failed,
    fraction,
    read_data,
    typed,
)
from app.commands.list_options import add_list_options, list_options, named_options
from app.commands.tile_options import add_tile_options, lacks_tiles, tile_params

if TYPE_CHECKING:
    from app.evaluation.answers import Answers
    from app.evaluation.comparison import Earlier
    from app.prediction import Predictor
    from app.settings import Settings
    from models.data import Dataset

DESCRIPTION = """\
Measure a detector's boxes and a segmenter's masks on annotated images. DATA is what `box2mask data check` reads: COCO,
Pascal VOC, AzureML, YOLO, Label Studio, CVAT or LabelMe. Prints the figures beside the published ones, and
writes DIR/evaluation.json and DIR/report.html, one file with pictures of the best, median and worst objects.
Models are those of the service's settings unless others are named. docs/evaluation.md defines every figure.
"""
EXAMPLES = """\
examples:
  box2mask evaluate photos/
  box2mask evaluate photos/ --segmenter sam-base --segmenter sam-large --segmenter sam-huge --out sizes
  box2mask evaluate photos/ --detector runs/my-detector --prompts detected --score-threshold 0.5
  box2mask evaluate photos/ --detector none --prompts ground-truth,points
  box2mask evaluate photos/ --url http://localhost:5001
  box2mask evaluate photos/ --predictions results/coco.json
  box2mask evaluate instances_val2017.json --predictions results.bbox.json
  box2mask evaluate photos/ --detector fridge --not-worse-than evaluation/evaluation.json --out new && echo better

Exit status: 0 done; 1 the data cannot be used, there are no models, some images could not be answered (the figures
are then without these, and say so), or a figure is worse than --not-worse-than lets it be.
"""
PROMPTS = ("ground-truth", "detected", "points")
DEFAULT_PROMPTS = PROMPTS[:2]
MASK_SOURCES = ("detector", "segmenter")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure boxes and masks against ground truth",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("data", type=Path, metavar="DATA", help="annotated images: a file or a folder")
    add_models(command, segmenters=True)
    command.add_argument("--url", metavar="URL", help="ask the service that runs there, in place of loading models")
    command.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="measure a file of predictions: COCO's list of results, or the COCO JSON that `box2mask run` wrote; asks "
        "no model",
    )
    command.add_argument(
        "--prompts",
        type=partial(_some_of, PROMPTS),
        metavar="KINDS",
        help="what masks are asked for with, separated by commas: ground-truth (annotated boxes), detected (the "
        "detector's), points (the middle of the true mask); default: ground-truth,detected",
    )
    command.add_argument(
        "--masks",
        type=partial(_some_of, MASK_SOURCES),
        metavar="WHOSE",
        help="whose masks are measured: segmenter, detector (its own, of a Mask R-CNN, say) or both, separated by a "
        "comma (default: segmenter)",
    )
    command.add_argument(
        "--score-threshold",
        type=fraction,
        metavar="SCORE",
        help="detections from this score on count for precision, recall and masks (default: 0.3, the pipeline's)",
    )
    add_data_arguments(command)
    command.add_argument(
        "--out", type=Path, default=Path("evaluation"), metavar="DIR", help="where results go (default: evaluation)"
    )
    command.add_argument(
        "--not-worse-than",
        type=Path,
        metavar="FILE",
        help="an earlier evaluation.json of the same data: the exit status is 1 if mAP of boxes or IoU of masks is "
        "less than there",
    )
    command.add_argument(
        "--by", type=fraction, metavar="X", help="how much less they may be for --not-worse-than (default: 0)"
    )
    add_list_options(command, "--predictions")
    add_tile_options(command)
    command.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    options = ("predictions", "url", "detector", "segmenter", "device")
    named = [name for name in options if getattr(args, name) is not None]
    if len(named) > 1 and named[0] in ("predictions", "url"):
        return failed(f"--{named[0]} and --{named[1]} exclude each other: one asks no model here, the other loads it")
    if args.predictions is not None and args.prompts is not None:
        return failed("--predictions and --prompts exclude each other: the masks of a file are asked for already")
    own_masks = args.masks is not None and "detector" in args.masks
    if args.predictions is not None and args.masks is not None:
        return failed("--predictions and --masks exclude each other: the masks of a file are there already")
    if args.masks == ("detector",) and (name := "segmenter" * bool(args.segmenter) or "prompts" * bool(args.prompts)):
        return failed(
            f"--masks detector asks no segmenter: expected it without --{name}, or with --masks detector,segmenter"
        )
    if args.predictions is None and (without := named_options(args)):
        return failed(f"{without}: expected with --predictions")
    if option := lacks_tiles(args):
        return failed(f"{option}: expected with --tiles")
    if args.predictions is not None and args.tiles is not None:
        return failed("--predictions and --tiles exclude each other: a file has been predicted already")

    if args.by is not None and args.not_worse_than is None:
        return failed("--by: expected with --not-worse-than")
    if args.not_worse_than is not None and args.not_worse_than.resolve() == (args.out / "evaluation.json").resolve():
        return failed(f"--out {args.out}: its evaluation.json is to be compared with: expected another folder")

    from app.evaluation.comparison import ComparisonError, Earlier
    from app.settings import SettingsError
    from models.data import DataError

    try:
        settings = chosen_settings(args)
        earlier = None if args.not_worse_than is None else Earlier.read(args.not_worse_than)
        dataset = read_data(args, args.data)
        if earlier is not None:
            earlier.check(dataset)
        args.out.mkdir(parents=True, exist_ok=True)
    except (DataError, SettingsError, ComparisonError, OSError) as error:
        return failed(error)
    if not any(True for _ in dataset.annotations()):
        return failed(f"{args.data}: there is nothing to measure: it has no annotations")
    has_masks = any(one.has_mask for _, one in dataset.annotations())
    asks_here = args.predictions is None and args.url is None
    if asks_here and not has_masks and settings.detector == "none":
        return failed(f"{args.data}: there is nothing to measure: it has no masks, and there is no detector")

    from app.engine.loading import EXPLAINED
    from app.prediction import PredictorError
    from app.predictor import ServicePredictor

    try:
        if args.predictions is not None:
            answers = _read(args, dataset)
        else:
            there: list[Callable[[], Predictor]] = [lambda: ServicePredictor(args.url, mask_params=tile_params(args))]
            with_segmenter = has_masks and args.masks != ("detector",)
            predictors = _local(settings, args, with_segmenter) if asks_here else there
            answers = _ask(dataset, predictors, args.prompts if with_segmenter else (), own_masks)
    except (DataError, *EXPLAINED, PredictorError) as error:
        return failed(error)
    for path, reason in answers.failures:
        print(f"box2mask: {path}: {reason}", file=sys.stderr)
    if not len(answers.dataset):
        return failed("no image could be answered")
    if answers.detections is None and not answers.masks:
        return failed(f"{args.data}: there is nothing to measure: no detector, and no masks to compare any with")
    return _write(answers, args, earlier)


def _local(settings: Settings, args: argparse.Namespace, with_segmenter: bool) -> list[Callable[[], Predictor]]:
    """A predictor for each segmenter, all of them found before the first is loaded. Raises one of EXPLAINED."""
    from app.engine.loading import choose
    from app.predictor import LocalPredictor

    first, *others = args.segmenter or [settings.segmenter]
    changes = [{"segmenter": first}, *({"detector": "none", "segmenter": name} for name in others)]
    if not with_segmenter:  # as where its masks can be compared with nothing
        changes = [{"segmenter": "none"}]
    each = [settings.model_copy(update=one) for one in changes]
    return [partial(LocalPredictor, one, choose(one, typed=typed(args)), tile_params(args)) for one in each]


def _ask(
    dataset: Dataset, predictors: list[Callable[[], Predictor]], prompts: Sequence[str] | None, own_masks: bool
) -> Answers:
    """prompts: of the segmenters; () asks them nothing, None is the default."""
    from tqdm import tqdm

    from app.evaluation.answers import PROMPTS, ask

    kinds = [kind for kind in PROMPTS if kind in (DEFAULT_PROMPTS if prompts is None else prompts)]
    with tqdm(total=len(dataset) * len(predictors), unit="image", file=sys.stderr, disable=None) as bar:
        return ask(dataset, predictors, kinds, lambda: bar.update() and None, own_masks=own_masks)


def _read(args: argparse.Namespace, dataset: Dataset) -> Answers:
    """A file of predictions as if models had just given them."""
    from app.evaluation.answers import Answers, MaskAnswers
    from models.evaluation import read_predictions, truth_masks

    predictions: Path = args.predictions
    read = read_predictions(predictions, dataset, list_options(args), skip_bad=args.skip_bad)
    for note in read.notes:
        print(f"box2mask: {note}", file=sys.stderr)
    found = read.found
    with_masks = any(one.rle is not None for in_image in found for one in in_image)
    masks = [MaskAnswers(predictions.name, "detected", found)] if with_masks else []
    return Answers(dataset, truth_masks(dataset), predictions.name, None, found, masks)


def _write(answers: Answers, args: argparse.Namespace, earlier: Earlier | None) -> int:
    """The figures, to standard output and into files, and whether they are worse than earlier ones."""
    from app.evaluation.comparison import ComparisonError
    from app.evaluation.document import evaluate
    from app.evaluation.report import save
    from app.evaluation.tables import tables
    from app.scoring.scorer import PIPELINE_SCORE_THRESHOLD

    threshold = PIPELINE_SCORE_THRESHOLD if args.score_threshold is None else args.score_threshold
    asked = " ".join(f"{name} {value}" for name, value in tile_params(args).items())
    notes = [f"Images were looked at in tiles too: {asked}."] if asked else []
    result = evaluate(answers, str(args.data), threshold, notes)
    files = save(result, args.out)
    print("\n\n".join((*map(str, tables(result.document)), *result.document["notes"], "\n".join(map(str, files)))))
    if earlier is None:
        return int(bool(answers.failures))
    try:
        comparison = earlier.compared(result.document)
    except ComparisonError as error:
        return failed(error)
    print(f"\n{comparison.table()}")
    by = args.by or 0.0
    if worse := comparison.worse(by):
        return failed(f"worse than {earlier.path}{f' by more than {by:g}' if by else ''}: {'; '.join(worse)}")
    return int(bool(answers.failures))


def _some_of(known: Sequence[str], value: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in value.split(","))
    wrong = [kind for kind in kinds if kind not in known]
    if wrong:
        raise argparse.ArgumentTypeError(f"expected {', '.join(known)} or some of them, found {wrong[0]!r}")
    return kinds
