"""The files of docker/ray are what Ray takes, and say the same of the service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import ray.serve.schema
import yaml
from ray._common.utils import import_attr
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

from app.settings import Settings, environment_name

REPOSITORY = Path(__file__).parents[3]
FOLDER = REPOSITORY / "docker" / "ray"
RAYSERVICE = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
SERVE = {
    "serve.yaml": yaml.safe_load((FOLDER / "serve.yaml").read_text()),
    "rayservice.yaml": yaml.safe_load(RAYSERVICE["spec"]["serveConfigV2"]),
}


@pytest.mark.parametrize("name", SERVE)
def test_serves_own_schema_takes_it(name: str) -> None:
    found = ray.serve.schema.ServeDeploySchema.model_validate(SERVE[name])
    assert [one.name for one in found.applications] == ["box2mask"]
    assert not {"x", *SERVE[name]} - {"x", *ray.serve.schema.ServeDeploySchema.model_fields}  # it passes others over


@pytest.mark.parametrize("name", SERVE)
def test_its_settings_are_the_services(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (application,) = SERVE[name]["applications"]
    variables: dict[str, str] = application["runtime_env"]["env_vars"]
    assert set(variables) <= {environment_name(field) for field in Settings.model_fields}
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 8.0})
    build = import_attr(application["import_path"])
    built = call_user_app_builder_with_args_if_necessary(build, application.get("args", {}))
    deployments: dict[str, Any] = {}
    replica = built._bound_deployment.init_args[1]
    for one in (built._bound_deployment, replica._bound_deployment):
        deployments[one.name] = one
    assert deployments["edge"].num_replicas == 2
    scaled = deployments["replica"]._deployment_config.autoscaling_config
    assert (scaled.min_replicas, scaled.max_replicas) == (1, 8)
    assert deployments["replica"].ray_actor_options["num_gpus"] == 1


def test_both_say_the_same() -> None:
    one, other = SERVE.values()
    assert one["applications"] == other["applications"]
    assert {**one, "http_options": None} == {**other, "http_options": None}


def test_the_launchers_schema_takes_the_cluster() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    for source in cluster["file_mounts"].values():
        assert (REPOSITORY / source).is_file()


def test_the_launcher_has_the_image_that_is_made_for_it() -> None:
    """With what it calls in there: ssh, rsync, and `ray` by a login shell."""
    text = (FOLDER / "cluster.yaml").read_text()
    assert f"--target launcher --tag {yaml.safe_load(text)['docker']['image']} ." in text
    (stage,) = re.findall(r"^FROM runtime AS launcher\n(.*?)\n\n", (REPOSITORY / "Dockerfile").read_text(), re.M | re.S)
    assert all(word in stage for word in ("openssh-client", "rsync", "/etc/profile.d/", "USER 0"))


def test_head_and_workers_are_one_image_with_the_ray_that_is_pinned() -> None:
    spec = RAYSERVICE["spec"]["rayClusterConfig"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = {one["image"] for group in groups for one in group["template"]["spec"]["containers"]}
    assert len(images) == 1
    pinned = re.search(r"ray\[.*\]==([\d.]+)", (REPOSITORY / "pyproject.toml").read_text())
    assert pinned is not None and spec["rayVersion"] == pinned[1] == ray.__version__


def test_workers_end_after_the_last_request() -> None:
    (group,) = RAYSERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace > Settings.model_fields["request_timeout_s"].default


def test_workers_say_themselves_when_they_are_ready() -> None:
    """KubeRay would ask by wget, inside the image, which has none."""
    (group,) = RAYSERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (worker,) = group["template"]["spec"]["containers"]
    asked = worker["readinessProbe"]["httpGet"]
    ports = {one["name"]: one["containerPort"] for one in worker["ports"]}
    assert asked["path"] == "/-/healthz" and ports[asked["port"]] == SERVE["rayservice.yaml"]["http_options"]["port"]
    assert "exec" not in worker["readinessProbe"] and "livenessProbe" not in worker
