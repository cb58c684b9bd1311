"""What a server costs before it does anything: seconds to its first answer, and memory while it is idle."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import OURS, SDK_SQLITE, SERVER_CORE, Subject, resident, running
from benchmarks.rows import Effort, Row, median, spread

# The packages that the server cannot do without, imported alone: below that it cannot come.
FLOOR = (
    "import time; began = time.perf_counter()\n"
    "import starlette.applications, uvicorn, httptools, jsonrpcserver, sse_starlette, sqlalchemy, aiosqlite, msgspec\n"
    "import jsonschema, httpx2, psutil, joserfc, cryptography, typer\n"
    "print(open('/proc/self/status').read().partition('VmRSS:')[2].split()[0])\n"
)
IDLE = 1.0  # seconds after its first answer


def start(subject: Subject) -> tuple[float, float]:
    """Seconds from the start of the process to its first answer, and MB of memory a little later."""
    with tempfile.TemporaryDirectory() as folder, running(subject, Path(folder)) as server:
        time.sleep(IDLE)
        return server.answered_after, resident(server.pid) / 1024


def floor() -> tuple[float, float]:
    """Seconds and MB of a process that only imports the packages."""
    begin = time.perf_counter()
    command = ["taskset", "--cpu-list", str(SERVER_CORE), sys.executable, "-c", FLOOR]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - begin, json.loads(ran.stdout) / 1024


def measure(effort: Effort) -> list[Row]:
    peers = [SDK_SQLITE] if SDK_SQLITE.is_installed and not effort.is_quick else []
    seen: dict[str, list[tuple[float, float]]] = {"floor": [], **{each.name: [] for each in (OURS, *peers)}}
    for _ in range(effort.rounds):
        seen["floor"].append(floor())
        for subject in (OURS, *peers):
            seen[subject.name].append(start(subject))
    seconds = {name: [each for each, _ in found] for name, found in seen.items()}
    memory = {name: [each for _, each in found] for name, found in seen.items()}
    others = [name for name in seen if name != OURS.name]

    def beside(values: dict[str, list[float]], unit: str, digits: int) -> str:
        names = {"floor": "importing its packages alone"}
        return "; ".join(f"{names.get(name, name)} {spread(values[name], unit, digits)}" for name in others)

    ours = OURS.name
    is_soon, is_small = median(seconds[ours]) <= 0.8, median(memory[ours]) <= 90
    return [
        Row("start to the first answer ≤ 0.8 s", spread(seconds[ours], " s", 2), beside(seconds, " s", 2), is_soon),
        Row("idle memory ≤ 90 MB", spread(memory[ours], " MB"), beside(memory, " MB", 0), is_small),
    ]
