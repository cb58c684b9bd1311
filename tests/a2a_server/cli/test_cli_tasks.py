"""`a2a-server tasks …` beside what test_cli has of it: run again, since when, how long, what went wrong."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
import typer

from a2a_server.cli.client import Client
from a2a_server.cli.times import duration_of, moment
from tests.a2a_server.cli.test_cli import Cli, cli, server
from tests.acceptance.process import ServerProcess

__all__ = ["cli", "server"]  # the fixtures

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_list_shows_how_long_each_took_and_what_went_wrong(cli: Cli, server: ServerProcess) -> None:
    server.call("tasks.execute", {"tasks": [{"name": "boom"}], "wait": True})
    server.call("tasks.create", {"tasks": [{"name": "noop"}]})

    head, *rows = cli("tasks", "list", "--url", server.url).out.splitlines()

    assert head.split() == ["ID", "STATUS", "DONE", "CREATED", "TOOK", "NAME", "ERROR"]
    (failed,) = [row for row in rows if " boom" in row]
    assert re.search(r"  \d+\.\ds +boom  \S", failed)
    assert not any(re.search(r"\d\.\ds", row) for row in rows if " noop" in row)


def test_a_list_can_begin_at_a_time(cli: Cli, server: ServerProcess) -> None:
    made = server.call("tasks.create", {"tasks": [{"name": "noop"}]})["id"]

    for since, is_listed in (("1h", True), ("0s", False), ("2020-01-31", True), ("2999-01-01T00:00:00Z", False)):
        listed = cli("tasks", "list", "--since", since, "--url", server.url, "-o", "json").json()
        assert (made in [task["id"] for task in listed]) is is_listed, since
    assert cli("tasks", "list", "--since", "yesterday", "--url", server.url).code == 2


def test_rerun_runs_what_failed_and_with_force_what_is_completed(cli: Cli, server: ServerProcess) -> None:
    url = ("--url", server.url)
    failed, done = (
        server.call("tasks.execute", {"tasks": [{"name": name}], "wait": True})["id"] for name in ("boom", "noop")
    )

    assert cli("tasks", "rerun", failed, *url).out.startswith(failed)
    assert cli("watch", failed, *url).out.count("task_start") == 2

    refused = cli("tasks", "rerun", done, *url)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert cli("tasks", "rerun", done, failed, "--force", *url, "-o", "json").out.count("\n") == 2
    assert cli("watch", done, *url).out.count("final: completed") == 2


def test_cancel_takes_every_tree_with_a_status(cli: Cli, server: ServerProcess) -> None:
    """A group's own status is not that of its tree; what has another status is left alone."""
    url = ("--url", server.url)
    group = [{"id": "g", "name": "group"}, {"name": "hang", "parent_id": "g"}, {"name": "noop", "parent_id": "g"}]
    running = [server.call("tasks.execute", {"tasks": tasks})["root_task_id"] for tasks in ([{"name": "hang"}], group)]
    waiting = server.call("tasks.create", {"tasks": [{"name": "noop"}]})["id"]

    assert cli("tasks", "cancel", "--status", "in_progress", "--since", "0s", *url, "-o", "json").json() == []
    done = cli("tasks", "cancel", "--status", "in_progress", "--reason", "enough", *url, "-o", "json")

    assert done.code == 0
    assert {answer["task_id"] for answer in done.json()} == set(running)
    assert server.call("tasks.get", {"task_id": waiting})["status"] == "pending"
    assert cli("tasks", "cancel", "--status", "in_progress", *url, "-o", "json").json() == []


def asking(server: ServerProcess) -> str:
    started = server.call("tasks.execute", {"tasks": [{"name": "form"}], "wait": True})
    assert started["status"] == "input_required"
    return str(started["id"])


def result_of(cli: Cli, server: ServerProcess, task_id: str) -> Any:
    cli("watch", task_id, "--url", server.url)
    return server.call("tasks.get", {"task_id": task_id})["result"]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (["Ada", "Oslo", "36"], ["Ada", "Oslo", "36"]),
        (["--json", '"Ada"', '{"town": null}', "36"], ["Ada", {"town": None}, 36]),
        (["", "a b", "--", "-1"], ["", "a b", "-1"]),
    ],
)
def test_several_questions_are_answered_in_their_order(
    cli: Cli, server: ServerProcess, given: list[str], result: list[Any]
) -> None:
    task_id = asking(server)

    done = cli("tasks", "answer", task_id, "--url", server.url, *given)

    assert (done.code, done.out.split()[0]) == (0, task_id), done.err
    assert result_of(cli, server, task_id) == result


def test_one_answer_is_the_first_questions(cli: Cli, server: ServerProcess) -> None:
    task_id = asking(server)
    for number, answer in enumerate(("Ada", "Oslo", "36"), 1):
        with httpx2.stream("GET", f"{server.url}/tasks/{task_id}/events", trust_env=False, timeout=60) as events:
            asked = (line for line in events.iter_lines() if '"input_required"' in line and line.startswith("data"))
            for _ in range(number):
                next(asked)
        assert cli("tasks", "answer", task_id, answer, "--url", server.url).code == 0

    assert result_of(cli, server, task_id) == ["Ada", "Oslo", "36"]


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        (["a", "b"], 1, "asks 3 questions, so give 3, not 2"),
        (["a", "b", "c", "d"], 1, "asks 3 questions, so give 3, not 4"),
        ([], 2, "ANSWER"),
        (["--json", "1", "2", "{"], 2, "not a JSON value"),
    ],
)
def test_answers_that_do_not_fit_are_told_and_change_nothing(
    cli: Cli, server: ServerProcess, given: list[str], code: int, told: str
) -> None:
    task_id = asking(server)

    done = cli("tasks", "answer", task_id, *given, "--url", server.url)

    assert (done.code, done.err.count("\n"), told in done.err) == (code, 1, True), done.err
    assert server.call("tasks.get", {"task_id": task_id})["status"] == "input_required"


def test_cancel_since_asks_the_server_for_what_is_new_only(
    cli: Cli, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = server.call("tasks.create", {"tasks": [{"name": "noop"}]})["id"]
    asked: list[Any] = []
    call = Client.call

    def recorded(self: Client, method: str, params: Any = None) -> Any:
        asked.append((method, params if params is None else dict(params)))
        return call(self, method, params)

    monkeypatch.setattr(Client, "call", recorded)
    url = ("--url", server.url, "-o", "json")

    assert cli("tasks", "cancel", "--status", "pending", "--since", "2999-01-01T00:00:00Z", *url).json() == []
    assert asked == [
        (
            "tasks.list",
            {"status": "pending", "root_only": False, "limit": 1000, "since": "2999-01-01T00:00:00+00:00"},
        )
    ]
    done = cli("tasks", "cancel", "--status", "pending", "--since", "1h", *url)
    assert made in [answer["task_id"] for answer in done.json()]


@pytest.mark.parametrize("given", [[], ["t", "--status", "pending"], ["--status", "completed"], ["t", "--since", "1h"]])
def test_cancel_without_a_clear_choice_is_wrong_usage(cli: Cli, given: list[str]) -> None:
    done = cli("tasks", "cancel", *given, "--url", "http://127.0.0.1:9")

    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-01-31T11:00:00Z", NOW - timedelta(hours=1)),
        ("2026-01-31T13:00:00+02:00", NOW - timedelta(hours=1)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12).astimezone(UTC)),
    ],
)
def test_a_time_is_an_age_or_a_moment(given: str, meant: datetime) -> None:
    assert moment(given, NOW) == meant


@pytest.mark.parametrize("given", ["", "2", "h", "-2h", "2w", "999999999d", "12:00", "0001-01-01", "2026-02-30"])
def test_what_is_no_time_is_refused(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        moment(given, NOW)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0s"),
        (59.99, "59.9s"),
        (60, "1m00s"),
        (3599.9, "59m59s"),
        (3600, "1h00m"),
        (90_000, "25h00m"),
        (-5, "0.0s"),
    ],
)
def test_a_duration_is_short(seconds: float, shown: str) -> None:
    task: dict[str, Any] = {
        "started_at": NOW.isoformat(),
        "completed_at": (NOW + timedelta(seconds=seconds)).isoformat(),
    }

    assert duration_of(task) == shown
    assert duration_of(task | {"completed_at": None}, NOW + timedelta(seconds=seconds)) == shown
    assert duration_of({"started_at": None, "completed_at": None}) == ""


@pytest.mark.parametrize(
    "arguments", [["-h"], ["tasks", "-h"], ["tasks", "list", "-h"], ["card", "-h"], ["serve", "-h"]]
)
def test_help_has_a_short_name(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)

    assert done.code == 0 and done.out.startswith("Usage: a2a-server")


def test_the_version_is_an_option_too(cli: Cli) -> None:
    assert cli("--version").out == cli("version").out
