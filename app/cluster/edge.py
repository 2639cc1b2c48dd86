"""The edge: the service's own HTTP application as an ingress of Ray Serve's, with replicas in place of models."""

from __future__ import annotations

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from app.cluster.replicas import Replicas
from app.http import logs
from app.main import create_app
from app.settings import Settings


@serve.ingress()
class Edge:
    """What Ray Serve makes an edge's replicas of."""

    def __init__(self, settings: Settings, engine: DeploymentHandle) -> None:
        logs.configure(settings.log_level, settings.log_format)
        self._app = create_app(settings, answering=Replicas(settings, engine))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app
