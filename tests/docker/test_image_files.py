"""Dockerfile, compose file and their document say what the service says."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings, environment_name
from models.weights import find_places

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())
HOME = "/opt/box2mask"
PORT = Settings.model_fields["port"].default


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, each with its arguments on one line."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, by its name, in order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for instruction, rest in instructions():
        if instruction == "FROM":
            found[rest.split(" AS ")[1]] = [(instruction, rest)]
        elif found:
            found[list(found)[-1]].append((instruction, rest))
    return found


def of_stage(name: str, instruction: str) -> list[str]:
    return [rest for kind, rest in stages()[name] if kind == instruction]


def document() -> str:
    """docs/deploy.md, or what is to become a part of it."""
    return "\n".join(path.read_text() for path in sorted((REPOSITORY / "docs").glob("deploy*.md")))


def test_the_last_stage_is_the_service_and_its_process_gets_the_signals() -> None:
    assert list(stages())[-1] == "service"
    assert json.loads(of_stage("service", "ENTRYPOINT")[0]) == ["box2mask"]
    assert json.loads(of_stage("service", "CMD")[0]) == ["serve"]


def test_the_image_is_built_on_one_base_that_may_be_another() -> None:
    assert instructions()[0] == ("ARG", "BASE=python:3.11-slim")
    origins = [rest.split(" AS ")[0] for kind, rest in instructions() if kind == "FROM"]
    assert set(origins) <= {"${BASE}", *stages()}


def test_the_service_runs_as_a_user_by_number_who_is_not_root() -> None:
    (user,) = of_stage("runtime", "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert not of_stage("service", "USER") and not of_stage("azureml", "USER")


def test_what_is_shipped_is_copied_and_installs_nothing() -> None:
    for name in ("runtime", "azureml", "service"):
        assert not of_stage(name, "RUN")


def test_dockerfile_and_compose_name_the_port_of_the_settings() -> None:
    assert of_stage("runtime", "EXPOSE") == [str(PORT)]
    (check,) = of_stage("service", "HEALTHCHECK")
    assert "/health/ready" in check and f"os.environ.get('{environment_name('port')}') or {PORT}" in check
    for service in COMPOSE["services"].values():
        assert [port.rpartition(":")[2] for port in service["ports"]] == [str(PORT)]


@pytest.mark.parametrize("stage", ["service", "azureml"])
def test_the_health_checks_are_programs_that_python_takes(stage: str) -> None:
    (check,) = of_stage(stage, "HEALTHCHECK")
    python, option, program = json.loads(check[check.index("CMD ") + 4 :])
    assert (python, option) == ("python", "-c")
    compile(program, stage, "exec")


def test_the_code_lies_where_the_weights_are_looked_for() -> None:
    assert of_stage("runtime", "WORKDIR") == [HOME] == of_stage("builder", "WORKDIR")
    where = find_places().pulled
    assert where.parent == REPOSITORY
    copied = {rest.split()[-1].rstrip("/") for rest in of_stage("runtime", "COPY")}
    assert {"app", "models", where.name} <= copied
    for service in COMPOSE["services"].values():
        assert [volume.split(":")[-2:] for volume in service["volumes"]] == [[f"{HOME}/{where.name}", "ro"]]


def test_no_folder_beside_the_code_is_taken_for_a_package() -> None:
    """Ray's processes import from the working directory too: torch took a folder `triton` there for Triton."""
    copied = {rest.split()[-1].rstrip("/") for rest in of_stage("runtime", "COPY")} - {"", "venv"}
    ours = {"app", "models", "weights"}
    assert ours < copied and not any(name.isidentifier() for name in copied - ours)


def test_what_is_written_is_written_below_tmp() -> None:
    (environment,) = of_stage("runtime", "ENV")
    values = dict(pair.split("=", 1) for pair in shlex.split(environment))
    folders = [
        name for name in values if name.endswith(("_DIR", "DIR", "_HOME", "HOME", "_PATH")) and "IMPORT" not in name
    ]
    assert len(folders) >= 7
    assert all(values[name].startswith("/tmp") for name in folders)
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp:exec"]


def test_compose_has_a_profile_for_each_kind_of_machine() -> None:
    profiles: dict[str, Any] = {service["profiles"][0]: service for service in COMPOSE["services"].values()}
    assert set(profiles) == {"cpu", "gpu"}
    assert profiles["cpu"]["build"]["args"]["TORCH"] == "cpu"
    assert profiles["gpu"]["build"]["args"]["TORCH"] == "cuda"
    (device,) = profiles["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    known = {environment_name(field) for field in Settings.model_fields}
    for service in profiles.values():
        assert set(service["environment"]) <= known
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace >= Settings.model_fields["request_timeout_s"].default
        assert "healthcheck" in service


def test_every_argument_of_the_build_is_documented() -> None:
    arguments = {rest.split("=")[0] for kind, rest in instructions() if kind == "ARG"}
    table = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", document(), re.MULTILINE))
    assert arguments <= table.keys()
    given = {name for service in COMPOSE["services"].values() for name in service["build"]["args"]}
    assert given <= arguments


def test_the_label_has_the_projects_version() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE


def test_everything_that_is_copied_in_is_sent_to_the_build() -> None:
    sent = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for rest in of_stage("builder", "COPY"):
        for source in rest.split()[:-1]:
            found = list(REPOSITORY.glob(source.rstrip("/")))
            assert found, source
            for path in found:
                relative = path.relative_to(REPOSITORY).as_posix()
                assert any((relative + "/").startswith(name + "/") or name.startswith(relative + "/") for name in sent)
