"""Deploys box2mask to Azure Machine Learning by its SDK, without keys, and says every step before it is done.

    pip install azure-ai-ml azure-identity
    python deploy.py gpu --subscription ... --resource-group ... --workspace ... --registry ...

What is there already is left as it is, but deployments, which are updated. `--dry-run` says the steps and needs no
account. deploy.sh is the same by the az command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from azure.ai.ml import (
    MLClient,
    load_batch_deployment,
    load_batch_endpoint,
    load_environment,
    load_model,
    load_online_deployment,
    load_online_endpoint,
)
from azure.core.exceptions import ResourceNotFoundError

HERE = Path(__file__).parent
WAYS = ("gpu", "cpu", "score", "kubernetes", "batch")
SCRIPTS = ("score", "batch")  # those that want the image with AzureML's own packages


class Step(NamedTuple):
    """Something to do. lookup: raises ResourceNotFoundError unless it is there already; None: done anyway."""

    what: str
    lookup: Callable[[], Any] | None
    do: Callable[[], Any]


def steps(client: MLClient | None, args: argparse.Namespace) -> Iterator[Step]:
    """What has to be done, in order. client: may be None where nothing is done."""
    if args.way == "traffic":
        yield _split(client, args)
        return
    batch, scripts = args.way == "batch", args.way in SCRIPTS
    model = load_model(HERE / "model.yml", params_override=[{"name": args.model_name}, {"version": args.model_version}])
    model.path = str(args.model.resolve())
    yield Step(
        f"Upload {model.path} and register it as {model.name}:{model.version}",
        lambda: client.models.get(model.name, model.version),
        lambda: client.models.create_or_update(model),
    )

    environment = load_environment(HERE / ("environment-scripts.yml" if scripts else "environment.yml"))
    image = "box2mask-azureml" if scripts else "box2mask"
    environment.image, environment.version = f"{args.registry}.azurecr.io/{image}:{args.tag}", args.tag
    yield Step(
        f"Register {environment.image} as the environment {environment.name}:{environment.version}",
        lambda: client.environments.get(environment.name, environment.version),
        lambda: client.environments.create_or_update(environment),
    )

    prefix = {"kubernetes": "kubernetes-", "batch": "batch-"}.get(args.way, "")
    endpoint = (load_batch_endpoint if batch else load_online_endpoint)(HERE / f"{prefix}endpoint.yml")
    endpoint.name = args.endpoint or endpoint.name
    if args.way == "kubernetes":
        endpoint.compute = args.compute or endpoint.compute
    yield Step(
        f"Make the endpoint {endpoint.name}",
        lambda: _endpoints(client, batch).get(endpoint.name),
        lambda: _endpoints(client, batch).begin_create_or_update(endpoint).result(),
    )

    file = f"{prefix}deployment.yml" if prefix else f"deployment-{args.way}.yml"
    deployment = (load_batch_deployment if batch else load_online_deployment)(HERE / file)
    deployment.name, deployment.endpoint_name = args.deployment or deployment.name, endpoint.name
    deployment.model, deployment.environment = (
        f"azureml:{model.name}:{model.version}",
        (f"azureml:{environment.name}:{environment.version}"),
    )
    if batch:
        deployment.compute = args.compute or deployment.compute
    variables = deployment.environment_variables
    if args.serve != "both":
        variables["BOX2MASK_SEGMENTER" if args.serve == "detector" else "BOX2MASK_DETECTOR"] = "none"
    shown = ", ".join(f"{name}={value}" for name, value in sorted(variables.items()))
    yield Step(
        f"Deploy {deployment.name} from {file} with {shown}; this takes ten minutes or more",
        None,
        lambda: _deployments(client, batch).begin_create_or_update(deployment).result(),
    )
    yield Step(
        f"Send the requests to {deployment.name}, unless they go to another",
        None,
        lambda: _take_requests(client, endpoint.name, deployment.name, batch),
    )


def _endpoints(client: Any, batch: bool) -> Any:
    return client.batch_endpoints if batch else client.online_endpoints


def _deployments(client: Any, batch: bool) -> Any:
    return client.batch_deployments if batch else client.online_deployments


def _take_requests(client: Any, endpoint_name: str, deployment_name: str, batch: bool) -> None:
    endpoint = _endpoints(client, batch).get(endpoint_name)
    if batch:
        endpoint.defaults.deployment_name = deployment_name
    elif any(endpoint.traffic.values()):
        return
    else:
        endpoint.traffic = {deployment_name: 100}
    _endpoints(client, batch).begin_create_or_update(endpoint).result()


def _split(client: Any, args: argparse.Namespace) -> Step:
    def split() -> None:
        endpoint = client.online_endpoints.get(name)
        endpoint.traffic = args.traffic
        client.online_endpoints.begin_create_or_update(endpoint).result()

    name = args.endpoint or load_online_endpoint(HERE / "endpoint.yml").name
    shown = ", ".join(f"{share} % to {deployment}" for deployment, share in args.traffic.items())
    return Step(f"Split the requests to {name}: {shown}", None, split)


def perform(todo: Iterator[Step], *, dry_run: bool) -> None:
    for number, step in enumerate(todo, 1):
        print(f"{number}. {step.what}", flush=True)
        if dry_run:
            continue
        if step.lookup is not None:
            try:
                step.lookup()
            except ResourceNotFoundError:
                pass
            else:
                print("   is there already", flush=True)
                continue
        step.do()


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Deploy box2mask to Azure Machine Learning.")
    parser.add_argument("way", choices=(*WAYS, "traffic"), help="what to deploy, or `traffic` to split an endpoint's")
    parser.add_argument("share", nargs="*", help="for traffic: NAME=PERCENT of each deployment")
    for name in ("subscription", "resource-group", "workspace"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--registry", help="the container registry, without .azurecr.io")
    parser.add_argument("--tag", default="0.1.0", help="the image's tag, and the environment's version")
    parser.add_argument("--endpoint", help="its name, if not the one in the YAML file")
    parser.add_argument("--deployment", help="its name, if not the one in the YAML file")
    parser.add_argument("--compute", help="for kubernetes and batch: the compute's name")
    parser.add_argument("--model", type=Path, default=HERE.parents[1] / "weights" / "demo", help="folder of the models")
    parser.add_argument("--model-name", default="box2mask-models")
    parser.add_argument("--model-version", default="1")
    parser.add_argument("--serve", choices=("both", "detector", "segmenter"), default="both")
    parser.add_argument("--dry-run", action="store_true", help="say the steps and do none")
    args = parser.parse_args(arguments)
    if (args.way == "traffic") != bool(args.share):
        parser.error("traffic, and nothing else, takes NAME=PERCENT")
    if args.way == "traffic":
        split = [share.partition("=") for share in args.share]
        if not all(percent.isdecimal() for _, _, percent in split):
            parser.error(f"expected NAME=PERCENT, got {' '.join(args.share)}")
        args.traffic = {name: int(percent) for name, _, percent in split}
        if sum(args.traffic.values()) != 100:
            parser.error(f"expected shares of 100 in all, got {sum(args.traffic.values())}")
    elif not args.registry:
        parser.error("the following arguments are required: --registry")
    elif not args.model.is_dir():
        parser.error(f"--model: there is no folder {args.model}")
    return args


def main(arguments: list[str], client: MLClient | None = None) -> None:
    """client: in place of one that logs in as the environment, the Azure CLI or a managed identity allows."""
    args = parse(arguments)
    if client is None and not args.dry_run:
        from azure.identity import DefaultAzureCredential

        client = MLClient(DefaultAzureCredential(), args.subscription, args.resource_group, args.workspace)
    perform(steps(client, args), dry_run=args.dry_run)


if __name__ == "__main__":
    main(sys.argv[1:])
