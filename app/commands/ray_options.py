"""The options of `box2mask run` that say how it runs on a Ray cluster."""

from __future__ import annotations

import argparse

from app.commands.arguments import within

# Option -> its name in `args`; each has a meaning with --ray alone, and the last three with --detector-actors alone.
OPTIONS = (
    "actors",
    "actor_gpus",
    "actor_cpus",
    "separate_io",
    "detector_actors",
    "detector_gpus",
    "detector_cpus",
)


def add_ray_options(command: argparse.ArgumentParser) -> None:
    """--ray ADDRESS, --actors N and more."""
    gpus, cpus, many = within(float, 0, 64), within(float, 0, 1024), within(int, 1, 10_000)
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="work on a Ray cluster: auto (the one that this machine is a node of), HOST:PORT of its head, or local "
        "(one of this machine alone)",
    )
    command.add_argument(
        "--actors",
        type=many,
        metavar="N",
        help="of --ray: processes with the models (default: one for each GPU, or without any for each CPU)",
    )
    command.add_argument(
        "--actor-gpus", type=gpus, metavar="X", help="of --ray: GPUs of each such process; 0.5: two share one"
    )
    command.add_argument(
        "--actor-cpus", type=cpus, metavar="X", help="of --ray: CPUs of each such process (default: 1)"
    )
    command.add_argument(
        "--separate-io",
        action="store_true",
        default=None,
        help="of --ray: photos are read, and results written, by processes of their own also where those with the "
        "models have no GPU; with GPUs they always are",
    )
    command.add_argument(
        "--detector-actors",
        type=many,
        metavar="N",
        help="of --ray: processes with the detector alone; those of --actors then have the segmenter alone",
    )
    command.add_argument("--detector-gpus", type=gpus, metavar="X", help="of --detector-actors: GPUs of each")
    command.add_argument(
        "--detector-cpus", type=cpus, metavar="X", help="of --detector-actors: CPUs of each (default: 1)"
    )


def wrong_ray_options(args: argparse.Namespace) -> str | None:
    """What is wrong with them, in a sentence."""
    given = [name for name in OPTIONS if getattr(args, name) is not None]
    if args.ray is None:
        return f"--{given[0].replace('_', '-')}: expected with --ray" if given else None
    if args.ray.startswith("ray://"):
        return (
            f"--ray {args.ray}: Ray's client does not carry a folder's work: start the command on a machine of the "
            "cluster, with --ray auto or by `ray job submit`"
        )
    if args.url is not None:
        return "--url: the processes of --ray have models of their own; expected one of the two"
    if alone := [name for name in given if name.startswith("detector_") and args.detector_actors is None]:
        return f"--{alone[0].replace('_', '-')}: expected with --detector-actors"
    if args.detector_actors is not None:
        for option, value in (("--prompts", args.prompts), ("--everything", args.everything or None)):
            if value is not None:
                return f"--detector-actors: with {option} there is no detector; expected one of the two"
        if args.masks == "detector":
            return "--detector-actors: with --masks detector there is no segmenter; expected one of the two"
    return None
