"""One tree as its follower sees it over the lives of a server: what it was told, and whether all of that is so."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

from tests.acceptance.process import ServerProcess

TERMINAL = {"completed", "failed", "cancelled", "rejected"}


def plan(chance: random.Random, tasks: int) -> list[dict[str, Any]]:
    """So many tasks, the root among them, with effects, waits, priorities, and up to three earlier ones needed."""
    planned: list[dict[str, Any]] = [{"id": "root", "name": "root"}]
    kinds = ["work"] * 5 + ["noop"] * 2 + ["effect"] * 2 + ["effect_once"]
    for n in range(tasks - 1):
        kind = chance.choice(kinds)
        # What may end with "outcome unknown" is taken optionally, so that the rest of the tree can go on.
        earlier = chance.sample(range(n), min(n, chance.choice([0, 0, 1, 1, 2, 3])))
        needs = [{"id": f"t{i}", "required": planned[i + 1]["name"] != "effect_once"} for i in earlier]
        planned.append({
            "id": f"t{n}", "name": kind, "parent_id": "root", "priority": chance.randrange(4), "dependencies": needs,
        })  # fmt: skip
    return planned


class Story:
    """A tree that runs, and what its follower has seen."""

    def __init__(self, server: ServerProcess, tasks: list[dict[str, Any]]) -> None:
        self._server = server
        self._size = len(tasks)
        self.root: str = server.call("tasks.create", tasks)["root_task_id"]
        self._told: list[int] = []
        self._results: dict[str, Any] = {}
        assert server.call("tasks.execute", {"task_id": self.root})["success"] is True

    @property
    def last(self) -> int:
        """The number of the last event that was told."""
        return self._told[-1] if self._told else 0

    def follow(self, until: int | None = None) -> bool:
        """Go on where the last stream ended, up to that event; whether the end of the tree was told."""
        after = self._told[-1] if self._told else None
        for seq, event in self._server.events(self.root, after):
            if event["type"] == "stream_end":
                return True
            self._told.append(seq)
            if event["type"] == "task_completed":
                self._results[event["task_id"]] = event["result"]
            if until is not None and seq >= until:
                break
        return False

    def check(self) -> int:
        """All has ended, results are as they were told, each event was told once; how many outcomes are unknown."""
        tasks = self._server.call("tasks.tree", {"task_id": self.root})["children"]
        assert len(tasks) == self._size - 1
        assert {task["status"] for task in tasks} <= TERMINAL, Counter(task["status"] for task in tasks)
        by_id = {task["id"]: task for task in tasks}
        for task_id, result in self._results.items():
            if task_id in by_id:
                assert by_id[task_id]["result"] == result, "a completed result changed"
        unknown = [task for task in tasks if task["status"] == "failed"]
        others = [task for task in unknown if task["name"] != "effect_once"]
        assert others == [], others[:3]
        assert {task["status"] for task in tasks if task["name"] != "effect_once"} == {"completed"}
        log = [event["seq"] for event in self._server.log_of(self.root)]
        assert self._told == sorted(set(self._told)), "an event was told twice or out of order"
        assert self._told == log, "what the follower saw is not the log"
        return len(unknown)


def check_effects(folder: Path) -> int:
    """That no effect that must not happen twice did; how many different ones there were."""
    ledger = Counter((folder / "ledger").read_text().split("\n"))
    assert all(count == 1 for line, count in ledger.items() if line.startswith("once ")), "an effect happened twice"
    assert sum(line.startswith("effect ") for line in ledger) > 0
    return len(ledger)
