"""The edge: the service's own HTTP application as an ingress of Ray Serve's, with replicas in place of models."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from app.cluster.service.replicas import Replicas
from app.cluster.service.standing import process_name
from app.http import logs
from app.main import create_app
from app.settings import Settings


class Counted:
    """Middleware: knows when no request is being answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._inside = 0
        self._none = asyncio.Event()
        self._none.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self._inside += 1
        self._none.clear()
        try:
            await self.app(scope, receive, send)
        finally:
            self._inside -= 1
            if not self._inside:
                self._none.set()

    async def answered(self) -> None:
        """Return when there is none."""
        await self._none.wait()


@serve.ingress()
class Edge:
    """What Ray Serve makes an edge's replicas of."""

    def __init__(self, settings: Settings, engine: DeploymentHandle) -> None:
        logs.configure(settings.log_level, settings.log_format)
        self._application: FastAPI = create_app(settings, answering=Replicas(settings, engine))
        self._counted = Counted(self._application)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._counted

    async def figures(self) -> tuple[str, bytes]:
        """This process's name and its figures, as Prometheus has them."""
        return process_name(), self._application.state.metrics.text()[0]

    async def drain(self) -> None:
        """Take no more requests, and return when those that were taken are answered.

        Before the application is taken down: Ray Serve ends edges and replicas at the same time, and what an edge had
        not handed on by then would wait for a replica that never comes.
        """
        self._application.state.stopping = True
        await self._counted.answered()
