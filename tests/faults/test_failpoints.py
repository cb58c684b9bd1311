"""R1: the server kills itself at named points, again and again, and its trees come to their ends all the same."""

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.story import Story, check_effects, plan
from tests.acceptance.test_webhooks import SHORT, Receiver
from tests.acceptance.test_webhooks import send as send_with_webhook
from tests.acceptance.threads import serving
from tests.faults import sabotage
from tests.faults.report import report

TREES = int(os.environ.get("KILLED_TREES", "2"))
TASKS = int(os.environ.get("KILLED_TASKS", "200"))  # of each tree
AT_A_TIME = "8"  # tasks, so that a tree lasts for all of its kills
WHILE_A_TREE_RUNS = (
    "before a commit", "after a commit", "between a commit and its note", "in a checkpoint", "after an effect",
)  # fmt: skip
IN_A_MIGRATION = 15  # statements that make a new database


class Sabotaged(ServerProcess):
    """A server that may be told to kill itself, or to have a bug."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        super().__init__(folder, sabotage.__file__, *arguments, env=env)

    def start_with(self, *what: str) -> "Sabotaged":
        self.env[sabotage.VARIABLE] = ",".join(what)
        self.start()
        return self

    def await_death(self) -> None:
        """Wait until it has killed itself."""
        assert self.process is not None
        assert self.process.wait(60) == -signal.SIGKILL
        self.kill()  # reads the rest of the log


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sabotaged]:
    process = Sabotaged(tmp_path)
    yield process
    process.close()


def seeded() -> tuple[int, random.Random]:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    return seed, random.Random(seed)


def test_trees_survive_kills_at_each_point_and_at_any_moment(server: Sabotaged) -> None:
    seed, chance = seeded()
    unknown = 0
    restarts: list[float] = []
    server.env["A2A_SERVER_MAX_RUNNING"] = AT_A_TIME

    def start(*what: str) -> None:
        begin = time.monotonic()
        server.start_with(*what, "find no poison")
        restarts.append(time.monotonic() - begin)

    for _ in range(TREES):
        start()
        story = Story(server, plan(chance, TASKS))
        server.kill()
        for point in chance.sample(WHILE_A_TREE_RUNS, len(WHILE_A_TREE_RUNS)):
            start(f"{point}:{chance.randrange(1, 4)}")
            assert not story.follow(), f"the tree ended before the server had come to {point}"
            server.await_death()
            start()
            assert not story.follow(until=story.last + chance.randrange(TASKS // 5, TASKS // 3))
            server.kill()
        start()
        assert story.follow(), "the stream did not reach its end"
        unknown += story.check()
        server.kill()
    effects = check_effects(server.folder)
    kills = TREES * 2 * len(WHILE_A_TREE_RUNS)
    what = f"kills at any moment and {', '.join(WHILE_A_TREE_RUNS)}"
    figures = f"{kills} kills of {TREES} trees of {TASKS} tasks, 0 lost, 0 stuck, {effects} effects, {unknown} with an"
    figures += f" unknown outcome; back in {sorted(restarts)[int(0.99 * len(restarts))]:.1f} s (p99)"
    report("R1", what, figures, seed=seed)


def test_server_that_acknowledges_before_it_commits_is_found_out(server: Sabotaged) -> None:
    """The positive control."""
    _, chance = seeded()
    server.start_with()
    story = Story(server, plan(chance, TASKS))
    server.kill()
    server.start_with("acknowledge early", f"before a commit:{chance.randrange(3, 8)}")
    story.follow()
    server.await_death()
    server.start_with()

    with pytest.raises(AssertionError):
        story.follow()
        story.check()


@pytest.mark.parametrize("passage", [1, 2])
def test_cancel_that_was_not_answered_has_happened_or_has_not(server: Sabotaged, passage: int) -> None:
    """Killed before it is decided the task goes on; killed when it is durable it is cancelled, and stays so."""
    server.start_with(f"in a cancel:{passage}")
    running = server.call("tasks.execute", {"tasks": [{"name": "hang"}]})["root_task_id"]
    for _, event in server.events(running):
        if event["type"] == "progress":
            break
    with pytest.raises(httpx2.TransportError):
        server.call("tasks.cancel", {"task_ids": [running]})
    server.await_death()
    server.start_with()
    status = server.call("tasks.get", {"task_id": running})["status"]
    assert (status == "cancelled") is (passage == 2)
    server.call("tasks.cancel", {"task_ids": [running]})
    ends = [event for event in server.log_of(running) if event["type"] == "final"]
    assert len(ends) == 1 and server.call("tasks.get", {"task_id": running})["status"] == "cancelled"
    assert not (server.folder / "ledger").exists()


def test_migration_that_is_killed_anywhere_is_made_again(tmp_path: Path) -> None:
    seed, chance = seeded()
    passages = sorted(chance.sample(range(1, IN_A_MIGRATION + 1), 3))
    killed = [passage for passage in passages if dies_in_the_migration(tmp_path / str(passage), passage)]
    assert killed
    report("R1", "kills in a migration, at statement", ", ".join(map(str, killed)), seed=seed)


def dies_in_the_migration(folder: Path, passage: int) -> bool:
    """Whether there were so many statements; the next start must make all of it."""
    folder.mkdir()
    server = Sabotaged(folder)
    died = True
    try:
        server.start_with(f"in a migration:{passage}")
    except AssertionError:
        server.await_death()
    else:
        died = False
        server.kill()
    server.start_with()
    done: Any = server.call("tasks.execute", {"tasks": [{"name": "noop"}], "wait": True})
    server.close()
    assert done["status"] == "completed"
    return died


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    _, chance = seeded()
    with serving(Receiver(chance)) as it:
        yield it
        it.ended.set()


def test_webhooks_are_told_everything_in_order_though_the_server_dies_after_a_delivery(
    tmp_path: Path, receiver: Receiver
) -> None:
    server = Sabotaged(tmp_path, "--egress-allow", "127.0.0.1", env=dict(SHORT))
    server.start_with("in the outbox:2")
    with suppress(httpx2.TransportError):
        for n in range(3):
            send_with_webhook(server, receiver, n)
    server.await_death()
    server.start_with("in the outbox:1")
    server.await_death()
    server.start_with()
    sent = server.call("ListTasks", {})["tasks"]
    receiver.wait_for(len(sent), 60)
    server.close()

    assert sent
    for path in {path for path, _, _ in receiver.taken}:
        ids = dict.fromkeys(message_id for each, message_id, _ in receiver.taken if each == path)
        sequence = [tuple(map(int, message_id.split("_")[1:])) for message_id in ids]
        assert sequence == sorted(sequence), "events came out of order"
    report("R1", "2 kills between a delivery and its cursor", f"{len(sent)} of {len(sent)} tasks told to their ends")
