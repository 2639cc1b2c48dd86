"""Serves the application with uvicorn: takes the port, says what is served, stops gracefully."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from contextlib import ExitStack

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from app import logs
from app.loading import Choice
from app.main import create_app
from app.settings import Settings, SettingsError

log = logging.getLogger("box2mask")


def serve(settings: Settings) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Raises one of `loading.EXPLAINED` where the settings cannot be used. Where the models do not load, uvicorn logs
    the reason and ends the process with status 3, as AzureML's scoring server does when its init() fails.
    """
    logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings)
    listener = _listen(settings)
    _announce(settings, app.state.choice, listener.getsockname()[1])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and app.state.startup_error is not None:
                message["message"] = str(app.state.startup_error)  # for the log, in place of a traceback
            await send(message)

        await app(scope, receive, send_plainly)

    server = uvicorn.Server(
        # Its words go the way of all others; requests are logged by the application.
        uvicorn.Config(
            application,
            log_config=None,
            log_level=settings.log_level,
            access_log=False,
            lifespan="on",
            server_header=False,
        )
    )
    # When uvicorn has stopped gracefully it raises the signal again; to have been asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with ExitStack() as stack:
        if settings.metrics_port is not None:  # already while the models load
            port = stack.enter_context(app.state.metrics.served(settings.host, settings.metrics_port))
            log.info("metrics are on %s/metrics", _url(settings, port))
        server.run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    """The port, taken before anything is loaded, so that one in use is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Without the protocol's name asyncio would leave Nagle's algorithm on, and answers would wait 40 ms for a client
    # that waits for the rest of them before it acknowledges.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
    lines = [f"box2mask is loading its models; it will listen on {_url(settings, port)} (POST /score, docs at /docs)"]
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
    if settings.log_format == "json":
        for line in lines:
            log.info("%s", line.strip())
    else:
        print("\n".join(lines), file=sys.stderr, flush=True)


def _url(settings: Settings, port: int) -> str:
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
