"""One record, one line, whatever is in it."""

import json
import logging
import sys

import pytest

from a2a_server.logs import JsonFormatter, StderrHandler, TextFormatter

NASTY = "a\r\nb\x1b[31m\u2028c\x00é"


def record(text: str, *, error: Exception | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord("core.x", logging.INFO, "x.py", 1, "said %s", (text,), exc_info)


def test_text_is_one_line_without_control_characters_and_its_traceback_lines_are_indented() -> None:
    """So that no text of a caller, and none of an exception, can look like another record."""
    error = ValueError("x\n2026-01-31T12:00:00.000Z INFO core.x: forged\x1b[31m\u2028\r!")
    lines = TextFormatter().format(record(NASTY, error=error)).split("\n")
    assert "said a\\x0d\\x0ab\\x1b[31m" in lines[0]
    assert lines[1:] == [
        "  ValueError: x",
        "  2026-01-31T12:00:00.000Z INFO core.x: forged\\x1b[31m\\u2028\\x0d!",
    ]


def test_json_is_one_line_without_control_characters() -> None:
    line = JsonFormatter().format(record(NASTY, error=ValueError("x\ny")))
    assert len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)


def test_records_go_to_what_standard_error_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    handler = StderrHandler()
    handler.setFormatter(TextFormatter())
    handler.stream = sys.stdout
    handler.emit(record("hello"))
    assert capsys.readouterr().err.endswith("said hello\n")


def test_text_is_readable() -> None:
    line = TextFormatter().format(record("héllo"))
    assert line.endswith(" INFO core.x: said héllo")


def test_json_has_its_fields() -> None:
    fields = json.loads(JsonFormatter().format(record(NASTY)))
    assert fields.keys() == {"time", "level", "logger", "message"}
    assert fields["message"] == f"said {NASTY}"
