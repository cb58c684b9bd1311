"""Texts of columns: PostgreSQL has no U+0000 in them, so it is written in two other characters, and U+0001 as well.

Only what callers choose freely needs it: names, users, contexts. They are compared for equality only, so their order
does not matter. The guarded bodies are bytes and have every text as it is.
"""

from typing import TypeVar

Text = TypeVar("Text", str, "str | None")


def written(text: Text) -> Text:
    """As it stands in a column."""
    if text is None or ("\0" not in text and "\1" not in text):
        return text
    return text.replace("\1", "\1\3").replace("\0", "\1\2")


def read(text: str) -> str:
    """What was written."""
    return text if "\1" not in text else text.replace("\1\2", "\0").replace("\1\3", "\1")
