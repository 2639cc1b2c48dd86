#!/usr/bin/env bash
# The boxes and masks of a photo, in one request: segment.sh PHOTO [FOLDER]. Needs curl 7.76 or later, and jq.
# SCORING_URL is the service's address or a route of the pipeline; SCORING_KEY is an endpoint's key, where it has one.
set -euo pipefail

photo=${1:?"usage: segment.sh PHOTO [FOLDER]"}
folder=${2:-masks}
url=${SCORING_URL:-http://localhost:5001}
[[ $url =~ ^https?://[^/]+/?$ ]] && url="${url%/}/pipeline/score"

mkdir -p "$folder"
request='{input_data: {columns: ["image"], index: [0], data: [[.]]}, params: {score_threshold: 0.3}}'
headers() { # from a file, as every user of the machine may see a command's arguments
  echo "Content-Type: application/json"
  [[ -z ${SCORING_KEY:-} ]] || echo "Authorization: Bearer $SCORING_KEY"
}

# curl itself comes again after 429 and 503, when Retry-After says so.
if ! base64 < "$photo" | tr -d '\n' | jq -cR "$request" |
  curl -sS --fail-with-body --retry 5 --retry-max-time 300 --header @<(headers) \
    --data-binary @- --output "$folder/answer.json" "$url"; then
  [[ ! -s $folder/answer.json ]] || cat "$folder/answer.json" >&2
  exit 1
fi

jq -r '.[0].boxes | to_entries[] | [.key, .value.label, .value.score,
    (.value.mask_per_prediction // error("boxes without masks: this is no route of the pipeline"))[0].encoded_binary_mask]
    | @tsv' "$folder/answer.json" |
  while IFS=$'\t' read -r number label score mask; do
    base64 -d <<< "$mask" > "$folder/mask-$number.png"
    echo "$folder/mask-$number.png  $label  $score"
  done
