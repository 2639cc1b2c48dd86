"""Serves the application with uvicorn: takes the port, says what is served, stops gracefully."""

from __future__ import annotations

import logging
import socket
import sys

import uvicorn

from app.loading import Choice, choose
from app.main import create_app
from app.settings import Settings, SettingsError


def serve(settings: Settings) -> bool:
    """Answer requests until SIGTERM or SIGINT; returns whether the service ever started.

    Raises SettingsError where a setting cannot be used.
    """
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = _listen(settings)
    choice = choose(settings)
    _announce(settings, choice, listener.getsockname()[1])
    config = uvicorn.Config(create_app(settings), log_level=settings.log_level, lifespan="on", server_header=False)
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    return server.started


def _listen(settings: Settings) -> socket.socket:
    """The port, taken before anything is loaded, so that one in use is known at once."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; BOX2MASK_PORT takes another port"
        ) from error
    return listener


def _announce(settings: Settings, choice: Choice, port: int) -> None:
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    lines = [f"box2mask is loading its models; it will listen on http://{host}:{port} (POST /score, docs at /docs)"]
    for kind, chosen in (("detector", choice.detector), ("segmenter", choice.segmenter)):
        if chosen is None:
            lines.append(f"  {kind}: none")
        else:
            lines.append(f"  {kind}: {chosen.name} ({chosen.path}){' - demo weights' if chosen.demo else ''}")
    if choice.demo:
        lines.append(
            "  Demo weights are small and trained on drawn scenes. The full-size models, where there is a network:"
        )
        lines.append("    .venv/bin/box2mask weights pull yolof sam-huge")
        lines.append("  then start again; docs/weights.md has mirrors and offline machines.")
    print("\n".join(lines), file=sys.stderr, flush=True)
