# Shared by the scripts beside it: virtual environments that hold what a lock says, with its hashes. Source it, then
# call `ensure_venv dev` (with the developers' tools) or `ensure_venv run` (what the server needs, no more) for .venv,
# or `make_venv` and `install_locked` for another one.

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

make_venv() { # make_venv DIR PYTHON: a virtual environment, unless there is one
    local venv=$1 python=$2
    [[ -x $venv/bin/python ]] && return
    if ! "$python" -m venv "$venv" >&2; then
        rm -rf "$venv"
        echo "$python cannot make a virtual environment: install its venv module (Debian, Ubuntu: 'apt-get" \
            "install $(basename "$python")-venv')" >&2
        exit 1
    fi
}

install_locked() { # install_locked VENV LOCK [checkout]: what the lock says, and nothing that differs from its hashes
    local venv=$1 lock=$2 what=${3:-}
    local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
    "${pip[@]}" --require-hashes --requirement "$lock" >&2
    [[ $what != checkout ]] || "${pip[@]}" --no-deps --no-build-isolation --editable "$ROOT" >&2
}

ensure_venv() {
    local kind=$1 stamp=$VENV/installed has=
    # The stamp's first line is the checksum of what was installed, its second one with which lock.
    [[ ! -f $stamp ]] || has=$(tail -n 1 "$stamp")
    [[ $kind != run || $has != dev ]] || kind=dev
    local lock=$ROOT/locks/$kind.txt wanted
    wanted=$(cat "$ROOT/pyproject.toml" "$lock" | cksum)
    [[ $has != "$kind" || $(head -n 1 "$stamp") != "$wanted" ]] || return 0
    [[ -x $VENV/bin/python ]] || make_venv "$VENV" "$(find_python)"
    echo "setting up $VENV" >&2
    install_locked "$VENV" "$lock" checkout
    printf '%s\n%s\n' "$wanted" "$kind" >"$stamp"
}
