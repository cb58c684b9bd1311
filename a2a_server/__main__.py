"""The program: `python -m a2a_server` is `a2a-server`."""

import gc
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

YOUNG_OBJECTS = 50_000  # made between two searches for garbage among them; Python's own number is 700
CONFIGURATION = 78  # EX_CONFIG
OURS = Path(__file__).absolute().parents[1]  # where this package and `core` lie


def main() -> None:
    """Run one command and exit with its code."""
    # Imports leave no cycles behind and requests next to none; by Python's own number the search for them took a
    # seventh of a start and several turns in each request. So it is set before anything of weight is imported.
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    _search_here_last()
    if (found := _found_core()) is not None:
        told = "hides a2a-server's own package `core`: rename it, or remove its folder from PYTHONPATH"
        print(f"a2a-server: {found} {told}", file=sys.stderr)
        sys.exit(CONFIGURATION)
    import_module("a2a_server.cli").main()


def _search_here_last() -> None:
    """Look for modules in the current folder after all others: `-m` and PYTHONPATH put it first.

    A `core` or `json.py` of a user's own must not take the place of ours or Python's.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        return
    if Path(here) != OURS:
        sys.path[:] = [folder for folder in sys.path if folder not in ("", here)] + [here]


def _found_core() -> str | None:
    """Where Python finds the package `core`, if that is not ours."""
    spec = find_spec("core")
    found = spec.origin if spec is not None else None
    if found is not None and Path(found).parents[1].resolve() == OURS.resolve():
        return None
    return found or "another folder named core"


if __name__ == "__main__":
    main()
