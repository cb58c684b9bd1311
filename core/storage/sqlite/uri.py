"""A database's path as the URI that SQLite takes."""

import os
from pathlib import Path
from urllib.parse import quote


def read_only(path: Path) -> str:
    """The URI that opens the file at this absolute path for reading, whatever its name has: ?, #, %, no valid text."""
    return f"file://{quote(os.fsencode(path))}?mode=ro"
