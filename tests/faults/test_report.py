"""The lines of the fault tests, and the page that is made of them."""

from pathlib import Path

import pytest

from tests.faults.report import VARIABLE, page, report


def test_each_measurement_is_a_row_in_the_order_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "lines"))
    report("R13", "later", "2 of 2")
    report("R2", "first", "1 of 1", seed=7)
    written = page((tmp_path / "lines").read_bytes())
    assert written.splitlines()[-2:] == ["| R2 | first | 1 of 1 (seed 7) |", "| R13 | later | 2 of 2 |"]
    assert "R13: later: 2 of 2" in capsys.readouterr().out


def test_without_the_variable_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    report("R2", "first", "1 of 1")
    assert list(tmp_path.iterdir()) == []
