"""The program: `python -m a2a_server` is `a2a-server`."""

import gc
from importlib import import_module

YOUNG_OBJECTS = 50_000  # made between two searches for garbage among them; Python's own number is 700


def main() -> None:
    """Run one command and exit with its code."""
    # Imports leave no cycles behind and requests next to none; by Python's own number the search for them took a
    # seventh of a start and several turns in each request. So it is set before anything of weight is imported.
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    import_module("a2a_server.cli").main()


if __name__ == "__main__":
    main()
