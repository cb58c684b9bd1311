"""Tests of the client matrix itself: a client that shows something else is found."""

from typing import Any

import pytest

from tests.clients.agent import EMOJI, FILE, SEPARATORS
from tests.clients.matrix import CLIENTS, DATA, DRIVERS, RIGHT, ROOT, Client, judged, table

GIVEN: dict[str, dict[str, Any]] = {
    "hello": {"shown": ["Hello, ", "hello there!"]},
    "separators": {"shown": [SEPARATORS]},
    "emoji": {"shown": [EMOJI]},
    "interim": {"shown": ["Thinking about it", "Said and done"]},
    "chunks": {"shown": ["one ", "two ", "three"]},
    "data": {"shown": [{"data": DATA}]},
    "file": {"shown": [{"file": FILE.hex()}]},
    "fail": {"shown": ["the printer is on fire"]},
    "reject": {"shown": ["not my job"]},
    "reply": {"shown": ["a direct message"]},
    "slow": {"shown": ["slow, but sure"]},
    "ask": {"shown": ["Hello, Ada!"], "question": ["Who are you?"], "history": ["ask", "Who are you?", "Ada"]},
    "wait": {"shown": [], "state": "CANCELED"},
}
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("hello", {"shown": ["Hello, hello there!"] * 2}),
    ("separators", {"shown": [" ".join(SEPARATORS.splitlines())]}),
    ("interim", {"shown": ["Thinking about it"]}),
    ("interim", {"shown": ["Said and done", "Thinking about it"]}),
    ("interim", {"shown": ["Thinking about it", "Said and done", "Said and done"]}),
    ("chunks", {"shown": ["three"]}),
    ("data", {"shown": [{"data": DATA | {"n": 4}}]}),
    ("data", {"shown": ["Hello"]}),
    ("file", {"shown": [{"file": FILE[1:].hex()}]}),
    ("fail", {"shown": [], "raised": "JSONDecodeError: the printer"}),
    ("ask", GIVEN["ask"] | {"history": ["ask", "Ada"]}),
    ("ask", GIVEN["ask"] | {"question": []}),
    ("wait", {"shown": [], "state": "WORKING"}),
]
PLAIN = Client("one", "client-sdk-1.3.0", "sdk_v1.py")


def test_what_was_given_is_right() -> None:
    assert judged(PLAIN, GIVEN, []) == (["ok"] * len(RIGHT), [])


@pytest.mark.parametrize(("scenario", "report"), WRONG)
def test_something_else_is_found(scenario: str, report: dict[str, Any]) -> None:
    cells, wrong = judged(PLAIN, GIVEN | {scenario: report}, [])
    assert cells.count("WRONG") == len(wrong) == 1


def test_a_fault_of_the_client_is_named_and_must_show() -> None:
    client = Client("one", "client-sdk-1.3.0", "sdk_v1.py", faults={"file": "shows no files"})
    notes: list[str] = []
    cells, wrong = judged(client, GIVEN | {"file": {"shown": []}}, notes)
    assert ("(1)" in cells, wrong, notes) == (True, [], ["shows no files"])
    assert "1. The client shows no files." in table([(client, cells)], [], notes)
    (line,) = judged(client, GIVEN, [])[1]
    assert line.startswith("file is right, though listed")


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.lock}-{client.binding}")
def test_each_client_has_a_driver_a_lock_and_faults_of_known_scenarios(client: Client) -> None:
    assert (DRIVERS / client.driver).is_file()
    assert client.version
    lock = ROOT / "locks" / client.lock
    assert (lock / "package-lock.json").is_file() or lock.with_name(f"{client.lock}.txt").is_file()
    assert {name.partition("~")[0] for name in client.faults} <= RIGHT.keys()
