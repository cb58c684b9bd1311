# Shared by scripts/lock and scripts/test-versions; source it after _venv.sh. Which versions fit together, by uv, which
# comes with the developers' tools.

resolve() { # resolve LOCK ARGUMENTS...: writes the lock with its hashes, for every supported Python; arguments are uv's
    local lock=$1
    shift
    ensure_venv dev
    "$VENV/bin/python" -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
        --no-annotate --output-file "$lock" "$@"
}
