"""`box2mask walkthrough`: the whole walk from images with boxes to measured masks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DESCRIPTION = """\
Fine-tune a detector on images with boxes, serve it, let its boxes prompt SAM, and measure the masks, in one command.
"""
NOTES = """\
The steps: pull or draw the images; split them; fine-tune a detector on the boxes of 80 %; serve it; send the others to
the service, whose detector's boxes prompt SAM; store the masks; measure them. Each is a box2mask command of its own,
which is printed, and each can be done again by itself. A walk that was stopped goes on where it was.

DIR then holds split/, detector/ (which BOX2MASK_DETECTOR can name), masks/ and evaluation/ with report.html.

With --student, the walk goes on: SAM makes masks by the true boxes of the 80 %; a detector that finds masks itself
learns them; it is served, and measured beside SAM. DIR then also holds training-masks/, student/ and
student-evaluation/.

Options that are not of this command go to `box2mask finetune`, for the detector and for the student.

examples:
  box2mask walkthrough --data demo
  box2mask walkthrough --data demo --student rtmdet-ins
  box2mask walkthrough --segmenter sam-huge --detector yolof
  box2mask walkthrough --data photos/ --out walk --number_of_epochs 40
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "walkthrough",
        help="the whole walk from images with boxes to measured masks",
        description=DESCRIPTION,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--data",
        default="odFridgeObjects",
        metavar="DATA",
        help="odFridgeObjects (default; pulled, or drawn scenes where there is no network), demo (drawn scenes), or a "
        "data set of your own, in any format that `box2mask data` reads",
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("walkthrough"),
        metavar="DIR",
        help="where everything goes (default: walkthrough)",
    )
    command.add_argument(
        "--scenes", type=int, default=128, metavar="N", help="how many scenes to draw for demo (default: 128)"
    )
    command.add_argument("--detector", metavar="NAME_OR_DIR", help="where fine-tuning starts (see finetune --from)")
    command.add_argument("--segmenter", metavar="NAME_OR_DIR", help="SAM of the service (default: BOX2MASK_SEGMENTER)")
    command.add_argument(
        "--student",
        metavar="NAME_OR_DIR",
        help="what learns SAM's masks afterwards: rtmdet-ins or mask-rcnn, on the fine-tuned detector's backbone, or "
        "the folder of a detector that finds masks",
    )
    command.set_defaults(run=_run, takes_more=True)


def _run(args: argparse.Namespace) -> int:
    from app.folders.walkthrough import Walk, WalkError

    def say(line: str) -> None:
        print(line, flush=True)

    walk = Walk(args.out, args.data, args.scenes, args.detector, args.segmenter, args.more, say, args.student)
    try:
        walk.run()
    except WalkError as error:
        print(f"box2mask: {error}", file=sys.stderr)
        return 1
    say("\n== Done")
    for step in walk.steps:
        say(f"{'before' if step.seconds is None else f'{step.seconds:.0f} s':>8}  {step.title}")
    figures = walk.figures() if args.student is not None else []
    if figures:
        say("\nMasks of the validation images, mean IoU with the true ones:")
        say(f"{'found':>8}  {'all':>5}")
        for one in figures:
            say(f"{_shown(one.found):>8}  {_shown(one.every):>5}  {one.what}")
    if args.student is not None:
        say(f"The student's report: {args.out / 'student-evaluation' / 'report.html'}")
    say(f"The report: {args.out / 'evaluation' / 'report.html'}")
    return 0


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
