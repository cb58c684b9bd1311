"""What every command prints with: one-line failures, JSON, and texts of others made safe for a terminal."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from enum import StrEnum
from typing import Annotated, Any, TextIO

import msgspec
import typer

from a2a_server.protocol.codec import one_line

STDOUT, STDERR = 1, 2  # file descriptors

# The exit code of `run`, `send` and `watch` by the status that the task came to.
OUTCOMES = {
    "completed": 0,
    "failed": 1,
    "cancelled": 3,
    "rejected": 3,
    "input_required": 4,
    "auth_required": 4,
}


class Format(StrEnum):
    """The output format."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="Output format.")]
OutputLines = Annotated[Format, typer.Option("-o", "--output", help="Output format; json: one object per line.")]


class Failure(Exception):
    """A command failed; the text is its one-line reason, and `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        self.code = code
        super().__init__(message)


def fail(message: str, code: int) -> int:
    """Say on stderr, in one line, why the program ends with this code."""
    print(f"a2a-server: {clean(message)}", file=sys.stderr)
    return code


def print_json(value: Any) -> None:
    """One JSON document for people and programs."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_json_line(value: Any, file: TextIO | None = None) -> None:
    """One JSON document on a line of its own: an item of a stream."""
    print(one_line(msgspec.json.encode(value)).decode(), file=file, flush=True)


@contextmanager
def stdout_kept() -> Iterator[TextIO]:
    """Send to stderr what anybody prints meanwhile, this process or its children; gives the real stdout.

    Executors may print, but a program that asked for JSON reads stdout.
    """
    sys.stdout.flush()
    with os.fdopen(os.dup(STDOUT), "w", errors="backslashreplace") as kept:
        os.dup2(STDERR, STDOUT)
        try:
            with redirect_stdout(sys.stderr):
                yield kept
        finally:
            sys.stdout.flush()
            kept.flush()
            os.dup2(kept.fileno(), STDOUT)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what they hold."""
    table = [header, *(tuple(clean(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def clean(text: str) -> str:
    """The text on one line, without what would drive a terminal: it may come from anybody."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def text_of(value: Any) -> str:
    """A JSON value as text: strings as they are, without control characters but line ends and tabs."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


def text_of_parts(parts: Any) -> str:
    """A2A parts as text: texts as they are, data as JSON, files by name."""
    if not isinstance(parts, list):
        return text_of(parts)
    texts = []
    for part in parts:
        if not isinstance(part, dict):
            texts.append(text_of(part))
        elif "text" in part or "data" in part:
            texts.append(text_of(part.get("text", part.get("data"))))
        else:
            texts.append(text_of(f"[file {part.get('filename') or part.get('url') or part.get('mediaType') or ''}]"))
    return "\n".join(texts)


def say(notice: str) -> None:
    """Tell the user, beside what the command prints."""
    print(f"a2a-server: {clean(notice)}", file=sys.stderr, flush=True)
