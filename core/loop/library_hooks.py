"""Parts of libraries that this program overrides or calls although they are not promised to stay.

A library that lacks one would not fail: the method is simply never called (with uvicorn 0.44 overload control was off,
without a word). So each is looked for when the program starts.
"""

from collections.abc import Sequence
from importlib.metadata import version
from inspect import getattr_static

from core.model.errors import ConfigurationError

_MISSING = object()


def require(distribution: str, owner: object, names: Sequence[str], *, purpose: str) -> None:
    """Raise ConfigurationError, in one line, where `owner` lacks an attribute of `names`.

    `owner` is a class or an object of the library `distribution`; `purpose` says what does not work without them.
    """
    missing = [name for name in names if getattr_static(owner, name, _MISSING) is _MISSING]
    if missing:
        kind = owner if isinstance(owner, type) else type(owner)
        raise ConfigurationError(
            f"{distribution} {version(distribution)} cannot be used: its {kind.__name__} has no "
            f"{' and no '.join(missing)}, which {purpose} needs; install the version of {distribution} that "
            "a2a-server was tested with (locks/run.txt in its repository)"
        )
