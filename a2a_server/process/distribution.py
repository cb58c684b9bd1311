"""The distribution that this program is installed from: its name is not that of its command and packages."""

from importlib import metadata

NAME = "durable-a2a"


def version() -> str:
    """The installed version."""
    return metadata.version(NAME)
