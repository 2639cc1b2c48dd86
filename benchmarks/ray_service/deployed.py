"""A service with models that only take time, deployed on a Ray cluster by a process of its own, which is told to scale.

    python -m benchmarks.ray_service.deployed ADDRESS PORT '{"fewest": 1, "most": 1, ...}'

It writes `ready` when the service answers, and again after each line that it reads: `scale FEWEST MOST IDLE_S`,
which may have a click's milliseconds at its end, or `stop`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import ProxyLocation

from app.cluster.service.deployment import NAME, Size, deploy, drain, start_cluster, start_proxies
from app.settings import Settings
from benchmarks.sleeping_models import Sleeping


def main(address: str, port: int, wanted: dict[str, Any]) -> None:
    """Deploy, and do as told until `stop`."""
    models = Sleeping(fails_once=_path(wanted.get("fails_once")))
    settings = Settings(host="127.0.0.1", port=port, **wanted.get("settings", {}))

    def size(fewest: int, most: int, idle_s: float = 600) -> Size:
        return Size(fewest, most, 0.0, wanted.get("cpus", 0.01), idle_s)

    if address == "local":
        start_cluster(64, log_to_driver=False)  # as many processors as its books need
    else:
        ray.init(address, log_to_driver=False, configure_logging=False)
    start_proxies(settings, port, ProxyLocation(wanted.get("proxies", "HeadOnly")))
    deploy(settings, size(wanted["fewest"], wanted["most"]), models.source())
    _say("ready")
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "stop":
            drain(settings)
            serve.delete(NAME)
            break
        click_s = int(numbers.pop()) / 1000 if len(numbers) > 3 else models.decode_s
        deploy(settings, size(*map(int, numbers)), replace(models, decode_s=click_s).source())
        _say("ready")
    _say("stopped")


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _say(word: str) -> None:
    print(word, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
