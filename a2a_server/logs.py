"""How the process logs: to standard error, one line a record, as text or as JSON."""

import json
import logging
import logging.config
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

BURST = 100  # records of one line of code at once
PER_SECOND = 10  # records of it after that
SUMMARY_AFTER = 10.0  # seconds without a record of it, after which the number left out is logged

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


class Place:
    """What is known of the records of one line of code: a token bucket, and how many were left out."""

    def __init__(self, now: float) -> None:
        self.tokens = float(BURST)
        self.seen_at = now
        self.left_out = 0


class Flood:
    """Bounds how many records one line of code may log, so that no caller fills the disk with the log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: dict[tuple[str, int], Place] = {}

    def takes(self, record: logging.LogRecord) -> bool:
        """Whether the record is written; one that is not is counted."""
        now, key = self._clock(), (record.pathname, record.lineno)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(now)
        place.tokens = min(float(BURST), place.tokens + (now - place.seen_at) * PER_SECOND)
        place.seen_at = now
        if place.tokens < 1:
            place.left_out += 1
            return False
        place.tokens -= 1
        return True

    def summaries(self, *, of: logging.LogRecord | None = None) -> list[logging.LogRecord]:
        """Of each line of code whose records are written again, or no longer come, a record of how many were left out.

        `of`: a record that is about to be written. Without it, all that were left out so far.
        """
        now = self._clock()
        made = []
        for key, place in self._places.items():
            is_over = of is None or now - place.seen_at > SUMMARY_AFTER or key == (of.pathname, of.lineno)
            if place.left_out and is_over:
                text = "%d log records of %s:%d were left out (more than %d at once or %d a second)"
                values = (place.left_out, *key, BURST, PER_SECOND)
                made.append(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, values, None))
                place.left_out = 0
        return made


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, so that a progress bar can make room for it."""

    def __init__(self, flood: Flood | None = None) -> None:
        super().__init__(sys.stderr)
        self._flood = flood

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless there are too many like it."""
        if self._flood is not None:
            if not self._flood.takes(record):
                return
            for summary in self._flood.summaries(of=record):
                super().emit(summary)
        super().emit(record)

    def close(self) -> None:
        """Say at the end what was left out since the last summary."""
        for summary in self._flood.summaries() if self._flood is not None else ():
            super().emit(summary)
        super().close()

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        """It is always the present one."""


def configure(level: str, *, as_json: bool) -> None:
    """Set up logging for the whole process."""
    formatter = JsonFormatter if as_json else TextFormatter
    flood = None if level == "debug" else Flood()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": formatter}},
            "handlers": {"stderr": {"()": StderrHandler, "formatter": "line", "flood": flood}},
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
