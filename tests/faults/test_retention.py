"""R25: tasks come and go, and neither the process nor the file keeps anything of them."""

import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from core.storage.sqlite.commit_marker import noted_commit
from core.storage.sqlite.integrity import examine
from tests.faults.report import report

KILLS = int(os.environ.get("RETENTION_KILLS", "3"))
TASKS = int(os.environ.get("RETAINED_TASKS", "12000"))
COMPACT_AFTER, DELETE_AFTER = 300, 1_000  # tasks
MIB = 1024 * 1024
Sample = dict[str, int]


def churn(folder: Path, count: int, compact_after: int, delete_after: int) -> list[Sample]:
    """What a server held at each tenth of so many tasks; at the end, when all had ended, once more."""
    arguments = [str(folder), str(count), str(compact_after), str(delete_after)]
    done = subprocess.run([sys.executable, "-m", "tests.faults.churn", *arguments], capture_output=True, check=True)
    samples: list[Sample] = json.loads(done.stdout)
    return samples


@pytest.mark.slow
def test_a_million_tasks_leave_no_more_than_the_first_ten_thousand(tmp_path: Path) -> None:
    samples = churn(tmp_path, TASKS, COMPACT_AFTER, DELETE_AFTER)

    # By then the first ones have been removed; with many tasks that is after 10,000 of them.
    first = next(each for each in samples if each["tasks"] >= min(10_000, TASKS // 2))
    last = samples[-1]
    largest, log = (max(each[kind] for each in samples) for kind in ("bytes", "log"))
    grown = (last["rss"] - first["rss"]) / MIB
    report(
        "R25",
        "tasks created, finished, compacted and removed",
        f"{TASKS} tasks; memory {last['rss'] / MIB:.0f} MiB, {grown:+.1f} MiB since task {first['tasks']}; file "
        f"{first['bytes'] / MIB:.1f} MiB then, {largest / MIB:.1f} MiB at most, its log {log / MIB:.0f} MiB; "
        f"{last['trees']} tasks held at the end; "
        f"objects {last['objects'] - first['objects']:+d}, threads {last['threads'] - first['threads']:+d}, open files "
        f"{last['files'] - first['files']:+d}",
    )
    assert grown <= 50
    assert largest <= 3 * first["bytes"]
    assert log <= 96 * MIB
    assert last["objects"] <= 1.05 * first["objects"]
    assert (last["threads"], last["files"]) == (first["threads"], first["files"])
    assert last["coroutines"] <= 4, "the test's own, retention's, and none of a task"
    assert last["trees"] < TASKS * 9 // 10
    verdict = examine(tmp_path / "tasks.db")
    assert verdict.is_complete and verdict.problems == ()


def test_without_retention_the_file_grows(tmp_path: Path) -> None:
    """The positive control."""
    samples = churn(tmp_path, 8_000, 0, 0)

    first, last = samples[0], samples[-1]
    report(
        "R25", "control without retention", f"file {first['bytes'] / MIB:.1f} MiB, then {last['bytes'] / MIB:.1f} MiB"
    )
    assert last["trees"] == 8_000
    assert last["bytes"] > 2 * first["bytes"]


def test_a_kill_at_any_moment_of_retention_leaves_a_whole_file(tmp_path: Path) -> None:
    """Every batch is a transaction that leaves the file as the check at start wants it."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    for _ in range(KILLS):
        command = [sys.executable, "-m", "tests.faults.churn", str(tmp_path), "1000000", "50", "100"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not compacted(tmp_path):
                pause(process)
            until = batches(tmp_path) + chance.randrange(50)
            while batches(tmp_path) < until:
                pause(process)
            process.kill()
        verdict = examine(tmp_path / "tasks.db")
        assert verdict.is_complete and verdict.problems == ()
    report("R25", "kills while logs are compacted and trees removed", f"{KILLS} of {KILLS} files whole", seed=seed)


def pause(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.01)


def compacted(folder: Path) -> bool:
    """Whether the log of any tree is compacted at the moment."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'tasks.db'}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM compactions LIMIT 1").fetchone() is not None
    except sqlite3.OperationalError:  # it is being made
        return False


def batches(folder: Path) -> int:
    """How many commits there were that were more than appends: those of retention."""
    note = noted_commit(folder / "tasks.db")
    return 0 if note is None else note.number
