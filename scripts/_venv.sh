# Shared by the scripts beside it: the checkout's own virtual environment, made and kept up to date. Source it, then
# call `ensure_venv dev` (with the developers' tools) or `ensure_venv run` (what the server needs, no more).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PATH=$VENV/bin:$PATH
cd "$ROOT"

find_python() {
    local candidate
    for candidate in python3.11 python3.12 python3.13 python3.14 python3; do
        # A version manager's shim exists without the version behind it, so each one is run.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "a2a-server needs Python 3.11 or newer and found none on PATH: install it, on Debian and Ubuntu with" \
        "'apt-get install python3.11 python3.11-venv', on macOS with 'brew install python@3.11'" >&2
    exit 1
}

ensure_venv() {
    local kind=$1 python stamp wanted
    if [[ ! -x $VENV/bin/python ]]; then
        python=$(find_python)
        if ! "$python" -m venv "$VENV" >&2; then
            rm -rf "$VENV"
            echo "$python cannot make a virtual environment: install its venv module (Debian, Ubuntu: 'apt-get" \
                "install $(basename "$python")-venv')" >&2
            exit 1
        fi
    fi
    wanted=$(cksum <"$ROOT/pyproject.toml")
    stamp=$VENV/installed
    # The stamp's first line is the checksum of the pyproject.toml that was installed, its second one with which extra.
    if [[ -f $stamp && $(head -n 1 "$stamp") == "$wanted" && ($kind == run || $(tail -n 1 "$stamp") == dev) ]]; then
        return
    fi
    if [[ $kind == run && -f $stamp && $(tail -n 1 "$stamp") == dev ]]; then
        kind=dev
    fi
    echo "setting up $VENV" >&2
    local target=.
    [[ $kind == dev ]] && target='.[dev]'
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$target" >&2
    printf '%s\n%s\n' "$wanted" "$kind" >"$stamp"
}
