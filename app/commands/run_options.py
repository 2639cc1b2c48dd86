"""The options of `box2mask run`, and which of them do not go together."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands.arguments import add_models, add_page, fraction, within
from app.commands.list_options import add_list_options, named_options
from app.commands.mask_options import add_mask_options, add_polygon_options
from app.commands.ray_options import add_ray_options, wrong_ray_options
from app.commands.tile_options import add_tile_options, lacks_tiles

if TYPE_CHECKING:
    from app.folders.sources import Sources
    from app.folders.storage import Place

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
  box2mask run s3://bucket/photos --out s3://bucket/results --recursive
  box2mask run s3://bucket/photos --out s3://bucket/results --recursive --ray auto
"""


class RunError(Exception):
    """A command line that asks for what cannot be had; says what to do."""


def add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """The command and all of its options."""
    command = commands.add_parser(
        "run",
        help="detect and segment folders of images",
        description=DESCRIPTION,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="folders of images or images, here or in a store (s3://, gs://, abfss://), or a .txt of http(s) addresses",
    )
    command.add_argument("--out", required=True, metavar="DIR", help="where the results go, here or in a store")
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
    add_ray_options(command)
    add_list_options(command, "--prompts")
    command.add_argument(
        "--skip-bad", action="store_true", help="leave out boxes of --prompts that cannot be read, and say so"
    )
    return command


def check(args: argparse.Namespace) -> None:
    """Raises RunError for options that do not go together."""
    if wrong := wrong_ray_options(args):
        raise RunError(wrong)
    if args.url is not None:
        for name in ("detector", "segmenter", "device"):
            if getattr(args, name) is not None:
                raise RunError(f"--{name}: the service at --url has its own; expected one of the two")
    if args.prompts is None and (without := named_options(args) or ("--prompts-images" * bool(args.prompts_images))):
        raise RunError(f"{without}: expected with --prompts")
    if option := lacks_tiles(args):
        raise RunError(f"{option}: expected with --tiles")
    _check_everything(args)
    if args.masks == "detector" and args.prompts is not None:
        raise RunError("--masks detector: the boxes are those of --prompts; expected one of the two")
    if args.masks == "detector" and args.segmenter is not None:
        raise RunError("--masks detector: asks no segmenter; expected it without --segmenter")
    if args.prompts is not None and args.detector is not None:
        raise RunError("--detector: the boxes are those of --prompts; expected one of the two")


def check_places(args: argparse.Namespace, sources: Sources, out: Place, image_urls: str) -> None:
    """Raises RunError for options that where images or results are does not allow. image_urls: the setting."""
    if isinstance(out, Path) and out.exists() and not out.is_dir():
        raise RunError(f"--out {out}: expected a folder, found a file")
    if isinstance(sources.root, str) and image_urls == "off":
        raise RunError(f"{args.images[0]}: BOX2MASK_IMAGE_URLS=off: http(s) addresses are not fetched")
    if "yolo-seg" in (args.formats or ()) and not (isinstance(out, Path) and isinstance(sources.root, Path)):
        raise RunError(
            "--formats yolo-seg: it holds copies of the images, which must be here, as --out must; "
            "`box2mask data convert coco.json` makes one from images and coco.json that are"
        )


def _check_everything(args: argparse.Namespace) -> None:
    if not args.everything:
        if without := [name for name in GRID if getattr(args, name) is not None]:
            raise RunError(f"--{without[0].replace('_', '-')}: expected with --everything")
        return
    if args.tiles is not None:
        raise RunError("--tiles: --everything looks at parts of a photo by --crops-n-layers; expected one of the two")
    others = {
        "--prompts": args.prompts, "--detector": args.detector, "--score-threshold": args.score_threshold,
        "--masks": args.masks, "--order": args.order,
    }  # fmt: skip
    for name, value in others.items():
        if value is not None:
            more = "; --pred-iou-thresh leaves out bad masks" if name == "--score-threshold" else ""
            raise RunError(f"{name}: --everything asks no detector and takes no boxes; expected one of the two{more}")


def _formats(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected any of {','.join(FORMATS)}, found {text!r}")
    return tuple(dict.fromkeys(names))
