"""How the process logs: to standard error, one line a record, as text or as JSON."""

import json
import logging
import logging.config
import sys
from datetime import UTC, datetime
from typing import TextIO

# Control characters would let a caller's text forge lines or drive a terminal.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO core.run.runner: …`; the lines of a traceback follow, indented.

    A line that is not indented begins a record: no text of a caller can look like one.
    """

    def format(self, record: logging.LogRecord) -> str:
        first = f"{_moment(record)} {record.levelname} {record.name}: {record.getMessage()}".translate(_ESCAPES)
        trace = self.formatException(record.exc_info).split("\n") if record.exc_info else []
        return "\n".join([first, *("  " + line.translate(_ESCAPES) for line in trace)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": _moment(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps(fields | {"message": _text(self, record)})


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, so that a progress bar can make room for it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        """It is always the present one."""


def configure(level: str, *, as_json: bool) -> None:
    """Set up logging for the whole process."""
    formatter = JsonFormatter if as_json else TextFormatter
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": formatter}},
            "handlers": {"stderr": {"()": StderrHandler, "formatter": "line"}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
            "loggers": {
                # These write every chunk of every stream, and every statement, at DEBUG.
                "sse_starlette": {"level": "INFO"},
                "aiosqlite": {"level": "INFO"},
                "asyncio": {"level": "INFO"},
                # These write addresses, which may be secrets, and headers.
                "httpx2": {"level": "WARNING"},
                "httpcore2": {"level": "WARNING"},
                "alembic": {"level": "WARNING"},  # its plugins announce themselves at every migration
                "uvicorn": {"level": "ERROR" if level != "debug" else "DEBUG"},  # it warns of all that is no request
            },
        }
    )


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info:
        text += "\n" + formatter.formatException(record.exc_info)
    return text
