"""`box2mask serve`: start the service."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.settings import Settings

STARTUP_FAILED = 3  # as AzureML's scoring server ends when its init() fails

EXAMPLES = """\
examples:
  box2mask serve
  BOX2MASK_PORT=8080 BOX2MASK_SEGMENTER=sam-base box2mask serve
  BOX2MASK_DETECTOR=/models/my-detector BOX2MASK_DEVICE=cuda:1 box2mask serve
  BOX2MASK_RAY_MIN_REPLICAS=2 box2mask serve --ray local
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "serve",
        help="start the service",
        description="Load the models and answer requests until stopped. Every setting is an environment variable.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="serve on a Ray cluster: local starts one on this machine, auto finds the one that runs here, and "
        "host:port is any other's; see docs/scale.md",
    )
    command.set_defaults(run=_serve)
    # Only where that help is asked for: other commands need not wait for what reads the settings.
    help_without = command.format_help
    command.format_help = lambda: f"{help_without()}\n{_settings()}"  # type: ignore[method-assign]


def _settings() -> str:
    """Each variable with its default and what it means."""
    from app.settings import Settings, environment_name

    lines = ["settings, with their defaults:"]
    for field, info in Settings.model_fields.items():
        default = "" if info.default is None else f"={str(info.default).lower()}"
        lines.append(f"  {environment_name(field)}{default}")
        meaning = (info.description or "").replace("`", "")
        lines += textwrap.wrap(meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def _serve(args: argparse.Namespace) -> int:
    from app.settings import Settings, SettingsError

    try:
        settings = Settings.from_environment()
    except SettingsError as error:  # told before the seconds that importing the models' libraries takes
        return _cannot_start(error)

    from app.engine.loading import EXPLAINED

    try:
        status = _serve_here_or_on(args.ray, settings)
    except EXPLAINED as error:
        return _cannot_start(error)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except Exception:  # the event loop itself; nothing can be answered any more
        logging.getLogger("box2mask").critical("the service has failed", exc_info=True)
        status = 1
    # To take torch and the other modules apart, as Python does at its end, takes seconds, in which nobody is served and
    # whoever started the process only waits. All that is to be closed has been.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve_here_or_on(address: str | None, settings: Settings) -> int:
    """Serve to the end, with the status to end with. address: a Ray cluster's; None for this process alone."""
    if address is None:
        from app.server import serve

        return serve(settings)
    from app.settings import SettingsError

    try:
        import ray.serve  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"--ray needs Ray, and {error.name} is not installed: pip install 'box2mask[ray]'"
        ) from error
    from app.cluster.service.command import serve_on

    return serve_on(address, settings)


def _cannot_start(reason: Exception) -> int:
    print(f"box2mask: {reason}", file=sys.stderr)
    return STARTUP_FAILED
