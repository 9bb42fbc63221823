#!/bin/sh
# curl alone: one picture, waited for and saved as star.png.
set -eu
base="${RUNPOD_ENDPOINT_BASE_URL:-https://api.runpod.ai/v2}"

curl --fail --silent --show-error "$base/$RUNPOD_ENDPOINT_ID/runsync" \
  --header "Authorization: Bearer $RUNPOD_API_KEY" \
  --header 'Content-Type: application/json' \
  --data '{"input": {"prompt": "a big blue star on a yellow background", "seed": 42}}' > answer.json

# Into the file goes what stands between the comma of the first data URI and its end.
grep --only-matching --extended-regexp '"images": ?\["data:[^"]*' answer.json | cut -d , -f 2 | base64 -d > star.png
[ -s star.png ] || { cat answer.json >&2; exit 1; }
echo star.png
