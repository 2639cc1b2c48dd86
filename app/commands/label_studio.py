"""`box2mask label-studio`: photos and corrections of a Label Studio project to a folder, and predictions back to it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.commands.arguments import failed

NOTES = """\
BOX2MASK_LABEL_STUDIO_URL is the address of Label Studio, BOX2MASK_LABEL_STUDIO_TOKEN an account's token.
docs/labelling.md has the loop that these two begin and end.

examples:
  box2mask label-studio pull 3 --out round
  box2mask run round/open --out round/found --order uncertainty --formats label-studio
  box2mask label-studio push 3 round/found
"""
PULL_NOTES = """\
OUT/export.json with OUT/images is a data set of the tasks that people have labelled: `box2mask data`, `finetune` and
`evaluate` read it. OUT/open has the photos of the others. The same command again fetches what is new.
"""
PUSH_NOTES = """\
Predictions go into the controls that the project's labelling interface has for their classes. A task that has one of
these models is passed over, so that the same command goes on where it was stopped, and so is one that has been
labelled since.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "label-studio",
        help="a Label Studio project's photos and corrections, and predictions for it",
        description="Bring a Label Studio project's photos and corrections here, or predictions there.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, text, notes in (
        ("pull", "bring a project's photos and corrections to a folder", PULL_NOTES),
        ("push", "store what `box2mask run` found as predictions", PUSH_NOTES),
    ):
        action = actions.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=notes,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument("project", type=int, metavar="PROJECT", help="its number, as in its page's address")
        if name == "pull":
            action.add_argument(
                "--out", type=Path, required=True, metavar="DIR", help="a new folder, or an earlier pull's"
            )
        else:
            action.add_argument("results", type=Path, metavar="RESULTS", help="what `box2mask run` made of DIR/open")
        action.set_defaults(run=_run, action=name)


def _run(args: argparse.Namespace) -> int:
    from app.folders.journal import JournalError
    from app.label_studio import rounds
    from app.label_studio.project import Project, ProjectError
    from app.settings import Settings, SettingsError

    def say(line: str) -> None:
        print(f"box2mask: {line}", file=sys.stderr)

    try:
        settings = Settings.from_environment()
        project = Project(settings, args.project)
        try:
            if args.action == "push":
                pushed = rounds.push(project, args.results, say)
                already = f", {pushed.already} were there" if pushed.already else ""
                since = f", {pushed.labelled} tasks have been labelled since" if pushed.labelled else ""
                print(f"{pushed.stored} predictions stored in project {args.project}{already}{since}")
                return 0
            pulled = rounds.pull(project, settings, args.out, say)
        finally:
            project.close()
    except (SettingsError, ProjectError, JournalError, OSError) as error:
        return failed(error)
    where = f"{args.out / rounds.EXPORT}; {pulled.left} others: {args.out / rounds.OPEN}"
    print(f"{pulled.corrected} labelled photos: {where}")
    if pulled.failed:
        say(f"{pulled.failed} photos could not be had; the same command tries them again")
    return int(pulled.failed > 0)
