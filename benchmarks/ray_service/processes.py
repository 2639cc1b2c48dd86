"""Whose CPU time a service on a cluster of this machine takes: the client's, the proxy's, the edge's, and so on."""

from __future__ import annotations

from collections.abc import Mapping

import psutil  # type: ignore[import-untyped]

CLIENT, PROXY, EDGE, REPLICAS, RAY = "client", "proxy", "edges", "replicas", "Ray's own"
KINDS = (CLIENT, PROXY, EDGE, REPLICAS, RAY)
# What the titles of processes begin with that Ray Serve starts.
_TITLES = {
    "ray::ProxyActor": PROXY,
    "ray::ServeReplica:box2mask:edge": EDGE,
    "ray::ServeReplica:box2mask:replica": REPLICAS,
}


class CpuTimes:
    """Of this process, which is the client, and of all that it has started, since this was made."""

    def __init__(self) -> None:
        self._began = _seconds()

    def seconds(self) -> dict[str, float]:
        """By KINDS. A process that has ended meanwhile counts for nothing."""
        spent = dict.fromkeys(KINDS, 0.0)
        for (number, kind), seconds in _seconds().items():
            spent[kind] += seconds - self._began.get((number, kind), 0.0)
        return spent


def _seconds() -> Mapping[tuple[int, str], float]:
    """By process and its kind, in user and system mode."""
    this = psutil.Process()
    found = {(this.pid, CLIENT): _of(this)}
    for process in this.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            kind = next((kind for begins, kind in _TITLES.items() if title.startswith(begins)), RAY)
            found[process.pid, kind] = _of(process)
        except psutil.NoSuchProcess:
            continue
    return found


def _of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
