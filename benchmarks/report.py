"""Writes docs/performance.md: the bars, what was measured, and on what."""

import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.cost_page import with_costs
from benchmarks.processes import PEERS, ROOT, python_of
from benchmarks.rows import Effort, Row

HEAD = """# Performance

`scripts/bench` measures this server, the servers that a user could choose instead, and a lower bound for each kind of
work, in one run on one machine, and writes this page. Each server runs alone on one core while the other core makes the
load. The rounds alternate between the servers; the figures are medians, with the lowest and the highest round in
parentheses. This server stores everything in SQLite with a write-ahead log and `synchronous=FULL`. The SDK's SQLite
store gets the same settings; it is slower with SQLite's defaults (a rollback journal). Compare ratios: absolute figures
depend on the machine and the day.

"""


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def peer_versions() -> list[str]:
    """Name and version of each peer that is installed."""
    found = []
    for venv, package in (("sdk", "a2a-sdk"), ("fasta2a", "fasta2a"), ("apflow", "apflow")):
        if not (PEERS / venv / "bin" / "python").exists():
            continue
        script = f"from importlib.metadata import version; print(version('{package}'))"
        ran = subprocess.run([python_of(venv), "-c", script], capture_output=True, text=True, check=True)
        found.append(f"{package} {ran.stdout.strip()}")
    return found


def machine(cores: int) -> str:
    with Path("/proc/meminfo").open() as lines:
        memory = int(next(lines).split()[1]) / 2**20
    return f"{cores} cores of {cpu()}, {memory:.0f} GB, Linux {platform.release().split('-')[0]}"


def write(path: Path, rows: Sequence[Row], effort: Effort, cores: int, seconds: float) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    facts = [
        ("Date", datetime.now(UTC).strftime("%Y-%m-%d")),
        ("Commit", commit or "unknown"),
        ("Machine", machine(cores)),
        ("Versions", f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"),
        ("Peers", ", ".join(peer_versions()) or "none installed"),
        ("Load", "wrk" if shutil.which("wrk") else "benchmarks/load.py"),
        ("Run", f"{'--quick: ' if effort.is_quick else ''}{effort.rounds} rounds, {seconds / 60:.1f} minutes"),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts), ""]
    lines += ["| bar | measured | beside | |", "|---|---|---|---|"]
    lines += [f"| {row.bar} | {row.measured} | {row.beside} | {row.verdict} |" for row in rows]
    path.write_text(with_costs(HEAD + "\n".join(lines) + "\n"))
