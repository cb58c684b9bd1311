"""One record, one line, whatever is in it."""

import json
import logging
import subprocess
import sys

import pytest

from a2a_server.logs import (
    BURST,
    PER_SECOND,
    SUMMARY_AFTER,
    Flood,
    JsonFormatter,
    StderrHandler,
    TextFormatter,
)

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


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def line(number: int, text: str = "x") -> logging.LogRecord:
    return logging.LogRecord("core.x", logging.INFO, "x.py", number, text, None, None)


def test_one_line_of_code_logs_a_burst_and_then_so_many_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    """Found by an attack: a tree whose tasks failed at once wrote 1,500 lines a second, and a wrong key 700."""
    ticks = Ticks()
    handler = StderrHandler(Flood(ticks))
    for _ in range(BURST + 50):
        handler.emit(line(1))
    handler.emit(line(2, "another place"))
    assert capsys.readouterr().err.splitlines() == ["x"] * BURST + ["another place"]

    ticks.now = 1.0
    for _ in range(PER_SECOND + 5):
        handler.emit(line(1))
    told = f"50 log records of x.py:1 were left out (more than {BURST} at once or {PER_SECOND} a second)"
    assert capsys.readouterr().err.splitlines() == [told] + ["x"] * PER_SECOND


def test_what_was_left_out_is_told_when_the_flood_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    ticks = Ticks()
    handler = StderrHandler(Flood(ticks))
    for _ in range(BURST + 3):
        handler.emit(line(1))
    ticks.now = SUMMARY_AFTER
    handler.emit(line(2))
    assert "left out" not in capsys.readouterr().err, "it may go on"

    ticks.now += 0.1
    handler.emit(line(2))
    assert capsys.readouterr().err.startswith("3 log records of x.py:1 were left out")
    handler.emit(line(2))
    assert "left out" not in capsys.readouterr().err, "it is told once"


def test_the_end_tells_what_was_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    handler = StderrHandler(Flood(Ticks()))
    for _ in range(BURST + 2):
        handler.emit(line(1))
    capsys.readouterr()
    handler.close()
    assert capsys.readouterr().err.startswith("2 log records of x.py:1 were left out")


PROGRAM = """
import logging
from a2a_server.logs import BURST, configure
configure("{level}", as_json=False)
for _ in range(BURST + 1):
    logging.getLogger("core.x").info("hello")
logging.shutdown()
"""


@pytest.mark.parametrize(("level", "written"), [("info", BURST), ("debug", BURST + 1)])
def test_at_debug_every_record_is_written(level: str, written: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(level=level)]
    logged = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert (logged.count("hello"), logged.count("left out")) == (written, BURST + 1 - written)
