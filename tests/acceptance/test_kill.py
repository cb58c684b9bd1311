"""kill -9 in the middle of a tree: nothing is lost or stuck, and nobody is told anything twice (R1, small)."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ServerProcess

KILLS = 20
TASKS = 200
TERMINAL = {"completed", "failed", "cancelled", "rejected"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path)
    process.start()
    yield process
    process.close()


def plan(chance: random.Random) -> list[dict[str, Any]]:
    """200 tasks with effects, waits, priorities, and dependencies on up to three earlier ones."""
    tasks: list[dict[str, Any]] = [{"id": "root", "name": "root"}]
    kinds = ["work"] * 5 + ["noop"] * 2 + ["effect"] * 2 + ["effect_once"]
    for n in range(TASKS - 1):
        kind = chance.choice(kinds)
        # What may end with "outcome unknown" is taken optionally, so that the rest of the tree can go on.
        earlier = chance.sample(range(n), min(n, chance.choice([0, 0, 1, 1, 2, 3])))
        needs = [{"id": f"t{i}", "required": tasks[i + 1]["name"] != "effect_once"} for i in earlier]
        tasks.append({
            "id": f"t{n}", "name": kind, "parent_id": "root", "priority": chance.randrange(4), "dependencies": needs,
        })  # fmt: skip
    return tasks


def test_every_tree_survives_a_kill(server: ServerProcess) -> None:
    """20 trees, one kill each at a random event: terminal all, results untouched, each event told exactly once."""
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    once_unknown = 0
    for _ in range(KILLS):
        once_unknown += survive_one_kill(server, chance)
    ledger = Counter((server.folder / "ledger").read_text().split("\n"))
    assert all(count == 1 for line, count in ledger.items() if line.startswith("once ")), "an effect happened twice"
    assert sum(line.startswith("effect ") for line in ledger) > 0
    print(f"{KILLS} kills, {once_unknown} at-most-once tasks with an unknown outcome, {len(ledger)} effect keys")


def survive_one_kill(server: ServerProcess, chance: random.Random) -> int:
    root = server.call("tasks.create", plan(chance))["root_task_id"]
    assert server.call("tasks.execute", {"task_id": root})["success"] is True
    last_before_kill = chance.randrange(2, 2 * TASKS)
    told: list[int] = []
    results: dict[str, Any] = {}
    for seq, event in server.events(root):
        if event["type"] == "stream_end":
            break
        told.append(seq)
        if event["type"] == "task_completed":
            results[event["task_id"]] = event["result"]
        if seq >= last_before_kill:
            break
    server.kill()
    server.start()
    is_over = False
    for seq, event in server.events(root, after=told[-1]):
        if event["type"] == "stream_end":
            is_over = True
            break
        told.append(seq)
    assert is_over, "the stream did not reach its end"

    tree = server.call("tasks.tree", {"task_id": root})
    tasks = tree["children"]
    assert len(tasks) == TASKS - 1
    assert {task["status"] for task in tasks} <= TERMINAL, Counter(task["status"] for task in tasks)
    by_id = {task["id"]: task for task in tasks}
    for task_id, result in results.items():
        if task_id in by_id:
            assert by_id[task_id]["result"] == result, "a completed result changed"
    unknown = [task for task in tasks if task["status"] == "failed"]
    assert all(task["name"] == "effect_once" for task in unknown), unknown[:1]
    assert {task["status"] for task in tasks if task["name"] != "effect_once"} == {"completed"}

    log = [event["seq"] for event in server.log_of(root)]
    assert told == sorted(set(told)), "an event was told twice or out of order"
    assert told == log, "what the follower saw is not the log"
    return len(unknown)
