"""`box2mask data`: convert, split, check, pull and draw annotated images."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands.arguments import WRITTEN, add_data_arguments, failed, read_data, reading

if TYPE_CHECKING:
    from models.data import Dataset

PLACINGS = ("copy", "link", "reference")
MOST_SHOWN = 10  # problems of one kind, by `check`
KNOWN = ("odFridgeObjects", "odFridgeObjectsMask")

EXAMPLES = """\
examples:
  box2mask data pull odFridgeObjects
  box2mask data check odFridgeObjects
  box2mask data split odFridgeObjects fridge --every 5
  box2mask data convert fridge/train train.jsonl --to jsonl --images reference
"""

CONVERT_NOTES = """\
What a format cannot hold is counted and printed: VOC has boxes only, and JSONL has polygons but no run-length
encoding. docs/data.md says what each one keeps.

examples:
  box2mask data convert odFridgeObjects fridge-coco --to coco
  box2mask data convert instances.json masks --to mltable --images link
  box2mask data convert training-mltable-folder fridge-voc --to voc --prefix azureml://.../paths/=downloads
  box2mask data convert odFridgeObjects upload --to mltable --url-prefix azureml://.../paths/odFridgeObjects/images
"""

SPLIT_NOTES = """\
--every 5 is the rule of Azure's samples: of the images counted from 0, those whose number divides by 5 go to
validation. The samples count in whatever order the file system lists the annotations; here it is the order of the
source, for VOC that of the names with 2 before 10. With --keep, what was trained on before is never measured on.

examples:
  box2mask data split odFridgeObjects fridge --every 5
  box2mask data split annotations.json parts --fraction 0.2 --seed 7 --to jsonl
  box2mask data split more.json parts-2 --every 5 --keep parts
"""

CHECK_NOTES = """\
Looked for: lines and elements that cannot be read, image files that are missing or unreadable, sizes that are not
those of the files, boxes that are empty, inverted or reach outside the image, polygons of fewer than 3 points or
outside the image, classes other than those of --classes, images that are there twice (by path or by content) and
objects that are there twice. Exit status 1 when anything was found.

examples:
  box2mask data check odFridgeObjects --classes can,carton,milk_bottle,water_bottle
"""

PULL_NOTES = """\
An interrupted download goes on where it stopped when the command is run again. The zip is unpacked beside its place
and gets the data set's name only once its images, annotations and classes are the known ones and every image can be
read. Its sha256, which nobody publishes, is printed and kept in NAME.zip.sha256.

examples:
  box2mask data pull odFridgeObjects
  box2mask data pull odFridgeObjects --to /data --from ~/Downloads/odFridgeObjects.zip
"""


DEMO_NOTES = """\
Scene number n of a seed is the same picture whenever and wherever it is drawn.

examples:
  box2mask data demo scenes
  box2mask data demo more-scenes --scenes 1000 --seed 7
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    data = commands.add_parser(
        "data",
        help="convert, split, check, pull or draw annotated images",
        description="Read annotated images of COCO, Pascal VOC, AzureML, YOLO, Label Studio, CVAT or LabelMe, "
        "and convert, split or check them; pull a published data set; or draw one of demo scenes.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)

    source, all_of_it = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    for one in (source, all_of_it):
        one.add_argument("src", type=Path, metavar="SRC", help="a data set: a .json or .jsonl file, or a folder")
        add_data_arguments(one, skip_bad=one is source)

    target = argparse.ArgumentParser(add_help=False)
    target.add_argument(
        "--images",
        choices=PLACINGS,
        default="copy",
        help="copy the image files, link to them, or refer to where they are (default: copy)",
    )
    target.add_argument(
        "--url-prefix",
        metavar="TEXT",
        help="jsonl, mltable and label-studio: write addresses of images as TEXT/NAME, for data to be uploaded",
    )

    action = actions.add_parser(
        "convert",
        parents=[source, target],
        help="write a data set in another format",
        description="Write the data set SRC to DST, a new folder (or, for formats of one file, a new file) in the "
        "format that --to says.",
        epilog=CONVERT_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("dst", type=Path, metavar="DST", help="the folder or file to write, which must not be there")
    action.add_argument(
        "--to", choices=WRITTEN, required=True, metavar="FORMAT", help="the format to write: %(choices)s"
    )
    action.set_defaults(run=_data, action=_convert)

    action = actions.add_parser(
        "split",
        parents=[source, target],
        help="divide a data set into train and validation",
        description="Write OUT/train and OUT/validation, which have all the classes of SRC.",
        epilog=SPLIT_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("out", type=Path, metavar="OUT", help="the folder for train/ and validation/")
    rule = action.add_mutually_exclusive_group(required=True)
    rule.add_argument("--every", type=int, metavar="N", help="image number 0, N, 2N, ... to validation")
    rule.add_argument("--fraction", type=float, metavar="F", help="this share of the images to validation, at random")
    action.add_argument("--seed", type=int, default=42, help="of the random choice of --fraction (default: 42)")
    action.add_argument(
        "--keep",
        type=Path,
        metavar="EARLIER",
        help="an earlier OUT: its images stay in their part, by their names, and only new ones are divided",
    )
    action.add_argument(
        "--to", choices=WRITTEN, metavar="FORMAT", help="the format to write: %(choices)s (default: that of SRC)"
    )
    action.set_defaults(run=_data, action=_split)

    action = actions.add_parser(
        "check",
        parents=[all_of_it],
        help="find what is wrong with a data set",
        description="Print a table of every problem with its file and line, and how much there is of each class.",
        epilog=CHECK_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("--classes", metavar="A,B", help="the only classes there may be")
    action.add_argument("--all", action="store_true", help=f"every problem, not only the first {MOST_SHOWN} of a kind")
    action.set_defaults(run=_data, action=_check)

    action = actions.add_parser(
        "pull",
        help="download a published data set",
        description="Download a data set that is known by name, check it and unpack it.",
        epilog=PULL_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("name", choices=KNOWN, metavar="NAME", help=" or ".join(KNOWN))
    action.add_argument("--to", type=Path, default=Path("."), metavar="DIR", help="where its folder goes (default: .)")
    action.add_argument(
        "--from", dest="source", metavar="URL_OR_ZIP", help="another URL of the zip file, or the file itself"
    )
    action.set_defaults(run=_pull)

    action = actions.add_parser(
        "demo",
        help="draw a data set of demo scenes",
        description="Draw pictures of cans, cartons, milk bottles and water bottles, with boxes and exact masks in "
        "COCO form: OUT/images and OUT/annotations.json.",
        epilog=DEMO_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("out", type=Path, metavar="OUT", help="the folder to write, new or empty")
    action.add_argument("--scenes", type=int, default=128, metavar="N", help="how many pictures (default: 128)")
    action.add_argument("--seed", type=int, default=0, help="draws other pictures (default: 0)")
    action.add_argument("--size", type=int, default=480, metavar="PX", help="their longer side (default: 480)")
    action.set_defaults(run=_data, action=_demo)


def _data(args: argparse.Namespace) -> int:
    """Runs an action that reads SRC; what stands in its way becomes sentences on standard error."""
    try:
        return args.action(args)
    except (OSError, ValueError) as error:  # a DataError is a ValueError
        return failed(error)


def _convert(args: argparse.Namespace) -> int:
    _write(args, read_data(args, args.src), args.dst, args.to)
    return 0


def _split(args: argparse.Namespace) -> int:
    from models.atomic_files import into_folder
    from models.data import check_writable, find, load, split

    _expect_new_or_empty(args.out)
    dataset = read_data(args, args.src)
    format = args.to or find(args.src, args.format)[0]
    kept = None if args.keep is None else (load(args.keep / "train"), load(args.keep / "validation"))
    parts = split(dataset, every=args.every, fraction=args.fraction, seed=args.seed, kept=kept)
    named = list(zip(parts, ("train", "validation"), strict=True))
    for part, name in named:  # both, before the first is written
        check_writable(part, args.out / name, format, **_writing(args))
    with into_folder(args.out) as unfinished:
        for part, name in named:
            _write(args, part, unfinished / name, format, args.out / name)
    return 0


def _check(args: argparse.Namespace) -> int:
    from models.data import check, counts, read, shortened
    from models.images.notes import PhotoNotes

    dataset, problems = read(args.src, **reading(args))
    allowed = None if args.classes is None else [name.strip() for name in args.classes.split(",") if name.strip()]
    notes = PhotoNotes(args.page)
    problems += check(dataset, allowed, notes)
    if problems:
        rows: list[tuple[str, ...]] = [("FILE", "LINE", "REASON")]
        for one in shortened(problems, len(problems) if args.all else MOST_SHOWN):
            if isinstance(one, int):
                rows.append(("", "", f"... and {one:,} more like this (--all shows each)"))
            else:
                rows.append((str(one.place.file), str(one.place.line or ""), one.what))
        print(_table(rows), end="\n\n")
    rows = [("CLASS", "OBJECTS", "IMAGES", "MASKS", "CROWDS")]
    rows += [(one.name, *map(str, (one.objects, one.images, one.masks, one.crowds))) for one in counts(dataset)]
    print(_table(rows), end="\n\n")
    empty = sum(not image.annotations for image in dataset.images)
    urls = sum(isinstance(image.path, str) for image in dataset.images)
    print(f"{len(dataset)} images, {empty} of them without an object" + (f", {urls} URLs not fetched" if urls else ""))
    for note in notes.lines():
        print(f"note: {note}")
    print(f"{len(problems):,} problem{'s' if len(problems) > 1 else ''}" if problems else "no problems")
    return 1 if problems else 0


def _pull(args: argparse.Namespace) -> int:
    from models.data.pull import PullError, pull

    try:
        pull(args.name, args.to, args.source, report=print)
    except PullError as error:
        return failed(error)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from models.demo.dataset import draw_dataset

    for name, value, least in (("scenes", args.scenes, 1), ("seed", args.seed, 0), ("size", args.size, 64)):
        if value < least:
            raise ValueError(f"--{name}: expected {least} or more, found {value}")
    _expect_new_or_empty(args.out)
    with tqdm(total=args.scenes, desc="scenes", unit="scene", disable=None) as bar:
        dataset = draw_dataset(args.out, args.scenes, args.seed, args.size, lambda done: bar.update(done - bar.n))
    objects = sum(1 for _ in dataset.annotations())
    print(f"{args.out}: {len(dataset)} images, {objects} objects, {len(dataset.class_names)} classes, coco")
    return 0


def _expect_new_or_empty(folder: Path) -> None:
    from models.atomic_files import is_empty

    if os.path.lexists(folder) and not (folder.is_dir() and is_empty(folder)):
        raise ValueError(f"{folder} is there already: expected a new or empty folder")


def _writing(args: argparse.Namespace) -> dict[str, Any]:
    """How data sets are written."""
    from app.contract.masks import encode_polygons

    return {"images": args.images, "url_prefix": args.url_prefix, "outline": encode_polygons}


def _write(args: argparse.Namespace, dataset: Dataset, path: Path, format: str, final: Path | None = None) -> None:
    """final: where `path` will have been moved to in the end."""
    from models.data import write

    notes = write(dataset, path, format, **_writing(args), final=final)
    path = final or path
    objects = sum(1 for _ in dataset.annotations())
    print(f"{path}: {len(dataset)} images, {objects} objects, {len(dataset.class_names)} classes, {format}")
    for note in notes:
        print(f"{path}: {note}")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
