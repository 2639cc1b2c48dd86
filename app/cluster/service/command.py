"""`box2mask serve --ray ADDRESS`: deploys the service on a cluster, or on one that it starts, and takes it down."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading

import ray
from ray import serve
from ray.serve.config import ProxyLocation
from ray.serve.context import _get_global_client

from app.cluster.folders.connecting import LOCAL, ClusterError, check_reached
from app.cluster.service import proxy
from app.cluster.service.deployment import NAME, Size, deploy, drain, start_cluster, start_proxies
from app.engine import loading
from app.http import logs
from app.server import announce, listen
from app.settings import Settings, SettingsError

log = logging.getLogger("box2mask")

STARTUP_FAILED = 3


def serve_on(address: str, settings: Settings) -> int:
    """Answer requests until SIGTERM or SIGINT; what has been begun by then is still answered.

    address: `local` for a cluster of this machine alone, which ends with this process; `auto` for the one that runs
    here; or host:port of one. Returns the status to end with. Raises one of `loading.EXPLAINED` where the settings
    cannot be used, or no cluster is there.
    """
    logs.configure(settings.log_level, settings.log_format)
    if settings.metrics_port is not None:
        raise SettingsError("BOX2MASK_METRICS_PORT: expected none with --ray: /metrics has what all processes count")
    choice = loading.choose(settings)
    os.environ.update(proxy.ENVIRONMENT)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when a cluster is started: nothing is told of its use
    stop = threading.Event()
    running = None
    if address == LOCAL:
        port = _free_port(settings)
        announce(settings, choice, port)
        _start(settings)
    else:
        _join(address)
        running = _get_global_client(raise_if_no_controller_running=False)
        port = _free_port(settings) if running is None else _its_port(settings, running.http_config.port)
        announce(settings, choice, port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stop.set())
    if hasattr(signal, "SIGHUP"):
        refusal = "SIGHUP: a service on a cluster loads no models while it runs: deploy it anew"
        signal.signal(signal.SIGHUP, lambda number, frame: log.warning(refusal))
    try:
        start_proxies(settings, port, ProxyLocation.HeadOnly if address == LOCAL else ProxyLocation.EveryNode)
        try:
            deploy(settings, Size.of(settings, ray.cluster_resources()))
        except RuntimeError:
            log.critical("the service has not started: %s", _reason())
            return STARTUP_FAILED
        log.info("ready")
        stop.wait()
        log.info("stopping: what has been begun is still answered")
        drain(settings)
    finally:
        serve.delete(NAME)
        if running is None:
            serve.shutdown()
        ray.shutdown()
    return 0


def _free_port(settings: Settings) -> int:
    """That of the settings, or any; one that is taken is known at once. Raises SettingsError."""
    with listen(settings) as listener:
        return int(listener.getsockname()[1])


def _its_port(settings: Settings, port: int) -> int:
    """The port on which Ray Serve takes requests already. Raises SettingsError where the settings have another."""
    if settings.port not in (0, port):
        raise SettingsError(
            f"BOX2MASK_PORT: expected {port} or 0, got {settings.port}: Ray Serve runs on this cluster already"
        )
    return port


def _start(settings: Settings) -> None:
    """Start a cluster of this machine alone, for as long as this process lives."""
    # Ray counts processors for its books alone: all replicas have to find a place.
    wanted = max(settings.ray_min_replicas, settings.ray_max_replicas) * settings.ray_replica_cpus
    cpus = max(math.ceil(wanted), os.cpu_count() or 1)
    start_cluster(cpus, log_to_driver=True)


def _join(address: str) -> None:
    """Become part of a cluster. Raises SettingsError where there is none."""
    try:
        check_reached(address)
        ray.init(address, log_to_driver=False, configure_logging=False)
    except ClusterError as error:
        raise SettingsError(str(error)) from error
    except ConnectionError as error:
        raise SettingsError(f"--ray {address}: there is no such cluster: {error}") from error


def _reason() -> str:
    """What Ray Serve says of the deployments that have not started."""
    found = serve.status().applications.get(NAME)
    if found is None:
        return "Ray Serve does not say why"
    told = [one.message.strip() for one in found.deployments.values() if one.message.strip()]
    return "; ".join(told) or found.message
