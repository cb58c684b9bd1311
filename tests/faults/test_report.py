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
    written = page("", (tmp_path / "lines").read_bytes(), "2026-11-24, abc")
    assert written.splitlines()[-2:] == [
        "| R2 | first | 1 of 1 (seed 7) | 2026-11-24, abc |",
        "| R13 | later | 2 of 2 | 2026-11-24, abc |",
    ]
    assert "R13: later: 2 of 2" in capsys.readouterr().out


def test_a_run_replaces_the_rows_that_it_measured_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(name: str, test: str, claim: str, figures: str) -> bytes:
        monkeypatch.setenv(VARIABLE, str(tmp_path / name))
        report(test, claim, figures)
        return (tmp_path / name).read_bytes()

    first = page(page("", measured("1", "R2", "cuts", "1 of 1"), "day 1"), measured("2", "R9", "storm", "3"), "day 2")
    second = page("# Title\n\n| R1 | a | list | above |\n\n" + first, measured("3", "R2", "cuts", "2 of 2"), "day 3")
    assert second.startswith("# Title\n\n| R1 | a | list | above |\n\n| test | what |"), "what is above stays"
    assert second.splitlines()[-2:] == ["| R2 | cuts | 2 of 2 | day 3 |", "| R9 | storm | 3 | day 2 |"]


def test_without_the_variable_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    report("R2", "first", "1 of 1")
    assert list(tmp_path.iterdir()) == []
