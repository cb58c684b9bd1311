"""One record, one line, whatever is in it."""

import json
import logging

import pytest

from a2a_server.logs import JsonFormatter, TextFormatter

NASTY = "a\r\nb\x1b[31m\u2028c\x00é"


def record(text: str, *, error: Exception | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, None) if error else None
    return logging.LogRecord("core.x", logging.INFO, "x.py", 1, "said %s", (text,), exc_info)


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_record_is_one_line_without_control_characters(formatter: logging.Formatter) -> None:
    line = formatter.format(record(NASTY, error=ValueError("x\ny")))
    assert len(line.splitlines()) == 1
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in line)


def test_text_is_readable() -> None:
    line = TextFormatter().format(record("héllo"))
    assert line.endswith(" INFO core.x: said héllo")


def test_json_has_its_fields() -> None:
    fields = json.loads(JsonFormatter().format(record(NASTY)))
    assert fields.keys() == {"time", "level", "logger", "message"}
    assert fields["message"] == f"said {NASTY}"
