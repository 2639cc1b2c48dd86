"""The service as an application of Ray Serve's: the edge, the replicas, and how many there are of each."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, HTTPOptions, ProxyLocation, RequestRouterConfig
from ray.serve.deployment import Application
from ray.serve.schema import LoggingConfig

from app.cluster.service.edge import Edge
from app.cluster.service.proxy import ANY_LENGTH
from app.cluster.service.replica import Replica
from app.cluster.service.replicas import EDGE
from app.cluster.service.router import ByPhoto
from app.serving.own import THEIRS, Source
from app.settings import Settings, SettingsError

NAME = "box2mask"
# Ray Serve's own words; each request has its line in the application's log.
SERVES_LOG = LoggingConfig(log_level="WARNING", enable_access_log=False)
# Seconds beyond the time that a request may take, for its answer to be sent.
_FAREWELL_S = 10
# Of the processes of edges and replicas. Ray Serve has two threads with an event loop each, and hands each request from
# one to the other; here one does all of it, as what takes long is done beside it anyway.
ENVIRONMENT = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    **ANY_LENGTH,
}
# Bytes up to which what one process has of another goes straight there, without being put into the memory that all
# share, and found there by way of the node's own process; Ray's default is 100 kB. A part of a body is 1 MB.
_STRAIGHT = 2**21
# Requests that the edge answers without letting them in: refusals, probes, files. They wait for none.
_BESIDES = 4096


@dataclass(frozen=True)
class Size:
    """How many replicas there are, and what Ray reserves for each of them.

    idle_s: seconds of little work, after which one is taken away.
    """

    fewest: int
    most: int
    gpus: float
    cpus: float
    idle_s: float = 600

    @classmethod
    def of(cls, settings: Settings, cluster: dict[str, float]) -> Size:
        """As the settings have it. cluster: the resources that there are, by Ray's names."""
        there = cluster.get("GPU", 0)
        gpus = settings.ray_replica_gpus
        if gpus is None:
            gpus = 1.0 if there else 0.0
        most = settings.ray_max_replicas or (int(there / gpus) if gpus else 0)
        return cls(settings.ray_min_replicas, max(most, settings.ray_min_replicas), gpus, settings.ray_replica_cpus)


def application(settings: Settings, size: Size, source: Source = THEIRS) -> Application:
    """What `serve.run` takes. source: where replicas have their models from; it is pickled."""
    alike: dict[str, Any] = {
        "max_queued_requests": -1,
        "graceful_shutdown_timeout_s": _farewell(settings),
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": 2,
        "max_constructor_retry_count": 3,
        "logging_config": SERVES_LOG,
    }
    actor = {"runtime_env": {"env_vars": ENVIRONMENT}}
    # What may be in work is decided by our own admission, whose answer says when to come again; Serve's queues, whose
    # answer does not, are never full.
    most = settings.ray_edges * settings.max_requests
    engine: Any = serve.deployment(
        name="replica",
        ray_actor_options={"num_cpus": size.cpus, "num_gpus": size.gpus, **actor},
        autoscaling_config=AutoscalingConfig(
            min_replicas=size.fewest,
            max_replicas=size.most,
            target_ongoing_requests=settings.ray_replica_requests,
            downscale_delay_s=size.idle_s,
        ),
        max_ongoing_requests=most + _BESIDES,
        request_router_config=RequestRouterConfig(request_router_class=ByPhoto),
        **alike,
    )(Replica)
    edge: Any = serve.deployment(
        name=EDGE,
        ray_actor_options={"num_cpus": 0, **actor},
        num_replicas=settings.ray_edges,
        max_ongoing_requests=settings.max_requests + _BESIDES,
        **alike,
    )(Edge)
    bound: Application = edge.bind(settings, engine.bind(settings, source))
    return bound


def build(args: dict[str, str]) -> Application:
    """What `import_path` names in docker/ray/serve.yaml. The settings are the environment's, as everywhere.

    args: none. Raises SettingsError.
    """
    if args:
        raise SettingsError(f"args: expected none, as settings are environment variables, got {', '.join(args)}")
    settings = Settings.from_environment()
    return application(settings, Size.of(settings, ray.cluster_resources()))


def start_cluster(cpus: int, *, log_to_driver: bool) -> None:
    """Start a cluster of this machine alone, for as long as this process lives. cpus: for Ray's books."""
    ray.init(
        "local",
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=log_to_driver,
        configure_logging=False,
        _system_config={"max_direct_call_object_size": _STRAIGHT},
    )


def start_proxies(settings: Settings, port: int, location: ProxyLocation) -> None:
    """Have Ray Serve take requests on this port; where it does so already, it goes on as it is."""
    serve.start(
        proxy_location=location,
        http_options=HTTPOptions(
            host=settings.host, port=port, keep_alive_timeout_s=math.ceil(settings.client_timeout_s)
        ),
        logging_config=SERVES_LOG,
    )


def deploy(settings: Settings, size: Size, source: Source = THEIRS) -> None:
    """Return when the service answers. Raises RuntimeError where it does not come to that."""
    serve.run(application(settings, size, source), name=NAME, route_prefix="/")


def drain(settings: Settings) -> None:
    """Have the edges take no more requests, and return when all that they have taken are answered."""

    async def ask() -> None:  # with an event loop: a node's environment has Ray Serve take the one that there is
        await serve.get_deployment_handle(EDGE, NAME).broadcast("drain").results_async(timeout_s=_farewell(settings))

    asyncio.run(ask())


def _farewell(settings: Settings) -> float:
    """Seconds in which what is in work is answered before it is dropped."""
    return settings.request_timeout_s + _FAREWELL_S
