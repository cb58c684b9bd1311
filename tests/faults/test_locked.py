"""R12: another process holds the database, for a moment or for long, or a second server wants the file of the first."""

import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.process import ServerProcess
from tests.faults.report import report
from tests.faults.sabotage import VARIABLE
from tests.faults.test_failpoints import Sabotaged, seeded

TIMES = int(os.environ.get("LOCKS", "20"))
SECOND_SERVERS = TIMES // 4  # servers that want the file too: each takes a second and a half
EX_TEMPFAIL = 75


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sabotaged]:
    process = Sabotaged(tmp_path, "--default-skill", "noop")
    yield process
    process.close()


def send(server: ServerProcess) -> httpx2.Response:
    params = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}
    return server.client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params})


def holder(server: ServerProcess) -> sqlite3.Connection:
    """A foreign connection that keeps all others from writing."""
    foreign = sqlite3.connect(server.folder / "server.db", isolation_level=None, check_same_thread=False, timeout=30)
    foreign.execute("BEGIN EXCLUSIVE")
    return foreign


def send_under_locks(server: ServerProcess, chance: random.Random, times: int) -> int:
    """Each message comes while a foreign lock holds, for less than the timeout; how many are kept: all."""
    told: list[Any] = []
    for _ in range(times):
        foreign = holder(server)
        release = threading.Timer(chance.uniform(0.05, 1.0), foreign.close)
        release.start()
        answer = send(server).json()
        release.join()
        assert "result" in answer, answer
        told.append(answer["result"]["task"]["id"])
    kept = [task_id for task_id in told if server.call("GetTask", {"id": task_id})["id"] == task_id]
    assert kept == told
    return len(kept)


def test_a_lock_shorter_than_the_timeout_is_waited_for(server: Sabotaged) -> None:
    seed, chance = seeded()
    kept = send_under_locks(server.start_with(), chance, TIMES)
    figures = f"{TIMES} times for 0.05 to 1 s: {kept} of {TIMES} answered, 0 errors, 0 lost"
    report("R12", "a foreign lock below the timeout", figures, seed=seed)


def test_server_that_does_not_wait_for_a_lock_is_found_out(server: Sabotaged) -> None:
    """The positive control."""
    _, chance = seeded()
    server.start_with("wait for no lock")
    with pytest.raises(AssertionError, match="-32051"):
        send_under_locks(server, chance, 1)


def test_a_lock_longer_than_the_timeout_is_a_typed_503_and_reads_go_on(server: Sabotaged) -> None:
    server.start_with()
    before = send(server).json()["result"]["task"]["id"]
    foreign = holder(server)

    response = send(server)

    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (503, -32051)
    assert int(response.headers["Retry-After"]) >= 1
    assert "locked" not in response.text.lower() and "sqlite" not in response.text.lower()
    assert server.call("GetTask", {"id": before})["id"] == before
    foreign.close()
    assert "result" in send(server).json()
    report("R12", "a foreign lock above the timeout", "503 with Retry-After, reads went on, the next write succeeded")


def is_refused(second: ServerProcess, holder: int) -> bool:
    """Whether it ends with the code for that, and says who holds the file."""
    try:
        second.start()
    except AssertionError as told:
        assert f"in use by process {holder}" in str(told)
        return second.terminate() == EX_TEMPFAIL  # it has ended by itself
    finally:
        second.close()
    return False


def test_a_second_server_on_the_same_file_refuses_and_says_who_holds_it(server: Sabotaged) -> None:
    server.start_with()
    refused = sum(is_refused(ServerProcess(server.folder), server.pid) for _ in range(SECOND_SERVERS))
    assert refused == SECOND_SERVERS
    assert "result" in send(server).json(), "the first one is none the worse"
    report(
        "R12", "a second server on the same file", f"{refused} of {SECOND_SERVERS} refused (exit 75, names the holder)"
    )


def test_second_server_that_takes_the_file_is_found_out(server: Sabotaged) -> None:
    """The positive control."""
    server.start_with()
    second = Sabotaged(server.folder)
    second.env[VARIABLE] = "share the file"
    assert not is_refused(second, server.pid)
