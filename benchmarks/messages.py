"""SendMessage and GetTask: answers a second, and the latency of the slowest hundredth."""

import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.load import Ask, Load, put
from benchmarks.processes import ECHO, FASTA2A, OURS, SDK_MEMORY, SDK_SQLITE, Subject, running
from benchmarks.rows import Effort, Row, absent, median, spread
from benchmarks.wire import call, message, task_of

CONNECTIONS = 64
DONE = "TASK_STATE_COMPLETED"
SEND_BARS = ((SDK_SQLITE, 20.0), (SDK_MEMORY, 4.0), (FASTA2A, None), (ECHO, None))
GET_BARS = ((ECHO, 0.4), (SDK_SQLITE, None), (SDK_MEMORY, None))
P99 = 100.0  # milliseconds


def send(subject: Subject, seconds: int) -> Load:
    """One round of blocking SendMessage calls, each a task that does nothing. fasta2a does not wait for the task."""
    expect = '"result"' if subject in (ECHO, FASTA2A) else DONE
    with tempfile.TemporaryDirectory() as folder, running(subject, Path(folder)) as server:
        return put(server.port, Ask("SendMessage", "noop", expect), connections=CONNECTIONS, seconds=seconds)


def get(subject: Subject, seconds: int) -> Load:
    """One round of GetTask calls for a task that has ended."""
    with tempfile.TemporaryDirectory() as folder, running(subject, Path(folder)) as server:
        ask = Ask("GetTask", "0" * 36, '"result"')
        if subject is not ECHO:
            task_id = task_of(call(server.port, "SendMessage", message("noop")))["id"]
            ask = Ask("GetTask", task_id, DONE)
        return put(server.port, ask, connections=CONNECTIONS, seconds=seconds)


def measure(effort: Effort) -> list[Row]:
    rows = []
    for name, one_round, bars in (("SendMessage", send, SEND_BARS), ("GetTask", get, GET_BARS)):
        peers = [peer for peer, bar in bars if peer.is_installed and not (effort.is_quick and bar is None)]
        seen: defaultdict[str, list[Load]] = defaultdict(list)
        for _ in range(effort.rounds):
            for subject in (OURS, *peers):
                seen[subject.name].append(one_round(subject, effort.seconds))
        rates = {subject: [load.rate for load in loads] for subject, loads in seen.items()}
        ours = rates[OURS.name]
        for peer, bar in bars:
            wanted = f"{name}, {CONNECTIONS} connections: " + ("beside" if bar is None else f"≥ {bar:g} ×")
            if peer in peers:
                ratio = median(ours) / median(rates[peer.name])
                beside = f"{ratio:.1f} × {peer.name} at {spread(rates[peer.name], '/s')}; stored: {peer.durability}"
                holds = None if bar is None else ratio >= bar
                rows.append(Row(f"{wanted} {peer.name}", spread(ours, "/s"), beside, holds))
            elif not peer.is_installed:
                rows.append(absent(f"{wanted} {peer.name}", peer.name))
        if name == "SendMessage":
            slowest = [load.p99 for load in seen[OURS.name]]
            others = "; ".join(f"{peer.name} {spread([x.p99 for x in seen[peer.name]], ' ms')}" for peer in peers)
            holds = median(slowest) <= P99
            rows.append(Row(f"SendMessage: p99 ≤ {P99:g} ms", spread(slowest, " ms"), others, holds))
    return rows
