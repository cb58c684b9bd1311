"""`a2a-server push` against a real server process whose webhooks lead nowhere."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess, free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """Nobody listens at the webhook, and an event is given up after its first attempt."""
    settings = {"A2A_SERVER_PUSH_MAX_AGE": "0.000001", "A2A_SERVER_PUSH_RETRY_INITIAL": "0.01"}
    process = ServerProcess(tmp_path, "--egress-allow", "127.0.0.1", env=settings).start()
    yield process
    process.close()


def push(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "a2a_server", "push", *arguments, "--url", server.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_given_up_is_listed_and_sent_again(server: ServerProcess) -> None:
    webhook = {"url": f"http://127.0.0.1:{free_port()}/hook"}
    tree = server.call("tasks.execute", {"tasks": [{"name": "noop"}], "wait": True, "webhook_config": webhook})
    while len(server.call("push.deliveries")["deliveries"]) < 2:
        server.call("system.health")

    listed = push(server, "list", "-o", "json")
    letters = json.loads(listed.stdout)
    assert listed.returncode == 0 and {each["task_id"] for each in letters} == {tree["id"]}
    assert letters[0]["error"] == "could not connect"
    assert letters[0]["delivery_id"] in push(server, "list").stdout
    assert push(server, "list", "--status", "waiting").returncode == 0

    again = push(server, "resend", "--all", "-o", "json")
    assert again.returncode == 1
    assert [each["delivered"] for each in json.loads(again.stdout)] == [False] * len(letters)
    neither = push(server, "resend")
    assert neither.returncode == 2 and "--all" in neither.stderr
