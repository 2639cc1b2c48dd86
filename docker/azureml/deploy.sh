#!/usr/bin/env bash
# Deploys box2mask to Azure Machine Learning by the az CLI (az extension add --name ml; az login), and says every
# command before it runs it. What is there already is left as it is, but deployments, which are updated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'END'
usage: deploy.sh image [OPTION...]      build the service's image in the registry; options go to `az acr build`
       deploy.sh image-scripts [...]    the image for score and batch
       deploy.sh gpu | cpu              managed online deployment of the service
       deploy.sh score                  managed online deployment of score.py in AzureML's scoring server
       deploy.sh kubernetes             on the attached cluster COMPUTE (k8s)
       deploy.sh local                  on this machine, by Docker
       deploy.sh batch                  batch deployment on the compute cluster COMPUTE (gpu-cluster)
       deploy.sh traffic NAME=PERCENT...  split an endpoint's requests among its deployments
In the environment:
  RESOURCE_GROUP, WORKSPACE, REGISTRY   where; REGISTRY without .azurecr.io
  TAG (0.1.0)                           the image's tag, and the version of the environment
  ENDPOINT                              the endpoint's name (the one in the YAML file)
  DEPLOYMENT                            the deployment's name (the one in the YAML file)
  MODEL (../../weights/demo)            folder to upload, with the models somewhere in it
  MODEL_NAME (box2mask-models), MODEL_VERSION (1)
  SERVE (both)                          both, detector or segmenter
  DRY_RUN                               anything: say the commands and run none
END
}

say() { printf '\n# %s\n' "$1"; shift; printf '+'; printf ' %q' "$@"; printf '\n'; }
step() { say "$@"; shift; if [[ -z ${DRY_RUN:-} ]]; then "$@"; fi; }
# Whether there is such a thing; in a dry run there is nothing.
there() { [[ -z ${DRY_RUN:-} ]] && "$@" --output none 2>/dev/null; }

way=${1:-}
[[ -n $way ]] && shift
case $way in
  image | image-scripts | gpu | cpu | score | kubernetes | local | batch | traffic) ;;
  *) usage >&2; exit 2 ;;
esac
TAG=${TAG:-0.1.0} MODEL_NAME=${MODEL_NAME:-box2mask-models} MODEL_VERSION=${MODEL_VERSION:-1}

if [[ $way == image* ]]; then
  name=box2mask target=()
  [[ $way == image-scripts ]] && name=box2mask-azureml target=(--target azureml)
  step "Build and push $name:$TAG" az acr build --registry "${REGISTRY:?the container registry}" \
    --image "$name:$TAG" --file ../../Dockerfile "${target[@]}" "$@" ../..
  exit
fi

workspace=(--resource-group "${RESOURCE_GROUP:?the resource group}" --workspace-name "${WORKSPACE:?the workspace}")

file=deployment-$way.yml endpoint_file=endpoint.yml kind=online endpoint=${ENDPOINT:-box2mask}
environment=environment.yml environment_name=box2mask image=box2mask
endpoint_set=()
case $way in
  kubernetes)
    file=kubernetes-deployment.yml endpoint_file=kubernetes-endpoint.yml endpoint=${ENDPOINT:-box2mask-k8s}
    endpoint_set=(--set "compute=azureml:${COMPUTE:-k8s}") ;;
  batch)
    file=batch-deployment.yml endpoint_file=batch-endpoint.yml kind=batch endpoint=${ENDPOINT:-box2mask-batch} ;;
esac
if [[ $way == score || $way == batch ]]; then
  environment=environment-scripts.yml environment_name=box2mask-scripts image=box2mask-azureml
fi

if [[ $way == traffic ]]; then
  [[ $# -gt 0 ]] || { usage >&2; exit 2; }
  step "Split the requests" az ml online-endpoint update --name "$endpoint" --traffic "$*" "${workspace[@]}"
  exit
fi

image=${REGISTRY:?the container registry}.azurecr.io/$image:$TAG
model=$(realpath "${MODEL:-../../weights/demo}")
overrides=(--set)
case ${SERVE:-both} in
  both) ;;
  detector) overrides+=("environment_variables.BOX2MASK_SEGMENTER=none") ;;
  segmenter) overrides+=("environment_variables.BOX2MASK_DETECTOR=none") ;;
  *) echo "SERVE=$SERVE: expected both, detector or segmenter" >&2; exit 2 ;;
esac
local_flag=()
if [[ $way == local ]]; then
  local_flag=(--local)
  overrides+=("model.path=$model" "environment.image=$image")
else
  overrides+=("model=azureml:$MODEL_NAME:$MODEL_VERSION" "environment=azureml:$environment_name:$TAG")
  there az ml model show --name "$MODEL_NAME" --version "$MODEL_VERSION" "${workspace[@]}" ||
    step "Upload and register the models" az ml model create --file model.yml --name "$MODEL_NAME" \
      --version "$MODEL_VERSION" --path "$model" "${workspace[@]}"
  there az ml environment show --name "$environment_name" --version "$TAG" "${workspace[@]}" ||
    step "Register the image as an environment" az ml environment create --file "$environment" --version "$TAG" \
      --set "image=$image" "${workspace[@]}"
fi
[[ $way == batch ]] && overrides+=("compute=azureml:${COMPUTE:-gpu-cluster}")
[[ -n ${DEPLOYMENT:-} ]] && deployment_name=(--name "$DEPLOYMENT") || deployment_name=()

first=()
if ! there az ml "$kind-endpoint" show --name "$endpoint" "${local_flag[@]}" "${workspace[@]}"; then
  step "Make the endpoint" az ml "$kind-endpoint" create --file "$endpoint_file" --name "$endpoint" \
    "${endpoint_set[@]}" "${local_flag[@]}" "${workspace[@]}"
  [[ $kind == online && $way != local ]] && first=(--all-traffic)
fi
[[ $kind == batch ]] && first=(--set-default)
step "Deploy; this takes ten minutes or more" az ml "$kind-deployment" create --file "$file" \
  "${deployment_name[@]}" --endpoint-name "$endpoint" "${overrides[@]}" "${first[@]}" "${local_flag[@]}" "${workspace[@]}"
step "Where to send requests" az ml "$kind-endpoint" show --name "$endpoint" --query scoring_uri --output tsv \
  "${local_flag[@]}" "${workspace[@]}"
