"""Run by the Python with AzureML's SDK, whose pins are not ours: reads the YAML files, runs deploy.py on a stand-in for
Azure, and writes as JSON what came of it. Arguments: the folder of the files, and one with files that are at fault."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from azure.ai.ml import (
    load_batch_deployment,
    load_batch_endpoint,
    load_environment,
    load_model,
    load_online_deployment,
    load_online_endpoint,
)
from azure.core.exceptions import ResourceNotFoundError


def loader(name: str) -> Any:
    kind = {"model": load_model, "environment": load_environment, "environment-scripts": load_environment}
    batch = name.startswith("batch-")
    if "endpoint" in name:
        return load_batch_endpoint if batch else load_online_endpoint
    if "deployment" in name:
        return load_batch_deployment if batch else load_online_deployment
    return kind[Path(name).stem]


class Done:
    def __init__(self, value: Any) -> None:
        self.value = value

    def result(self) -> Any:
        return self.value


class Things:
    """One kind of thing in Azure: keeps what is made, and notes it."""

    def __init__(self, kind: str, events: list[Any], there: bool) -> None:
        self.kind, self.events, self.there, self.made = kind, events, there, {}

    def get(self, name: str, version: str | None = None) -> Any:
        if self.there and name not in self.made:
            self.made[name] = type("Endpoint", (), {"name": name, "traffic": {"old": 100}})()
        if name not in self.made:
            raise ResourceNotFoundError(name)
        return self.made[name]

    def create_or_update(self, entity: Any) -> Any:
        traffic, defaults = getattr(entity, "traffic", None), getattr(entity, "defaults", None)
        content = entity._to_dict() if hasattr(entity, "_to_dict") else {"name": entity.name}
        if traffic:
            content["traffic"] = traffic
        if isinstance(defaults, Defaults):
            content["default"] = defaults.deployment_name
        self.events.append(["did", self.kind, content])
        if self.kind == "batch_endpoints" and not isinstance(defaults, Defaults):
            entity = type("Endpoint", (), {"name": entity.name, "defaults": Defaults()})()  # as Azure would give it
        self.made[entity.name] = entity
        return entity

    def begin_create_or_update(self, entity: Any) -> Done:
        return Done(self.create_or_update(entity))


class Defaults:
    deployment_name = None


class Azure:
    KINDS = (
        "models",
        "environments",
        "online_endpoints",
        "online_deployments",
        "batch_endpoints",
        "batch_deployments",
    )

    def __init__(self, events: list[Any], there: bool) -> None:
        for kind in self.KINDS:
            setattr(self, kind, Things(kind, events, there))


class Said:
    """Standard output, line by line among the events."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events

    def write(self, text: str) -> int:
        if text.strip():
            self.events.append(["said", text])
        return len(text)

    def flush(self) -> None:
        pass


def main(folder: Path, faulty: Path) -> dict[str, Any]:
    files = {path.name: loader(path.name)(path)._to_dict() for path in sorted(folder.glob("*.yml"))}
    faults = {}
    for path in sorted(faulty.glob("*.yml")):
        try:
            loader(path.name)(path)
            faults[path.name] = None
        except Exception as error:
            faults[path.name] = str(error)
    sys.path.insert(0, str(folder))
    import deploy

    account = ["--subscription", "s", "--resource-group", "g", "--workspace", "w"]
    image = ["--registry", "reg", "--tag", "7"]
    runs: dict[str, Any] = {}
    for name, arguments, there in (
        *((way, [way, *image], False) for way in deploy.WAYS),
        ("dry", ["gpu", *image, "--dry-run"], False),
        ("again", ["gpu", *image, "--deployment", "green", "--serve", "segmenter"], True),
        ("traffic", ["traffic", "gpu=90", "green=10"], True),
        ("too much traffic", ["traffic", "gpu=90", "green=20"], True),
        ("no registry", ["gpu"], False),
    ):
        events: list[Any] = []
        wrong = ""
        try:
            with contextlib.redirect_stdout(Said(events)), contextlib.redirect_stderr(Said(events)):
                # In a dry run there is no Azure.
                deploy.main([*arguments, *account], None if name == "dry" else Azure(events, there))
        except SystemExit as error:
            wrong = str(error)
        runs[name] = {"events": events, "ended": wrong}
    return {"files": files, "faults": faults, "runs": runs}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the SDK's own
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        answer = main(Path(sys.argv[1]), Path(sys.argv[2]))
    json.dump(answer, out, default=str)
