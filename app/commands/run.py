"""`box2mask run`: detect and segment folders of images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands.arguments import add_models, add_page, chosen_settings, failed, fraction, typed, within
from app.commands.list_options import add_list_options, list_options, named_options
from app.commands.mask_options import add_mask_options, add_polygon_options, corners, mask_params
from app.commands.tile_options import add_tile_options, lacks_tiles, tile_params

if TYPE_CHECKING:
    from app.contract.schemas import MaskSource
    from app.folders.prompts import BoxPrompts
    from app.folders.sources import Sources
    from app.prediction import Predictor

# The names that `app.folders.outputs` gives them, which is not imported for `--help`.
FORMATS = ("masks", "coco", "jsonl", "label-studio", "cvat", "overlay", "yolo-seg")
NOT_BY_DEFAULT = ("yolo-seg",)  # it holds the images, too
SCORE_THRESHOLD = 0.3

# Values of `models.segmenter.everything.Grid`, which is not imported for `--help`: kind, least, most, help.
GRID: dict[str, tuple[type, float, float, str]] = {
    "points_per_side": (int, 1, 256, "of --everything: points along each side of the grid (default: 32)"),
    "pred_iou_thresh": (float, 0, 1, "of --everything: leave out masks that SAM itself rates lower (default: 0.88)"),
    "stability_score_thresh": (
        float, 0, 1, "of --everything: leave out masks whose edge depends more on the threshold (default: 0.95)",
    ),
    "crops_n_layers": (int, 0, 3, "of --everything: look at parts of the image too, 2 x 2, then 4 x 4 (default: 0)"),
}  # fmt: skip

DESCRIPTION = """\
Find the objects in images, and their masks, and store them in the formats of other tools. The models are those that
`box2mask serve` would serve; all of its settings hold.
"""
NOTES = """\
Formats: masks (a PNG for each object), coco (COCO JSON with RLE), jsonl (AzureML), label-studio and cvat (import
files), overlay (pictures), yolo-seg (a training set, images and all). The same command again goes on where an earlier
one stopped, and does only what is new; an image that cannot be used is said, skipped and listed in failed.jsonl, and
the exit status is 1 then.
docs/run.md describes the files, and the forms that --prompts may have.

examples:
  box2mask run photos --out results
  box2mask run photos more/one.jpg --out results --recursive --formats masks,coco --score-threshold 0.5
  box2mask run photos --out results --prompts boxes.json --segmenter sam-huge
  box2mask run val2017 --out results --prompts results.bbox.json --prompts-images instances_val2017.json
  box2mask run photos --out results --class-agnostic-nms --min-region-area 100 --largest-part --tight-boxes
  box2mask run photos --out results --tiles 1024
  box2mask run photos --out results --order uncertainty --formats label-studio
  box2mask run photos --out results --everything --segmenter sam-base
  box2mask run photos --out results --url http://localhost:5001
"""


class _RunError(Exception):
    """A command line that asks for what cannot be had; says what to do."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "run",
        help="detect and segment folders of images",
        description=DESCRIPTION,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="folders of images, or images")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    command.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="boxes (JSON, or any data set) in place of the detector's",
    )
    command.add_argument(
        "--prompts-images",
        type=Path,
        metavar="FILE",
        help="the COCO annotation file that has the images and categories of a list of results in --prompts",
    )
    command.add_argument(
        "--everything",
        action="store_true",
        help="no boxes: all masks that the segmenter finds at a grid of points, without classes",
    )
    for name, (kind, least, most, text) in GRID.items():
        command.add_argument(
            f"--{name.replace('_', '-')}",
            type=within(kind, least, most),
            metavar="N" if kind is int else "X",
            help=text,
        )
    command.add_argument(
        "--masks",
        choices=("detector", "segmenter"),
        help="whose masks the boxes get; the detector's are those of a Mask R-CNN, say (default: the segmenter's)",
    )
    command.add_argument(
        "--formats",
        type=_formats,
        metavar="LIST",
        help=f"any of {','.join(FORMATS)} (default: all that are possible, but for {','.join(NOT_BY_DEFAULT)})",
    )
    command.add_argument(
        "--score-threshold",
        type=fraction,
        metavar="X",
        help=f"leave out boxes that score less (default: {SCORE_THRESHOLD}; of --prompts: none)",
    )
    command.add_argument(
        "--order",
        choices=("uncertainty",),
        help="what to label first: Label Studio's tasks, and a list order.csv, by how much a look at each would teach",
    )
    add_mask_options(command)
    add_polygon_options(command)
    add_tile_options(command)
    add_page(command)
    command.add_argument("--recursive", action="store_true", help="look into folders in folders, too")
    command.add_argument("--restart", action="store_true", help="forget an earlier run's results in DIR")
    add_models(command)
    command.add_argument("--url", metavar="URL", help="ask the service that runs there, in place of loading models")
    command.add_argument(
        "--image-url",
        metavar="PREFIX",
        help="what stands before the images' names in the AzureML and Label Studio files (a data store, a web address)",
    )
    add_list_options(command, "--prompts")
    command.add_argument(
        "--skip-bad", action="store_true", help="leave out boxes of --prompts that cannot be read, and say so"
    )
    command.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from app.folders.sources import SourceError, find_images
    from app.settings import SettingsError

    try:
        sources = find_images(args.images, recursive=args.recursive, leave_out=args.out)
        settings = chosen_settings(args)
        _check(args)
    except (SourceError, SettingsError, _RunError) as error:  # told before the models' libraries are imported
        return failed(error)
    for note in sources.notes:
        print(f"box2mask: {note}", file=sys.stderr)

    from app.engine.loading import EXPLAINED, choose
    from app.folders.journal import JournalError
    from app.folders.prompts import PromptsError, read_prompts
    from app.prediction import PredictorError
    from app.predictor import open_predictor

    try:
        prompts = None
        if args.prompts is not None:
            prompts = read_prompts(
                args.prompts,
                sources.images,
                args.score_threshold,
                options=list_options(args),
                annotation_file=args.prompts_images,
                skip_bad=args.skip_bad,
            )
            for note in prompts.notes:
                print(f"box2mask: {note}", file=sys.stderr)
        if args.prompts is not None or args.everything:
            settings = settings.model_copy(update={"detector": "none"})
        if args.masks == "detector":
            settings = settings.model_copy(update={"segmenter": "none"})
        choice = choose(settings, typed=typed(args)) if args.url is None else None
        params = mask_params(args) | tile_params(args)
        with open_predictor(settings, args.url, choice, params, for_folders=True) as predictor:
            return _process(args, sources, prompts, predictor)
    except (PromptsError, JournalError, PredictorError, _RunError, *EXPLAINED) as error:
        return failed(error)


def _process(args: argparse.Namespace, sources: Sources, prompts: BoxPrompts | None, predictor: Predictor) -> int:
    from importlib.metadata import version

    from app.folders import batch, outputs
    from app.folders.journal import FAILED, Journal
    from app.folders.order import ByUncertainty
    from models.images.notes import PhotoNotes

    identity = predictor.identity()
    if prompts is not None:
        identity["detector"] = None
        if identity["segmenter"] is None:
            raise _RunError("--prompts: expected a segmenter to give the boxes to, found none")
    elif args.everything:
        identity["detector"] = None
        if identity["segmenter"] is None:
            raise _RunError("--everything: expected a segmenter to find masks, found none")
    elif identity["detector"] is None:
        raise _RunError("there is no detector to find boxes: name one with --detector, or give boxes with --prompts")
    source: MaskSource = "segmenter" if identity["segmenter"] is not None else "none"
    if args.masks == "detector":
        identity["segmenter"] = None
        source = args.masks
        detector = predictor.description["detector"]
        if not detector.get("has_masks"):
            raise _RunError(f"--masks detector: the detector {detector['name']} finds boxes alone, and no masks")
    elif args.masks == "segmenter" and source == "none":
        raise _RunError("--masks segmenter: expected a segmenter, found none")
    has_masks = source != "none"
    possible = (one for one in FORMATS if has_masks or one not in outputs.NEED_MASKS)
    formats = args.formats or tuple(one for one in possible if one not in NOT_BY_DEFAULT)
    if not has_masks and (lacking := [one for one in formats if one in outputs.NEED_MASKS]):
        raise _RunError(f"--formats {','.join(lacking)}: expected a segmenter to make masks, found none")

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
    header = {"box2mask": version("box2mask"), "settings": settings}
    journal = Journal(args.out, header, outputs.ALL, restart=args.restart)
    try:
        # What an earlier run has written here is kept in step, asked for again or not.
        formats = tuple(one for one in FORMATS if one in formats or (args.out / outputs.NAMES[one]).exists())
        model_version = " + ".join(name for name in identity.values() if name)
        writing = outputs.Outputs(
            args.out, formats, sources.root, args.image_url, model_version, args.page, corners(args)
        )
        class_names: tuple[str, ...]
        if args.everything:
            class_names, predict = (), batch.everything(predictor, grid)
        elif prompts is None:
            class_names = predictor.class_names
            predict = batch.detecting(predictor, threshold, source)
        else:
            class_names = prompts.class_names
            predict = batch.prompted(predictor)
        if args.order is not None and source == "segmenter":
            predict = batch.with_agreement(predictor, predict)
        in_networks = batch.images_in_networks(predictor)
        notes = PhotoNotes(args.page)
        summary = batch.process(sources, predict, journal, writing, prompts, notes, in_networks=in_networks)
        order = ByUncertainty(journal) if args.order is not None else None
        written = writing.write_all(journal, class_names, order)
        objects = sum(len(result.objects) for result in journal)
        again = f", {summary.resumed} of them from before" if summary.resumed else ""
        print(f"{len(journal)} images{again}, {objects} objects: {', '.join(written)} in {args.out}")
        for note in notes.lines():
            print(f"box2mask: {note}", file=sys.stderr)
    finally:
        journal.close()
    if summary.failed:
        print(
            f"box2mask: {summary.failed} of {len(sources.images)} images could not be used; "
            f"{args.out / FAILED} says why; the same command tries them again",
            file=sys.stderr,
        )
    return int(summary.failed > 0)


def _check(args: argparse.Namespace) -> None:
    if args.out.exists() and not args.out.is_dir():
        raise _RunError(f"--out {args.out}: expected a folder, found a file")
    if args.url is not None:
        for name in ("detector", "segmenter", "device"):
            if getattr(args, name) is not None:
                raise _RunError(f"--{name}: the service at --url has its own; expected one of the two")
    if args.prompts is None and (without := named_options(args) or ("--prompts-images" * bool(args.prompts_images))):
        raise _RunError(f"{without}: expected with --prompts")
    if option := lacks_tiles(args):
        raise _RunError(f"{option}: expected with --tiles")
    _check_everything(args)
    if args.masks == "detector" and args.prompts is not None:
        raise _RunError("--masks detector: the boxes are those of --prompts; expected one of the two")
    if args.masks == "detector" and args.segmenter is not None:
        raise _RunError("--masks detector: asks no segmenter; expected it without --segmenter")
    if args.prompts is not None and args.detector is not None:
        raise _RunError("--detector: the boxes are those of --prompts; expected one of the two")


def _check_everything(args: argparse.Namespace) -> None:
    if not args.everything:
        if without := [name for name in GRID if getattr(args, name) is not None]:
            raise _RunError(f"--{without[0].replace('_', '-')}: expected with --everything")
        return
    if args.tiles is not None:
        raise _RunError("--tiles: --everything looks at parts of a photo by --crops-n-layers; expected one of the two")
    others = {
        "--prompts": args.prompts, "--detector": args.detector, "--score-threshold": args.score_threshold,
        "--masks": args.masks, "--order": args.order,
    }  # fmt: skip
    for name, value in others.items():
        if value is not None:
            more = "; --pred-iou-thresh leaves out bad masks" if name == "--score-threshold" else ""
            raise _RunError(f"{name}: --everything asks no detector and takes no boxes; expected one of the two{more}")


def _formats(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected any of {','.join(FORMATS)}, found {text!r}")
    return tuple(dict.fromkeys(names))
