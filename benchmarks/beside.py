"""This checkout beside an earlier revision of it, in alternating rounds: how many times as fast it is.

Counts of calls (`scripts/cost`) say what a change needs; this says what it means on a clock. Ratios of neighbouring
rounds are compared, so that a machine whose pace drifts does not decide.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.load import Ask, put
from benchmarks.processes import LOAD_CORE, OURS, ROOT, Running, Subject, running
from benchmarks.wire import call, message, task_of

CONNECTIONS = 64
SECONDS = 1  # of load in one round
TASKS = 1_000  # of a tree

Measure = Callable[[Running], float]  # units of work a second


def send(server: Running) -> float:
    return put(server.port, Ask("SendMessage", "noop", "COMPLETED"), connections=CONNECTIONS, seconds=SECONDS).rate


def get(server: Running) -> float:
    task_id = task_of(call(server.port, "SendMessage", message("noop")))["id"]
    return put(server.port, Ask("GetTask", task_id, "COMPLETED"), connections=CONNECTIONS, seconds=SECONDS).rate


def fan(server: Running) -> float:
    return _tree(server, is_chain=False)


def chain(server: Running) -> float:
    return _tree(server, is_chain=True)


def _tree(server: Running, *, is_chain: bool) -> float:
    tasks = [{"id": "root", "name": "root"}]
    for n in range(TASKS):
        needs = {"dependencies": [f"t{n - 1}"]} if is_chain and n else {}
        tasks.append({"id": f"t{n}", "name": "noop", "parent_id": "root", **needs})
    begin = time.perf_counter()
    call(server.port, "tasks.execute", {"tasks": tasks, "wait": True})
    return TASKS / (time.perf_counter() - begin)


MEASURES: dict[str, Measure] = {"SendMessage": send, "GetTask": get, "fan": fan, "chain": chain}


def one_round(checkout: Path) -> dict[str, float]:
    """What a server from that checkout does, with this environment's libraries."""
    ours = "from a2a_server.__main__ import main; main()"  # `-m` would put the working directory first
    path = f"import sys; sys.path.insert(0, {str(checkout)!r}); sys.argv[0] = 'a2a-server'; {ours}"
    subject = Subject(OURS.name, (sys.executable, "-c", path, *OURS.command[3:]), OURS.durability)
    with tempfile.TemporaryDirectory() as folder, running(subject, Path(folder)) as server:
        return {name: measure(server) for name, measure in MEASURES.items()}


def _name_it(checkout: Path) -> None:
    """Let a revision from before the distribution was renamed find its version: it asks for the old name."""
    info = checkout / "a2a_server-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a2a-server\nVersion: 0\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="what git calls the earlier state, such as main or a commit")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "worktree", "add", "--detach", "-q", str(before), given.revision], cwd=ROOT, check=True)
        try:
            _name_it(before)
            rounds = []
            for _ in range(given.rounds):
                rounds.append((one_round(before), one_round(ROOT)))
                print(json.dumps([{name: round(rate) for name, rate in each.items()} for each in rounds[-1]]))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    for name in MEASURES:
        ratios = sorted(now[name] / then[name] for then, now in rounds)
        print(f"{name}: {median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f}, {len(ratios)} rounds)")


if __name__ == "__main__":
    main()
