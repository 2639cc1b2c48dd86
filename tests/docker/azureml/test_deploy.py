"""The YAML files by AzureML's own loaders, deploy.py on a stand-in for Azure, and deploy.sh with one for az."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.settings import PREFIX, Settings
from tests.app.conftest import Service
from tests.docker.azureml.conftest import AZUREML, REPOSITORY

FILES = {path.name: yaml.safe_load(path.read_text()) for path in sorted(AZUREML.glob("*.yml"))}
MANAGED = ("deployment-cpu.yml", "deployment-gpu.yml", "deployment-score.yml")
ONLINE = (*MANAGED, "kubernetes-deployment.yml")
DEPLOYMENTS = (*ONLINE, "deployment-local.yml", "batch-deployment.yml")
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
WAYS = ("gpu", "cpu", "score", "kubernetes", "batch")


@pytest.fixture(scope="module")
def sdk(azureml_python: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What AzureML's SDK made of the files, of faulty ones, and of deploy.py."""
    faulty = tmp_path_factory.mktemp("faulty")
    environment, deployment = FILES["environment.yml"], FILES["deployment-gpu.yml"]
    routes = {name: route for name, route in environment["inference_config"].items() if name != "scoring_route"}
    wrong = {
        "environment.yml": environment | {"inference_config": routes},
        "deployment-gpu.yml": {key: value for key, value in deployment.items() if key != "instance_type"},
        "batch-deployment.yml": FILES["batch-deployment.yml"] | {"mini_batches": 3},
    }
    for name, content in wrong.items():
        (faulty / name).write_text(yaml.safe_dump(content))
    command = [azureml_python, str(Path(__file__).with_name("sdk_process.py")), str(AZUREML), str(faulty)]
    done = subprocess.run(command, cwd=faulty, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_azures_loaders_take_every_file(sdk: Any) -> None:
    assert set(sdk["files"]) == set(FILES)
    for name, content in FILES.items():
        loaded = sdk["files"][name]
        assert loaded["name"] == content["name"]
        for key in ("request_settings", "liveness_probe", "readiness_probe", "inference_config", "code_configuration"):
            for inner, value in content.get(key, {}).items():  # nothing is lost on the way
                if inner != "code":  # which becomes a path
                    assert loaded[key][inner] == value, (name, key, inner)
        assert loaded.get("environment_variables", {}) == content.get("environment_variables", {})


def test_azures_loaders_would_tell_of_a_fault(sdk: Any) -> None:
    assert "scoring_route" in sdk["faults"]["environment.yml"]
    assert "instance_type" in sdk["faults"]["deployment-gpu.yml"]
    assert "mini_batches" in sdk["faults"]["batch-deployment.yml"]


@pytest.mark.parametrize("name", ONLINE)
def test_times_and_numbers_fit_azure_and_each_other(name: str) -> None:
    content = FILES[name]
    request, variables = content["request_settings"], content["environment_variables"]
    assert request["request_timeout_ms"] <= (300_000 if content.get("type") == "kubernetes" else 180_000)
    # The service answers 504 with its own words before the front end gives up.
    assert 1000 * float(variables["BOX2MASK_REQUEST_TIMEOUT_S"]) < request["request_timeout_ms"]
    let_through = 2 * request["max_concurrent_requests_per_instance"]
    if name == "deployment-score.yml":
        assert variables["GUNICORN_CMD_ARGS"] == f"--threads {let_through}"
        assert int(variables["WORKER_TIMEOUT"]) >= content["liveness_probe"]["initial_delay"]
    else:
        assert int(variables["BOX2MASK_MAX_REQUESTS"]) == let_through
    assert content["liveness_probe"]["initial_delay"] >= 300  # the largest SAM, from a slow disk
    assert content["readiness_probe"]["initial_delay"] <= 10  # small models are in use at once
    for probe in (content["liveness_probe"], content["readiness_probe"]):
        assert probe["success_threshold"] == 1
        assert probe["timeout"] <= probe["period"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_service_takes_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to start with a name that it does not know."""
    for variable, value in FILES[name]["environment_variables"].items():
        assert isinstance(value, str), variable  # Azure wants nothing else
        monkeypatch.setenv(variable, value)
    settings = Settings.from_environment()
    assert (settings.detector, settings.segmenter) == ("auto", "auto")
    assert sum(variable.startswith(PREFIX) for variable in FILES[name]["environment_variables"]) >= 2


@pytest.mark.parametrize("name", FILES)
def test_names_and_versions_are_those_of_each_other(name: str) -> None:
    content = FILES[name]
    if "endpoint" in name:
        assert 3 <= len(content["name"]) <= 32
    if name in DEPLOYMENTS:
        endpoint = {
            "kubernetes-deployment.yml": "kubernetes-endpoint.yml",
            "batch-deployment.yml": "batch-endpoint.yml",
        }
        assert content["endpoint_name"] == FILES[endpoint.get(name, "endpoint.yml")]["name"]
        if name != "deployment-local.yml":
            model = FILES["model.yml"]
            assert content["model"] == f"azureml:{model['name']}:{model['version']}"
            scripts = name in ("deployment-score.yml", "batch-deployment.yml")
            environment = FILES["environment-scripts.yml" if scripts else "environment.yml"]
            assert content["environment"] == f"azureml:{environment['name']}:{environment['version']}"
        if "code_configuration" in content:
            assert (
                AZUREML / content["code_configuration"]["code"] / content["code_configuration"]["scoring_script"]
            ).is_file()
    if name.startswith("environment"):
        assert content["version"] == VERSION
        assert content["image"].endswith(f":{VERSION}")
    if name == "deployment-local.yml":
        assert content["environment"] == {key: FILES["environment.yml"][key] for key in ("image", "inference_config")}


def test_the_routes_are_the_services(service: Service) -> None:
    routes = FILES["environment.yml"]["inference_config"]
    assert {route["port"] for route in routes.values()} == {Settings.model_fields["port"].default}
    for probe in ("liveness_route", "readiness_route"):
        assert httpx.get(service.url + routes[probe]["path"], timeout=60).status_code == 200
    answer = httpx.post(service.url + routes["scoring_route"]["path"], content=b"{}", timeout=60)
    assert answer.status_code == 400


def said(run: Any) -> list[str]:
    return [event[1] for event in run["events"] if event[0] == "said"]


def did(run: Any) -> list[tuple[str, Any]]:
    return [(event[1], event[2]) for event in run["events"] if event[0] == "did"]


@pytest.mark.parametrize("way", WAYS)
def test_deploy_py_says_each_step_and_then_does_it(way: str, sdk: Any) -> None:
    run = sdk["runs"][way]
    assert run["ended"] == ""
    kind = "batch" if way == "batch" else "online"
    kinds = ["models", "environments", f"{kind}_endpoints", f"{kind}_deployments", f"{kind}_endpoints"]
    assert [event[0] for event in run["events"]] == ["said", "did"] * 5
    assert [one for one, _ in did(run)] == kinds
    model, environment, endpoint, deployment, sent = (content for _, content in did(run))
    name = "box2mask-scripts" if way in ("score", "batch") else "box2mask"
    image = "box2mask-azureml" if way in ("score", "batch") else "box2mask"
    assert environment["image"] == f"reg.azurecr.io/{image}:7"
    assert (environment["name"], environment["version"]) == (name, "7")
    assert deployment["environment"] == f"azureml:{name}:7"
    assert deployment["model"] == f"azureml:{model['name']}:{model['version']}"
    assert deployment["endpoint_name"] == endpoint["name"]
    assert Path(model["path"]) == REPOSITORY / "weights" / "demo"
    if way == "batch":
        assert sent["default"] == deployment["name"]
    else:
        assert sent["traffic"] == {deployment["name"]: 100}


def test_deploy_py_says_the_same_when_it_does_nothing(sdk: Any) -> None:
    assert said(sdk["runs"]["dry"]) == said(sdk["runs"]["gpu"])
    assert did(sdk["runs"]["dry"]) == []


def test_deploy_py_leaves_what_is_there(sdk: Any) -> None:
    """A second deployment gets no requests until it is given some."""
    ((kind, deployment),) = did(sdk["runs"]["again"])
    assert (kind, deployment["name"]) == ("online_deployments", "green")
    variables = deployment["environment_variables"]
    assert (variables["BOX2MASK_DETECTOR"], variables["BOX2MASK_SEGMENTER"]) == ("none", "auto")
    assert sum("is there already" in line for line in said(sdk["runs"]["again"])) == 3


def test_deploy_py_splits_requests(sdk: Any) -> None:
    ((kind, endpoint),) = did(sdk["runs"]["traffic"])
    assert (kind, endpoint["traffic"]) == ("online_endpoints", {"gpu": 90, "green": 10})


@pytest.mark.parametrize(
    ("run", "why"), [("too much traffic", "shares of 100 in all, got 110"), ("no registry", "--registry")]
)
def test_deploy_py_refuses_what_makes_no_sense(run: str, why: str, sdk: Any) -> None:
    assert sdk["runs"][run]["ended"] == "2"
    assert why in "".join(said(sdk["runs"][run]))
    assert did(sdk["runs"][run]) == []


@pytest.fixture
def deploy_sh(tmp_path: Path) -> Any:
    """Run deploy.sh with an `az` that only tells what it was asked; its output, and those calls."""
    calls = tmp_path / "calls"
    stub = tmp_path / "bin" / "az"
    stub.parent.mkdir()
    stub.write_text(
        "#!/bin/bash\n"
        f'printf "%s\\0" "$@" >> {calls}; printf "\\n" >> {calls}\n'
        'if [[ " $* " == *" show "*" --output none "* ]]; then exit "${AZ_SHOW:-3}"; fi\n'
        'echo "az did $2 $3"\n'
    )
    stub.chmod(0o755)

    def run(*arguments: str, fails: bool = False, **variables: str) -> tuple[str, list[list[str]]]:
        account = {"RESOURCE_GROUP": "g", "WORKSPACE": "w", "REGISTRY": "reg", "TAG": "7"}
        environment = {"PATH": f"{stub.parent}:{os.environ['PATH']}"} | account | variables
        command = [str(AZUREML / "deploy.sh"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode != 0) == fails, done.stderr
        made = calls.read_text().splitlines() if calls.exists() else []
        asked = [line.strip("\0").split("\0") for line in made]
        return done.stdout + done.stderr, [call for call in asked if call[-2:] != ["--output", "none"]]

    return run


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


@pytest.mark.parametrize("way", WAYS)
def test_deploy_sh_says_each_command_and_then_runs_it(way: str, deploy_sh: Any) -> None:
    output, calls = deploy_sh(way)
    kind = "batch" if way == "batch" else "online"
    steps = ["model create", "environment create", f"{kind}-endpoint create", f"{kind}-deployment create"]
    assert [" ".join(call[1:3]) for call in calls] == [*steps, f"{kind}-endpoint show"]
    lines = [line for line in output.splitlines() if line.startswith(("+ az ml ", "az did "))]
    assert [line.split()[2 if line.startswith("az") else 3] for line in lines] == [
        word for call in calls for word in (call[1], call[1])
    ]
    assert [line[0] for line in lines] == ["+", "a"] * len(calls)
    for call in calls:
        assert option(call, "--resource-group") == "g"
        assert option(call, "--workspace-name") == "w"
        if "--file" in call:
            assert option(call, "--file") in FILES
    scripts = way in ("score", "batch")
    environment = FILES["environment-scripts.yml" if scripts else "environment.yml"]["name"]
    assert f"image=reg.azurecr.io/{'box2mask-azureml' if scripts else 'box2mask'}:7" in calls[1]
    assert option(calls[1], "--file") == ("environment-scripts.yml" if scripts else "environment.yml")
    assert f"environment=azureml:{environment}:7" in calls[3]
    assert "model=azureml:box2mask-models:1" in calls[3]
    assert option(calls[3], "--endpoint-name") == option(calls[2], "--name")
    assert ("--set-default" if way == "batch" else "--all-traffic") in calls[3]
    assert Path(option(calls[0], "--path")) == REPOSITORY / "weights" / "demo"


def test_deploy_sh_says_the_same_when_it_does_nothing(deploy_sh: Any) -> None:
    dry, calls = deploy_sh("gpu", DRY_RUN="1")
    assert calls == []
    output, _ = deploy_sh("gpu")
    assert [line for line in output.splitlines() if line[:1] in "#+"] == [
        line for line in dry.splitlines() if line[:1] in "#+"
    ]


def test_deploy_sh_leaves_what_is_there(deploy_sh: Any) -> None:
    """A second deployment gets no requests until it is given some."""
    _, calls = deploy_sh("gpu", AZ_SHOW="0", DEPLOYMENT="green", SERVE="segmenter")
    assert [call[2] for call in calls] == ["create", "show"]
    assert option(calls[0], "--name") == "green"
    assert "environment_variables.BOX2MASK_DETECTOR=none" in calls[0]
    assert "--all-traffic" not in calls[0]


def test_deploy_sh_splits_requests(deploy_sh: Any) -> None:
    _, (call,) = deploy_sh("traffic", "gpu=90", "green=10")
    assert call[:3] == ["ml", "online-endpoint", "update"]
    assert option(call, "--traffic") == "gpu=90 green=10"


def test_deploy_sh_runs_on_this_machine(deploy_sh: Any, tmp_path: Path) -> None:
    _, calls = deploy_sh("local", MODEL=str(tmp_path), SERVE="detector")
    assert [" ".join(call[1:3]) for call in calls] == [
        "online-endpoint create",
        "online-deployment create",
        "online-endpoint show",
    ]
    assert all("--local" in call for call in calls)
    assert {f"model.path={tmp_path}", "environment.image=reg.azurecr.io/box2mask:7"} <= set(calls[1])
    assert "environment_variables.BOX2MASK_SEGMENTER=none" in calls[1]


def test_deploy_sh_builds_images(deploy_sh: Any) -> None:
    _, calls = deploy_sh("image-scripts", "--build-arg", "A=b")
    assert calls[-1][:2] == ["acr", "build"]
    assert option(calls[-1], "--image") == "box2mask-azureml:7"
    assert option(calls[-1], "--target") == "azureml"
    assert option(calls[-1], "--build-arg") == "A=b"


@pytest.mark.parametrize("arguments", [(), ("everything",), ("traffic",)])
def test_deploy_sh_says_how_it_is_used(arguments: tuple[str, ...], deploy_sh: Any) -> None:
    output, calls = deploy_sh(*arguments, fails=True)
    assert "usage: deploy.sh" in output
    assert calls == []


def test_deploy_sh_refuses_what_makes_no_sense(deploy_sh: Any) -> None:
    output, calls = deploy_sh("gpu", SERVE="everything", fails=True)
    assert "expected both, detector or segmenter" in output
    assert calls == []
