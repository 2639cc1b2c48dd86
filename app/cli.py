"""The `box2mask` command. Each command imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

import argparse
import os
import sys

from app.commands import (
    data,
    detectors,
    evaluate,
    export,
    finetune,
    label_studio,
    run,
    serve,
    walkthrough,
    weights,
)

EXAMPLES = """\
examples:
  box2mask serve                        start the service with the best weights that are here
  box2mask walkthrough --data demo      train, serve, segment and measure, in one command
  box2mask run photos --out results     boxes and masks of a folder of images
  box2mask detectors                    which families of detectors are served
  box2mask weights list                 what there is, and what of it is on this machine
  box2mask weights pull yolof sam-huge  the full-size models
"""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 failed with a sentence on standard error,
    3 could not start serving, 130 stopped, 141 nobody reads its output any more.

    A command line that cannot be understood, and `--help`, end in argparse's SystemExit.
    """
    parser = build_parser()
    args, more = parser.parse_known_args(argv)
    if more and not getattr(args, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    args.more = more
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `box2mask detectors | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says the same at its end
        return 141
    except KeyboardInterrupt:
        print("box2mask: stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Every command: a subparser, and in `run` the function (args) -> exit status that carries it out."""
    parser = argparse.ArgumentParser(
        prog="box2mask",
        description="Serve MMDetection's YOLOF and Meta's SAM behind AzureML's scoring format.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (serve, run, finetune, evaluate, walkthrough, data, label_studio, export, weights, detectors):
        command.add(commands)
    return parser
