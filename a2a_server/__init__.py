"""The server. What the library `core` offers can be had from here, too: `from a2a_server import executor, TaskManager`.

It is imported when it is first asked for, so that the program can see to its path before that.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core import *  # noqa: F403 - for type checkers: what __getattr__ gives


def __getattr__(name: str) -> Any:
    """A name of `core.__all__`. Modules of this package are found by the import itself."""
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:
        core = import_module("core")
        if name in core.__all__:
            return getattr(core, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
