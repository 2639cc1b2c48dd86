"""A Ray cluster for a folder's images: found or started, and what of it the processes with the models get.

ClusterError      no such cluster, or what is asked of it cannot be had; says what to do
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

LOCAL = "local"
# Reading images and writing results mostly wait. They take of each CPU what its process with models leaves, so that
# they find room wherever there is such a process, also when other machines have gone. The two are unlike, as Ray
# would run two stages that want the same in one process, one after the other.
READING_CPUS, WRITING_CPUS = 0.03, 0.07
_OF_A_CPU = 1 - READING_CPUS - WRITING_CPUS
# Objects of a cluster that is started here: what is on its way from one process to another. Beyond it they go to disk.
_LOCAL_STORE_BYTES = 2**30
_ANSWERS_WITHIN_S = 5.0
# Of a cluster that is started here and ends with the run: nobody asks it for the statistics that its processes make.
_OF_A_SHORT_CLUSTER = {"RAY_enable_metrics_collection": "0", "RAY_task_events_report_interval_ms": "0"}


class ClusterError(Exception):
    """No image can be answered on this cluster: says why in a sentence."""


@dataclass(frozen=True)
class Pool:
    """So many processes with models, and what each has of a machine; None: what suits the cluster."""

    actors: int | None = None
    gpus: float | None = None
    cpus: float | None = None


@dataclass(frozen=True)
class Pools:
    """models: with both models, or with the segmenter alone where there is one for the detector.

    at_once: how many blocks are read, and how many written, at once. separate_io: whether other processes read and
    write also for pools without GPUs, which else do that themselves. here: whether the cluster is this machine alone.
    """

    models: Pool
    detector: Pool | None = None
    at_once: int = 2
    separate_io: bool = False
    here: bool = False

    @property
    def every(self) -> tuple[Pool, ...]:
        return (self.models,) if self.detector is None else (self.models, self.detector)

    def suited(self, gpus: float, cpus: float) -> Pools:
        """The same with numbers for all, for a cluster that has so much for them.

        GPUs are shared by the pools, one of each on every card; without any each actor has a CPU. Raises ClusterError
        where the cluster has too little.
        """
        every = self.every
        sized = []
        for pool in every:
            share = pool.gpus if pool.gpus is not None else float(gpus >= 1) / len(every)
            processors = 1.0 if pool.cpus is None else pool.cpus
            each = max(share, 1 / len(every)) if share else max(processors, 0.1)
            fitting = gpus / share if share and len(every) == 1 else (gpus if share else cpus) / each / len(every)
            sized.append(Pool(pool.actors or max(1, int(fitting + 1e-6)), share, processors))
        for what, has, wanted in (
            ("gpus", gpus, sum((pool.actors or 0) * (pool.gpus or 0) for pool in sized)),
            ("cpus", cpus, sum((pool.actors or 0) * (pool.cpus or 0) for pool in sized)),
        ):
            if wanted > has + 1e-6:
                raise ClusterError(
                    f"--actors: they want {wanted:g} {what.upper()[:-1]}s, and the cluster has {has:g} for them: give "
                    f"a smaller number, or less to each with --actor-{what}"
                )
        sized = [replace(pool, cpus=(pool.cpus or 0) * _OF_A_CPU) for pool in sized]
        models, detector = sized[0], sized[1] if len(sized) > 1 else None
        return replace(self, models=models, detector=detector, at_once=max(2, int(cpus)))

    @property
    def writes(self) -> bool:
        """Whether the segmenter's processes write results: a GPU is not to wait for that, a CPU does either."""
        return not (self.models.gpus or self.separate_io)

    @property
    def reads(self) -> bool:
        """Whether they read photos too: where the detector is theirs, as the photos go on from there otherwise."""
        return self.writes and self.detector is None


def check_reached(address: str) -> None:
    """Raises ClusterError for what is no address, and where nothing answers: Ray would go on trying for minutes."""
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"--ray: expected local, auto or host:port, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"--ray {address}: there is no such cluster: {error}") from error


@contextmanager
def connected(address: str, pools: Pools) -> Iterator[Pools]:
    """Join a cluster, or start one of this machine, and leave or end it afterwards; gives the pools that suit it.

    address: `local`, `auto` or a head's HOST:PORT. Raises ClusterError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when a cluster is started: nothing is told of its use
    try:
        import ray
    except ImportError as error:
        raise ClusterError("--ray: needs Ray: pip install 'box2mask[ray]'") from error
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        options |= _of_this_machine(pools)
    check_reached(address)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ClusterError(f"--ray {address}: there is no such cluster: {_first_line(error)}") from error
    try:
        resources = ray.cluster_resources()
        suited = pools.suited(resources.get("GPU", 0.0), resources.get("CPU", 0.0))
        yield replace(suited, here=address == LOCAL)
    finally:
        ray.shutdown()


def _of_this_machine(pools: Pools) -> dict[str, Any]:
    """Ray counts CPUs, and never looks whether they are there."""
    for name, value in _OF_A_SHORT_CLUSTER.items():
        os.environ.setdefault(name, value)
    cores = os.cpu_count() or 1
    given = [(pool.actors or 0) * (1.0 if pool.cpus is None else pool.cpus) for pool in pools.every]
    return {
        "num_cpus": max(cores, math.ceil(sum(given))),
        "include_dashboard": False,
        "object_store_memory": _LOCAL_STORE_BYTES,
    }


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
