"""`box2mask weights`: list, pull and verify model weights."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.commands.arguments import failed

EXAMPLES = """\
examples:
  box2mask weights list
  box2mask weights pull yolof sam-base
  box2mask weights pull sam-huge --from https://mirror.example/weights
  box2mask weights pull yolof --from /media/usb/weights
  box2mask weights verify
"""

PULL_NOTES = """\
An interrupted pull goes on where it stopped when the command is run again. Every file is checked against its
published sha256 before it gets its name; a corrupt one is deleted.

Where no sha256 is published, that counts which Hugging Face's server states, and the line of the file says so.
SAM 3 has a licence of its own: accept it on its page, and set HF_TOKEN to a token of your account.

A mirror holds NAME/FILE for every model, the layout of the folder of pulled weights itself; a directory given
with --from may also hold the files of one model directly. docs/weights.md has the details.

examples:
  box2mask weights pull yolof sam-huge
  box2mask weights pull sam-huge --from https://mirror.example/weights
  box2mask weights pull sam-huge --from ~/Downloads
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    weights = commands.add_parser(
        "weights",
        help="list, pull and verify model weights",
        description="List, pull and verify the model weights that box2mask knows by name.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = weights.add_subparsers(title="actions", metavar="ACTION", required=True)

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder of the pulled weights (default: BOX2MASK_WEIGHTS_DIR, or where `box2mask weights list` says)",
    )

    action = actions.add_parser(
        "list",
        parents=[where],
        help="what there is, and what of it is on this machine",
        description="One line per model: its name, whether it is here (absent, partial: a pull was interrupted, "
        "present, verified: and its hashes were checked), its size, and what it is; then where weights lie.",
    )
    action.set_defaults(run=_weights, action=_weights_list)

    action = actions.add_parser(
        "pull",
        parents=[where],
        help="download models, or copy them from a mirror",
        description="Bring models to this machine.",
        epilog=PULL_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument("names", nargs="+", metavar="NAME", help="a model that `box2mask weights list` names")
    action.add_argument(
        "--from", dest="source", metavar="URL_OR_DIR", help="a mirror or a directory, in place of the publishers"
    )
    action.set_defaults(run=_weights, action=_weights_pull)

    action = actions.add_parser(
        "verify",
        parents=[where],
        help="hash the files again and compare",
        description="Hash the files of the named models (default: of all that are here) and compare with the "
        "manifest and with what was found when they were pulled. Exit status 1 when any file differs or is missing.",
    )
    action.add_argument("names", nargs="*", metavar="NAME", help="a model that `box2mask weights list` names")
    action.set_defaults(run=_weights, action=_weights_verify)


def _weights(args: argparse.Namespace) -> int:
    from app.settings import Settings, SettingsError
    from models import weights

    try:
        settings = Settings.from_environment()
        args.places, args.token = weights.find_places(args.root or settings.weights_dir), settings.hf_token
        return args.action(args)
    except (SettingsError, weights.WeightsError) as error:
        return failed(error)


def _weights_list(args: argparse.Namespace) -> int:
    from models import weights

    rows = [("NAME", "STATE", "SIZE", "WHAT")]
    for name in weights.load_manifest(args.places):
        status = weights.status(name, args.places)
        rows.append((name, status.state, _human_size(status.size), status.weights.what))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, state, size, what in rows:
        print(f"{name:<{widths[0]}}  {state:<{widths[1]}}  {size:>{widths[2]}}  {what}")
    print()
    if args.places.shipped == args.places.pulled:
        print(f"weights lie in {args.places.pulled}")
    else:
        print(f"pulled weights lie in {args.places.pulled}")
        print(f"demo weights lie in {args.places.shipped / 'demo'}")
    return 0


def _weights_pull(args: argparse.Namespace) -> int:
    from models import weights

    known = weights.load_manifest(args.places)
    for name in args.names:  # a misspelt last name is not found out after gigabytes of the first
        weights.status(name, args.places, manifest=known)
    for name in args.names:
        folder = weights.pull(
            name,
            args.places,
            args.source,
            token=args.token,
            manifest=known,
            report=lambda line: print(line, flush=True),
        )
        print(f"{name}: ready in {folder}")
    return 0


def _weights_verify(args: argparse.Namespace) -> int:
    from models import weights

    here = (name for name in weights.load_manifest(args.places) if weights.status(name, args.places).state != "absent")
    names = args.names or list(here)
    wrong = False
    for name in names:
        for check in weights.verify(name, args.places):
            print(f"{name}: {check.path.name}: {check.problem or 'ok'}")
            wrong = wrong or check.problem is not None
    if not names:
        print(f"there are no weights in {args.places.pulled} yet; `box2mask weights pull NAME` brings them")
    return int(wrong)


def _human_size(size: int | None) -> str:
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"
