"""`box2mask evaluate`: measure boxes and masks against ground truth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands.arguments import add_prefix, failed, fraction

if TYPE_CHECKING:
    from app.evaluation.answers import Answers
    from app.predictor import Predictor
    from models.data import Dataset

DESCRIPTION = """\
Measure a detector's boxes and a segmenter's masks on annotated images. DATA is what `box2mask data check` reads: COCO
JSON, a Pascal VOC folder, AzureML JSONL or an MLTable folder. Prints the figures beside the published ones, and
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

Exit status: 0 done; 1 the data cannot be used, there are no models, or some images could not be answered (the figures
are then without these, and say so).
"""
PROMPTS = ("ground-truth", "detected", "points")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="measure boxes and masks against ground truth",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("data", type=Path, metavar="DATA", help="annotated images: a file or a folder")
    command.add_argument("--detector", metavar="NAME", help="folder, name of weights, auto or none")
    command.add_argument(
        "--segmenter",
        action="append",
        metavar="NAME",
        help="folder, name of weights, auto or none; give it again for another one beside it",
    )
    command.add_argument("--url", metavar="URL", help="ask the service that runs there, in place of loading models")
    command.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="measure the COCO JSON that `box2mask run` wrote; asks no model",
    )
    command.add_argument(
        "--prompts",
        type=_prompts,
        default=PROMPTS[:2],
        metavar="KINDS",
        help="what masks are asked for with, separated by commas: ground-truth (annotated boxes), detected (the "
        "detector's), points (the middle of the true mask); default: ground-truth,detected",
    )
    command.add_argument(
        "--score-threshold",
        type=fraction,
        metavar="SCORE",
        help="detections from this score on count for precision, recall and masks (default: 0.3, the pipeline's)",
    )
    add_prefix(command)
    command.add_argument(
        "--out", type=Path, default=Path("evaluation"), metavar="DIR", help="where results go (default: evaluation)"
    )
    command.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    named = [name for name in ("predictions", "url", "detector", "segmenter") if getattr(args, name) is not None]
    if len(named) > 1 and named[0] in ("predictions", "url"):
        return failed(f"--{named[0]} and --{named[1]} exclude each other: one asks no model here, the other loads it")

    from app.settings import Settings, SettingsError
    from models.data import DataError, load

    try:
        settings = Settings.from_environment()
        dataset = load(args.data, prefixes=dict(args.prefix))
        args.out.mkdir(parents=True, exist_ok=True)
    except DataError as error:
        return failed(f"{args.data} cannot be used:\n{error}")
    except (SettingsError, OSError) as error:
        return failed(str(error))
    if not any(True for _ in dataset.annotations()):
        return failed(f"{args.data}: there is nothing to measure: it has no annotations")

    from app.loading import EXPLAINED
    from app.predictor import PredictorError, open_predictor

    def opener(**changes: str) -> Callable[[], Predictor]:
        return lambda: open_predictor(settings.model_copy(update=changes), args.url)

    detector = {} if args.detector is None else {"detector": args.detector}
    segmenters = args.segmenter or [settings.segmenter]
    if not any(one.has_mask for _, one in dataset.annotations()):
        if (args.detector or settings.detector) == "none":
            return failed(f"{args.data}: there is nothing to measure: it has no masks, and there is no detector")
        segmenters = ["none"]  # whose masks nothing could be compared with
    predictors = [opener(**detector, segmenter=segmenters[0])]
    predictors += [opener(detector="none", segmenter=name) for name in segmenters[1:]]
    try:
        answers = _read(args.predictions, dataset) if args.predictions else _ask(dataset, predictors, args.prompts)
    except DataError as error:
        return failed(f"{args.predictions} cannot be used:\n{error}")
    except (*EXPLAINED, PredictorError) as error:
        return failed(str(error))
    for path, reason in answers.failures:
        print(f"box2mask: {path}: {reason}", file=sys.stderr)
    if not len(answers.dataset):
        return failed("no image could be answered")
    return _write(answers, args)


def _ask(dataset: Dataset, predictors: list[Callable[[], Predictor]], prompts: tuple[str, ...]) -> Answers:
    from tqdm import tqdm

    from app.evaluation.answers import PROMPTS, ask

    with tqdm(total=len(dataset) * len(predictors), unit="image", file=sys.stderr, disable=None) as bar:
        return ask(dataset, predictors, [kind for kind in PROMPTS if kind in prompts], lambda: bar.update() and None)


def _read(predictions: Path, dataset: Dataset) -> Answers:
    """A file of predictions as if models had just given them."""
    from app.evaluation.answers import Answers, MaskAnswers
    from models.evaluation import read_predictions, truth_masks

    found = read_predictions(predictions, dataset)
    with_masks = any(one.rle is not None for in_image in found for one in in_image)
    masks = [MaskAnswers(predictions.name, "detected", found)] if with_masks else []
    return Answers(dataset, truth_masks(dataset), predictions.name, None, found, masks)


def _write(answers: Answers, args: argparse.Namespace) -> int:
    """The figures, to standard output and into files."""
    from app.evaluation.document import evaluate
    from app.evaluation.report import save
    from app.evaluation.tables import tables
    from app.scoring import PIPELINE_SCORE_THRESHOLD

    threshold = PIPELINE_SCORE_THRESHOLD if args.score_threshold is None else args.score_threshold
    result = evaluate(answers, str(args.data), threshold)
    files = save(result, args.out)
    print("\n\n".join((*map(str, tables(result.document)), *result.document["notes"], "\n".join(map(str, files)))))
    return int(bool(answers.failures))


def _prompts(value: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in value.split(","))
    wrong = [kind for kind in kinds if kind not in PROMPTS]
    if wrong:
        raise argparse.ArgumentTypeError(f"expected {', '.join(PROMPTS)} or some of them, got {wrong[0]!r}")
    return kinds
