"""Files of trees: what YAML's values become, and how what is wrong is told with line and column."""

import json
from pathlib import Path
from typing import Any

import pytest

from a2a_server.cli.output import Failure
from a2a_server.cli.trees import read_data, read_part, read_tree
from a2a_server.cli.yamlfile import NotYaml, load, places
from tests.a2a_server.cli.test_cli import Cli, cli

__all__ = ["cli"]  # the fixture


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2099-01-31T12:00:00Z", "2099-01-31T12:00:00Z"),
        ("2099-01-31t12:00:00.25Z", "2099-01-31T12:00:00.250000Z"),
        ("2099-01-31 12:00:00", "2099-01-31T12:00:00Z"),
        ("2099-01-31 12:00:00 +02:00", "2099-01-31T12:00:00+02:00"),
        ("2099-01-31T12:00:00-05:30", "2099-01-31T12:00:00-05:30"),
        ("2026-01-31", "2026-01-31"),
        ("'2026-01-31 12:00:00'", "2026-01-31 12:00:00"),
        ("12:30", "12:30"),
        ("12:30:45.5", "12:30:45.5"),
        ("1e3", "1e3"),
        ("1.0e+3", 1000.0),
        ("0x1F", 31),
        ("007", 7),
        ("1_000", 1000),
        ("yes", True),
        ("~", None),
        ("!!str 12", "12"),
        ("{on: failure, 1: a, 2026-01-31: b, null: c, yes: d}",
         {"on": "failure", "1": "a", "2026-01-31": "b", "null": "c", "yes": "d"}),
        ("{<<: {a: 1}, b: 2}", {"a": 1, "b": 2}),
        ("{<<: {a: 1, b: 1}, b: 2}", {"a": 1, "b": 2}),
        ("{<<: {a: 1}, <<: {b: 1}}", {"a": 1, "b": 1}),
        ("[&x {a: 1}, *x]", [{"a": 1}, {"a": 1}]),
    ],
)  # fmt: skip
def test_a_yaml_value_is_one_of_json(written: str, value: Any) -> None:
    assert load(f"v: {written}") == {"v": value}


@pytest.mark.parametrize(
    ("text", "line", "column", "told"),
    [
        ("a: 1\nb: 2026-02-30", 2, 4, "not a date"),
        ("a: 1\nb: [2026-01-31T25:00:00Z]", 2, 5, "not a date or time"),
        ("a:\n  b: .inf", 2, 6, "not a JSON number"),
        ("a:\n  - .nan", 2, 5, "not a JSON number"),
        ("a: !!binary aGk=", 1, 4, "!!binary"),
        ("a: !!set {b}", 1, 4, "!!set"),
        ("a: !python/name:os.system x", 1, 4, "not a JSON type"),
        ("? [1, 2]\n: 3", 1, 3, "a key must be a string"),
        ("a: [1,\nb: 2", 2, 5, "expected"),
        ("a: b: c", 1, 5, "mapping values are not allowed"),
        ("a: 1\n\tb: 2", 2, 1, "cannot start any token"),
        ("a: *nobody", 1, 4, "undefined alias"),
        ("a: 1\nb: \x07", 2, 4, "U+0007"),
        ("a: 1\n---\nb: 2", 2, 1, "another document"),
        ("id: a\nname: e\nid: b", 3, 1, "the key id is given twice"),
        ("- {on: a, 'on': b}", 1, 11, "the key on is given twice"),
        ("a: &a {b: 1}\nc: {<<: *a, d: 2, d: 3}", 2, 19, "the key d is given twice"),
        ("a: &a [1, *a]", 1, 4, "recursive"),
        ("a: &a {b: {c: *a}}", 1, 4, "recursive"),
    ],
)
def test_what_json_cannot_say_is_told_with_line_and_column(text: str, line: int, column: int, told: str) -> None:
    with pytest.raises(NotYaml) as refused:
        load(text)

    assert (refused.value.line, refused.value.column) == (line, column)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("t.json", '[\n {"name": }]', "t.json:2:11: "),
        ("t.json", '[{"name": "é", }]', "t.json:1:16: "),
        ("t.json", '[{"name":', "t.json:1:10: "),
        ("t.json", "", "t.json:1:1: "),
        ("t.yaml", "- name: a\n  when: .inf", "t.yaml:2:9: "),
        ("t.yml", "- name: a\n b: 1", "t.yml:2:"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)

    with pytest.raises(Failure) as refused:
        read_tree(name)

    assert str(refused.value).startswith(where)


def test_nesting_without_end_is_one_line(tmp_path: Path) -> None:
    for name, text in (("deep.yaml", "[" * 50_000), ("self.yaml", "- &a [*a]"), ("deep.json", "[" * 50_000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(Failure):
            read_tree(str(tmp_path / name))


TREE = '{"tasks": [\n  {"name": "noop"},\n  {"name": "noop",\n   "priority": "high", "inputs": {"a": 1}}]}'


@pytest.mark.parametrize(
    ("text", "field", "place"),
    [
        (TREE, "tasks[1].priority", (4, 4)),
        (TREE, "tasks[1].inputs.a", (4, 35)),
        (TREE, "tasks[1].inputs.b", (4, 24)),
        (TREE, "tasks[1].name", (3, 4)),
        (TREE, "tasks[1].deadline", (3, 3)),
        (TREE, "tasks[7].name", (1, 2)),
        ("- name: a\n- name: b\n  timeout: -1", "tasks[1].timeout", (3, 3)),
        ("name: a\ntimeout: -1", "tasks[0].timeout", (2, 1)),
        ("- name: a", "", None),
        ("{", "tasks[0]", None),
        ("", "tasks[0]", None),
    ],
)
def test_a_field_is_found_in_its_file(text: str, field: str, place: tuple[int, int] | None) -> None:
    assert places(text, [field]) == [place]


@pytest.mark.parametrize("name", ["tree.json", "tree.yaml"])
def test_run_tells_each_wrong_field_with_its_line(cli: Cli, tmp_path: Path, name: str) -> None:
    Path(name).write_text('[{"name": "x"},\n {"name": "x", "priority": "high",\n "max_attempts": 0}]')

    done = cli("run", name)

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{name}:2:16: tasks[1].priority: expected `integer`, got `string`" in done.err
    assert f"{name}:1:1: tasks: 2 tasks have no parent_id" in done.err

    Path(name).write_text('{"tasks":\n [{"name": "nobody"}]}')
    assert f"{name}:2:4: tasks[0].name: unknown executor 'nobody'" in cli("run", name).err


@pytest.mark.parametrize("written", ["deadline: 2099-01-31T12:00:00Z", "deadline: 2099-01-31 12:00:00"])
def test_run_takes_a_time_without_quotes(cli: Cli, tmp_path: Path, written: str) -> None:
    """Found from outside: an unquoted time in YAML failed: a datetime is not a JSON value."""
    Path("t.yaml").write_text(f"name: system_info_executor\n{written}\ninputs: {{resource: cpu}}\n")

    assert cli("run", "t.yaml", "-o", "json").json()["deadline"] == "2099-01-31T12:00:00.000Z"


def test_run_takes_a_date_without_quotes_among_the_inputs(cli: Cli) -> None:
    Path("t.yaml").write_text("name: aggregate_results_executor\ninputs: {day: 2026-01-31}\n")

    assert cli("run", "t.yaml", "-o", "json").json()["result"]["labels"] == {"day": "2026-01-31"}


def test_data_is_json_or_what_a_file_has(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text("day: 2026-01-31")

    assert read_data('{"a": [1]}') == {"data": {"a": [1]}}
    assert read_data(f"@{tmp_path}/d.yaml") == {"data": {"day": "2026-01-31"}}
    with pytest.raises(Failure, match=r"--data:1:5: "):
        read_data('{"a"}')
    assert json.loads(json.dumps(read_data("3"))) == {"data": 3}


@pytest.mark.parametrize("name", ["tree.json", "gone.yaml", "a/b.yml"])
def test_a_file_that_is_not_there_is_no_text(name: str) -> None:
    """Found by a new user: `send` of a misspelt file sent its name as work, and exited with 0."""
    with pytest.raises(Failure, match="is not a file") as refused:
        read_part(name)
    assert refused.value.code == 2
    assert read_part("see tree.json") == {"text": "see tree.json"}
