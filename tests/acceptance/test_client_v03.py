"""The official v0.3 client (a2a-sdk 0.3.26, in a venv of its own) against a real server process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ROOT, ServerProcess

LOCK = ROOT / "locks" / "client-sdk-0.3.26.txt"
VENV = ROOT / ".peers" / f"client-sdk-0.3.26-{sha256(LOCK.read_bytes()).hexdigest()[:12]}"
CLIENT = Path(__file__).parent / "clients" / "v03_client.py"

Report = dict[str, Any]


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the client's venv, which is made once."""
    made, interpreter = VENV / "made", VENV / "bin" / "python"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--require-hashes", "--requirement", str(LOCK)]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"pip cannot install {LOCK.name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        made.touch()
    return interpreter


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("v03"), "--default-skill", "greet").start()
    yield process
    process.close()


@pytest.fixture(scope="module", params=["JSONRPC", "HTTP+JSON"])
def binding(request: pytest.FixtureRequest) -> str:
    """That the client is asked to take."""
    return str(request.param)


@pytest.fixture(scope="module")
def report(python: Path, server: ServerProcess, binding: str) -> Report:
    done = subprocess.run([str(python), str(CLIENT), server.url, binding], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told: Report = json.loads(done.stdout)
    return told


def kinds(events: list[Any]) -> list[str]:
    return [event["kind"] for event in events]


def finals(events: list[Any]) -> list[bool]:
    return [event["final"] for event in events if event["kind"] == "status-update"]


def only_the_last_is_final(events: list[Any]) -> bool:
    *before, last = finals(events)
    return last and not any(before) and events[-1]["kind"] == "status-update"


def test_no_step_raises(report: Report) -> None:
    assert {name: step for name, step in report.items() if isinstance(step, dict) and "raised" in step} == {}


def test_card_leads_to_this_server(report: Report, server: ServerProcess) -> None:
    card = report["card"]
    assert (card["protocolVersion"], card["url"], card["preferredTransport"]) == ("0.3.0", f"{server.url}/", "JSONRPC")


def test_blocking_send_brings_the_ended_task(report: Report) -> None:
    (task,) = report["send"]
    assert (task["kind"], task["status"]["state"]) == ("task", "completed")
    assert task["artifacts"][0]["parts"] == [{"kind": "text", "text": "Hello, Ada!"}]
    assert report["get"]["artifacts"][0]["parts"] == task["artifacts"][0]["parts"]


def test_direct_message_is_a_message(report: Report) -> None:
    (said,) = report["direct"]
    assert (said["kind"], said["role"], said["parts"][0]["text"]) == ("message", "agent", "You said: hi")


def test_stream_begins_with_the_task_and_its_last_update_is_final(report: Report) -> None:
    events = report["stream"]
    assert kinds(events)[0] == "task"
    assert "artifact-update" in kinds(events)
    assert events[-1]["status"]["state"] == "completed"
    assert only_the_last_is_final(events)


def test_chunks_are_appended_to_one_artifact(report: Report) -> None:
    pieces = [event for event in report["chunks"] if event["kind"] == "artifact-update"]
    assert [piece["append"] for piece in pieces] == [False, True, True]
    assert [piece["lastChunk"] for piece in pieces] == [False, False, True]
    assert len({piece["artifact"]["artifactId"] for piece in pieces}) == 1


def test_every_kind_of_part_comes_back_as_it_was_sent(report: Report, binding: str) -> None:
    number = 2**60 + 1
    assert report["parts"] == [
        {"kind": "text", "text": "Ada"},
        {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "hi.txt"}},
        # A Struct of the proto, which this client makes for HTTP+JSON, has floats only.
        {"kind": "data", "data": {"n": number if binding == "JSONRPC" else float(number)}},
    ]


def test_questions_are_answered_by_task_id(report: Report) -> None:
    turns = report["multi_turn"]
    for events in (turns["asked"], turns["again"]):
        assert events[-1]["status"]["state"] == "input-required"
        assert only_the_last_is_final(events)
    ended = turns["ended"]
    assert ended["status"]["state"] == "completed"
    assert ended["artifacts"][0]["parts"] == [{"kind": "data", "data": {"name": "Ada", "town": "London"}}]


def test_resubscribed_stream_ends_with_the_cancel(report: Report) -> None:
    told = report["cancel"]
    assert told["running"]["status"]["state"] in ("submitted", "working")
    assert told["cancelled"]["status"]["state"] == "canceled"
    assert told["seen"][0]["kind"] == "task"
    assert told["seen"][-1]["status"]["state"] == "canceled"
    assert only_the_last_is_final(told["seen"])


def test_webhook_is_read_as_it_was_made(report: Report) -> None:
    told = report["webhook"]
    assert told["made"] == told["read"]
    assert (told["read"]["taskId"], told["read"]["pushNotificationConfig"]["id"]) == (told["task"], "one")
    assert told["read"]["pushNotificationConfig"]["url"] == "https://hook.invalid/"


def test_errors_have_the_codes_that_v0_3_knows(report: Report, binding: str) -> None:
    statuses = {-32001: 404, -32002: 400, -32602: 400}
    codes = {
        "get": -32001,
        "cancel": -32001,
        "cancel ended": -32002,
        "send to ended": -32602,
        "send to nobody": -32001,
        "stream to nobody": -32001,
        "unknown skill": -32602,
        "webhook of nobody": -32001,
    }
    expected = codes if binding == "JSONRPC" else {name: statuses[code] for name, code in codes.items()}
    assert {name: error["code"] for name, error in report["errors"].items()} == expected
