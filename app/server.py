"""Serves the application with uvicorn: takes the port, says what is served, stops gracefully."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from app.engine.loading import Choice
from app.http import logs
from app.http.connections import Connection, House, most_connections
from app.main import create_app
from app.settings import Settings, SettingsError

log = logging.getLogger("box2mask")

# The process's status where a device has stopped computing, of which only a restart helps.
DEVICE_FAILED = 4
# Seconds that what else is in work is then given, and in which the process has ended even where it cannot be stopped.
_LAST_WORK_S, _END_S = 3, 10
# Beyond the time that a request may take: for its answer to be sent.
_FAREWELL_S = 10


def serve(settings: Settings) -> int:
    """Answer requests until SIGTERM or SIGINT; what has been begun by then is still answered.

    Returns the status to end with: 0, or DEVICE_FAILED where a device has stopped computing and whoever waited has been
    told. Raises one of `loading.EXPLAINED` where the settings cannot be used. Where the models do not load, uvicorn
    logs the reason and raises SystemExit with status 3, as AzureML's scoring server does when its init() fails.
    """
    logs.configure(settings.log_level, settings.log_format)
    failed = threading.Event()

    def on_failure() -> None:  # in the thread that has failed; whatever state the others are in
        failed.set()
        log.critical("a device has stopped computing: the process ends, to be started anew")
        last_resort = threading.Timer(_END_S, os._exit, [DEVICE_FAILED])
        last_resort.daemon = True
        last_resort.start()
        server.config.timeout_graceful_shutdown = _LAST_WORK_S
        server.should_exit = True

    app = create_app(settings, on_failure)
    listener = listen(settings)
    announce(settings, app.state.serving.choice, listener.getsockname()[1])

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and app.state.startup_error is not None:
                message["message"] = str(app.state.startup_error)  # for the log, in place of a traceback
            await send(message)

        await app(scope, receive, send_plainly)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.stopping = True
            await super().shutdown(sockets)

    class ItsConnection(Connection):
        house = House(
            most=most_connections(settings.max_connections),
            most_unread=int(settings.max_bodies_mb * 2**20),
            seconds=settings.client_timeout_s,
        )

    server = Server(
        # Its words go the way of all others; requests are logged by the application.
        uvicorn.Config(
            application,
            # Whatever else is installed: uvloop comes with some extras, and nothing was measured with it.
            loop="asyncio",
            http=ItsConnection,
            log_config=None,
            ws="none",
            log_level=settings.log_level,
            access_log=False,
            lifespan="on",
            server_header=False,
            # `Connection` has a clock of its own. uvicorn's also runs while an answer is on its way, and what a client
            # sends to a connection that was closed then costs it the rest of the answer.
            timeout_keep_alive=10**9,
            timeout_graceful_shutdown=math.ceil(settings.request_timeout_s + _FAREWELL_S),
        )
    )
    # When uvicorn has stopped gracefully it raises the signal again; to have been asked to stop is no failure.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda number, frame: _reload(app))
    with ExitStack() as stack:
        if settings.metrics_port is not None:  # already while the models load
            port = stack.enter_context(app.state.metrics.served(settings.host, settings.metrics_port))
            log.info("metrics are on %s/metrics", _url(settings, port))
        server.run(sockets=[listener])
    return DEVICE_FAILED if failed.is_set() else 0


def _reload(app: FastAPI) -> None:
    """What SIGHUP does: in the main thread, between any two instructions of the event loop's."""
    if app.state.reload_soon is None:
        log.warning("SIGHUP: the models are being loaded already, or ended")
    else:
        app.state.reload_soon()


def listen(settings: Settings) -> socket.socket:
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


def announce(settings: Settings, choice: Choice, port: int) -> None:
    """Say where the service will be, and which models it is loading."""
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
        lines.append(f"    {_box2mask()} weights pull yolof sam-huge")
        lines.append("  then start again; `weights pull --help` has mirrors and offline machines.")
    if settings.log_format == "json":
        for line in lines:
            log.info("%s", line.strip())
    else:
        print("\n".join(lines), file=sys.stderr, flush=True)


def _box2mask() -> str:
    """The command as it can be typed where this one was."""
    typed = Path(sys.argv[0])
    if typed.name != "box2mask":
        return "box2mask"
    found = shutil.which("box2mask")
    return "box2mask" if found and typed.exists() and typed.samefile(found) else sys.argv[0]


def _url(settings: Settings, port: int) -> str:
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
