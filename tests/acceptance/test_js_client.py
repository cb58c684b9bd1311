"""The official JavaScript client (@a2a-js/sdk from npm) against a real server process, when node and npm are there."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ROOT, ServerProcess

V1 = "1.3.0"
V0_3 = "0.3.14"
CLIENT = Path(__file__).parent / "clients" / "js_client.mjs"
NOT_FOUND = "TaskNotFoundError"

Report = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("js"), "--default-skill", "greet").start()
    yield process
    process.close()


@pytest.fixture(
    scope="module",
    params=[(V1, "JSONRPC"), (V1, "HTTP+JSON"), (V0_3, "JSONRPC"), (V0_3, "HTTP+JSON")],
    ids=lambda param: " ".join(param),
)
def flavour(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The SDK's version and the binding that it is asked to take."""
    version, binding = request.param
    return version, binding


@pytest.fixture(scope="module")
def report(server: ServerProcess, flavour: tuple[str, str]) -> Report:
    version, binding = flavour
    command = ["node", str(CLIENT), str(installed(version)), server.url, binding]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: Report = json.loads(done.stdout)
    return told


def installed(version: str) -> Path:
    """The folder of that version of the SDK, which is made once."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: the JavaScript client is not tried")
    folder = ROOT / ".peers" / f"js-{version}"
    made = folder / "made"
    if not made.exists():
        shutil.copytree(ROOT / "locks" / f"js-{version}", folder, dirs_exist_ok=True)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--prefix", str(folder)]
        done = subprocess.run(["npm", "ci", *options], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"npm cannot install @a2a-js/sdk {version}: {(done.stderr.strip().splitlines() or ['?'])[0]}")
        made.touch()
    return folder


def kinds(events: list[Any]) -> list[str]:
    return [event["kind"] for event in events]


def test_no_step_raises(report: Report) -> None:
    assert {name: step for name, step in report.items() if isinstance(step, dict) and "raised" in step} == {}


def test_card_leads_to_the_binding(report: Report, flavour: tuple[str, str]) -> None:
    assert report["card"]["name"] == "durable-a2a"
    card, *called = report["paths"]
    assert card.startswith("/.well-known/")
    if flavour[1] == "JSONRPC":
        assert called == ["/"]
    else:
        expected = {"/message:send", "/message:stream", "/tasks"}
        if flavour[0] == V0_3:
            expected = {"/v1/message:send", "/v1/message:stream"}
        assert expected <= set(called)
        assert "/" not in called


@pytest.mark.parametrize("step", ["send", "get"])
def test_blocking_send_brings_the_ended_task(report: Report, step: str) -> None:
    task = report[step]
    assert (task["kind"], task["state"], task["artifacts"]) == ("task", "completed", [[{"text": "Hello, Ada!"}]])


def test_direct_message_is_a_message(report: Report) -> None:
    assert report["direct"] == {"kind": "message", "parts": [{"text": "You said: hi"}]}


def test_stream_begins_with_the_task_and_ends_with_its_terminal_state(report: Report) -> None:
    events = report["stream"]
    assert kinds(events)[0] == "task"
    assert [event["parts"] for event in events if event["kind"] == "artifact-update"] == [[{"text": "Hello, Ada!"}]]
    assert (events[-1]["kind"], events[-1]["state"]) == ("status-update", "completed")
    assert len({event["id"] for event in events}) == 1


def test_chunks_are_appended_to_one_artifact(report: Report, flavour: tuple[str, str]) -> None:
    pieces = [event for event in report["chunks"] if event["kind"] == "artifact-update"]
    assert [piece["parts"] for piece in pieces] == [[{"text": f"chunk {n} "}] for n in range(3)]
    # What is false is left out of ProtoJSON, and v0.3's client leaves it at that.
    appended = [piece.get("append", False) for piece in pieces]
    # Over HTTP+JSON the client of v0.3 drops `append` of what it reads: the frames have it (tests/a2a_server/v0_3).
    assert appended == ([False] * 3 if flavour == (V0_3, "HTTP+JSON") else [False, True, True])
    assert [piece.get("lastChunk", False) for piece in pieces] == [False, False, True]


def test_questions_are_answered_by_task_id(report: Report) -> None:
    asked, again, end, task = report["turns"]
    assert (asked["state"], asked["said"]) == ("input-required", [{"text": "What is your name?"}])
    assert (again["state"], again["said"]) == ("input-required", [{"text": "Where do you live, Ada?"}])
    assert end["state"] == "completed"  # an update, or the task when it was quick enough to end before it was read
    assert task["artifacts"] == [[{"data": {"name": "Ada", "town": "London"}}]]


def test_resubscribed_stream_ends_with_the_cancel(report: Report) -> None:
    told = report["resubscribe"]
    assert told["running"]["state"] in ("submitted", "working")
    assert told["cancelled"]["state"] == "canceled"
    assert told["seen"][0]["kind"] == "task"
    assert told["seen"][-1]["state"] == "canceled"
    assert {event["id"] for event in told["seen"]} == {told["running"]["id"]}


def test_list_finds_the_task_by_its_context(report: Report, flavour: tuple[str, str]) -> None:
    if flavour[0] == V0_3:
        assert "listed" not in report["list"], "v0.3 has no list over JSON-RPC"
    else:
        assert report["list"]["listed"] == [report["list"]["id"]]


def test_webhooks_are_created_read_listed_and_deleted(report: Report) -> None:
    assert report["card"]["push"] is True
    push = report["push"]
    assert push["created"] == push["got"] == {"id": "one", "taskId": push["id"], "hook": "https://hook.invalid/"}
    assert push["listed"] == ["one", "two"]
    assert push["left"] == ["two"]
    assert push["gone"] == NOT_FOUND


def test_errors_arrive_as_the_clients_own_types(report: Report) -> None:
    ended = "TaskNotCancelableError"
    assert report["errors"] == {"get": NOT_FOUND, "cancel": NOT_FOUND, "cancel ended": ended, "send": NOT_FOUND}
