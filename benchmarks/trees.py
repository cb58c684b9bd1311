"""Trees: made over HTTP, and run beside SQLite's own floor (benchmarks/tree.py) and beside apflow."""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import tree
from benchmarks.processes import HERE, OURS, PEERS, SERVER_CORE, python_of, running
from benchmarks.rows import Effort, Row, median, spread
from benchmarks.wire import call

SIZE = 10_000
LARGE, SMALL = 100_000, 1_000
API = "session"  # in one step from the array to the end of the run
APFLOW_SIZES = {"fan": (10, 200), "pure chain": (10, 50)}
RATES = {"fan": 5_000, "pure chain": 2_000}  # tasks a second
TOLD = {"fan": "fan", "pure chain": "chain", "chain": "chain whose tasks may have effects"}
APFLOW_LIMIT = 120.0  # seconds


def create_row(effort: Effort) -> Row:
    """tasks.create of one large tree."""
    items = [{"id": "root", "name": "root"}]
    items += [{"id": f"t{n}", "name": "noop", "parent_id": "root"} for n in range(SIZE - 1)]
    seconds = []
    for _ in range(effort.rounds):
        with tempfile.TemporaryDirectory() as folder, running(OURS, Path(folder)) as server:
            begin = time.perf_counter()
            call(server.port, "tasks.create", items)
            seconds.append(time.perf_counter() - begin)
    bar = f"tasks.create of a tree of {SIZE:,} tasks over HTTP ≤ 1.0 s"
    return Row(bar, spread(seconds, " s", 2), "durable when it answers", median(seconds) <= 1.0)


def apflow(shape: str) -> str:
    """What apflow does in a second, at two sizes."""
    if not (PEERS / "apflow" / "bin" / "python").exists():
        return "apflow is not installed in .peers"
    said = []
    for n in APFLOW_SIZES[shape]:
        command = ["taskset", "--cpu-list", str(SERVER_CORE), python_of("apflow"), str(HERE / "peers/apflow_tree.py")]
        try:
            ran = subprocess.run(
                [*command, shape.removeprefix("pure "), str(n)],
                capture_output=True,
                text=True,
                check=True,
                timeout=APFLOW_LIMIT,
            )
        except subprocess.TimeoutExpired:
            said.append(f"none in {APFLOW_LIMIT:g} s at n = {n}")
        except subprocess.CalledProcessError as error:
            said.append(f"no run at n = {n} ({error.stderr.strip().splitlines()[-1][:80]})")
        else:
            said.append(f"{n / float(ran.stdout.split()[-1]):.0f}/s at n = {n}")
    return f"apflow {', '.join(said)}"


def run_rows(effort: Effort) -> list[Row]:
    rows = []
    for shape, rate in RATES.items():
        seconds, floor, _ = tree.measure(API, shape, SIZE, 1 if effort.is_quick else 3)
        measured, share = SIZE / seconds, floor / seconds
        beside = f"{share:.0%} of raw sqlite3 at {SIZE / floor:,.0f}/s"
        holds, bar = measured >= rate, f"{TOLD[shape]} of {SIZE:,} tasks: ≥ {rate:,} tasks/s"
        if shape == "fan":
            holds, bar = holds and share >= 0.3, f"{bar}, ≥ 30 % of raw sqlite3"
        if not effort.is_quick:
            beside += f"; {apflow(shape)}"
        rows.append(Row(bar, f"{measured:,.0f} tasks/s", beside, holds))
    return rows


def commits_row() -> Row:
    """A chain of which each link waits for its commit: no bar, the disk's speed is most of it."""
    seconds, floor, _ = tree.measure(API, "chain", SIZE, 3)
    beside = f"{floor / seconds:.0%} of raw sqlite3 with a commit for each link, at {SIZE / floor:,.0f}/s"
    return Row(f"{TOLD['chain']}, {SIZE:,} of them", f"{SIZE / seconds:,.0f} tasks/s", beside, None)


def growth_rows() -> list[Row]:
    """Whether a task in a large tree costs more than one in a small tree."""
    rows = []
    for shape in TOLD:
        small, _, _ = tree.measure(API, shape, SMALL, 3)
        large, _, memory = tree.measure(API, shape, LARGE, 1)
        growth = (large / LARGE) / (small / SMALL)
        rows.append(
            Row(
                f"{TOLD[shape]}: a task at {LARGE:,} costs ≤ 1.2 × one at {SMALL:,}; ≤ 600 MB",
                f"{growth:.2f} ×, {memory:.0f} MB",
                f"{1e6 * large / LARGE:.0f} µs beside {1e6 * small / SMALL:.0f} µs",
                growth <= 1.2 and memory <= 600,
            )
        )
    return rows


def measure(effort: Effort) -> list[Row]:
    rows = [create_row(effort), *run_rows(effort)]
    return rows if effort.is_quick else [*rows, commits_row(), *growth_rows()]
