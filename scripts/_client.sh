#!/usr/bin/env bash
# _client.sh NAME: the environment .peers/NAME of a client, as its lock says: locks/NAME.txt, or locks/NAME/ for npm.
set -euo pipefail
source "$(dirname "$0")/_venv.sh"
place=.peers/$1
if [[ -d locks/$1 ]]; then
    command -v npm >/dev/null || { echo "npm is not here" >&2; exit 1; }
    lock=locks/$1/package-lock.json
else
    lock=locks/$1.txt
fi
wanted=$(cksum <"$lock")
[[ -f $place/installed && $(<"$place/installed") == "$wanted" ]] && exit
rm -rf "$place"
if [[ -d locks/$1 ]]; then
    mkdir -p "$place"
    cp "locks/$1/"*.json "$place/"
    npm ci --prefix "$place" --no-audit --no-fund --ignore-scripts --silent >&2
else
    ensure_venv dev
    python -m uv venv --quiet --python 3.11 "$place"
    python -m uv pip install --quiet --python "$place/bin/python" --require-hashes --requirement "$lock" >&2
fi
echo "$wanted" >"$place/installed"
