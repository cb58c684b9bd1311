"""What each client shows to its user, beside what the executor gave: `scripts/clients` runs this.

Each client has an environment of its own (`locks/client-NAME.txt`, `locks/js-NAME/`) and a driver that writes down what
the client shows. A cell of the table is `ok`, or the client's own fault by its number, or `WRONG`: then the run fails.
A fault that no longer shows fails the run as well, so that the list stays true.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.acceptance.process import ROOT, ServerProcess
from tests.clients.agent import EMOJI, FILE, SEPARATORS
from tests.clients.drivers.telling import PLAIN

DRIVERS = Path(__file__).parent / "drivers"
PAGE = ROOT / "docs" / "conformance.md"
START, END = "<!-- clients: written by scripts/clients -->\n", "<!-- /clients -->\n"
DATA = {"greeting": "Hello", "n": 3, "nested": {"list": [1, 2.5, None, True]}}
QUIET = {  # no client reports home, or asks the network for a table
    "CREWAI_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
}
BINDINGS = ("JSONRPC", "HTTP+JSON")
NO_DATA = "shows no data of a part that is neither text nor file"
NO_FILE = "shows no files"
NO_STREAM_FAILURE = "shows no status message of a stream, so neither an error nor a reason"
OWN_MESSAGE = "shows the last message of the history for a task without artifacts: the user's own"
MIXED = "calls the methods of v0.3 and reads the answers of v1.0 (`result.task`), so it sees nothing of either"
PLAIN_NAMES = tuple(text.partition(" ")[0] for text in PLAIN)
SPACES = "puts a space between the pieces of one text"


@dataclass(frozen=True)
class Client:
    """A client, its driver, and the faults that are its own by scenario; `~blocking` is the call without a stream."""

    name: str
    lock: str
    driver: str
    binding: str = "JSONRPC"
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        if self.driver.endswith(".mjs"):
            asked = json.loads((ROOT / "locks" / self.lock / "package.json").read_text("utf-8"))["dependencies"]
            return str(next(iter(asked.values())))
        asked = (ROOT / "locks" / f"{self.lock}.in").read_text("utf-8").splitlines()[0]
        return str(asked.partition("==")[2])


def sdk(version: str, binding: str = "JSONRPC", **faults: str) -> Client:
    driver = "sdk_v03.py" if version.startswith("0.") else "sdk_v1.py"
    return Client("a2a-sdk", f"client-sdk-{version}", driver, binding, faults)


CLIENTS = (
    *(sdk(version) for version in ("0.3.0", "0.3.10", "0.3.22", "0.3.26")),
    *(
        sdk(version, binding)
        for version in ("1.0.3", "1.1.5", "1.2.3", "1.3.0")
        for binding in ("JSONRPC", "HTTP+JSON")
    ),
    Client("@a2a-js/sdk", "js-0.3.14", "sdk_js.mjs"),
    Client("@a2a-js/sdk", "js-1.3.0", "sdk_js.mjs"),
    Client("@a2a-js/sdk", "js-1.3.0", "sdk_js.mjs", "HTTP+JSON"),
    Client("Strands", "client-strands", "strands_agent.py", faults={"data": NO_DATA, "file": NO_FILE}),
    Client("ADK", "client-adk", "adk_agent.py"),
    Client("ADK for JavaScript", "js-adk", "adk_js.mjs"),
    Client("CrewAI", "client-crewai", "crewai_agent.py", faults={"chunks": SPACES, "data": NO_DATA, "file": NO_FILE}),
    Client(
        "Agent Framework",
        "client-agent-framework",
        "agent_framework_agent.py",
        faults=dict.fromkeys(("fail", "reject", "fail~blocking", "reject~blocking"), OWN_MESSAGE),
    ),
    Client("BeeAI", "client-beeai", "beeai_agent.py", faults={"file": NO_FILE}),
    Client("LiteLLM", "client-litellm", "litellm_client.py"),
    Client("fasta2a", "client-fasta2a", "fasta2a_client.py", faults=dict.fromkeys((*PLAIN_NAMES, "ask"), MIXED)),
    Client(
        "AI SDK",
        "js-ai-sdk",
        "ai_sdk.mjs",
        faults=dict.fromkeys(("data", "data~blocking"), NO_DATA) | dict.fromkeys(("fail", "reject"), NO_STREAM_FAILURE),
    ),
)


def text(shown: list[Any]) -> str:
    return "".join(each for each in shown if isinstance(each, str))


def has_data(shown: list[Any]) -> bool:
    for each in shown:
        try:
            if (each["data"] if isinstance(each, dict) else json.loads(each)) == DATA:
                return True
        except (ValueError, KeyError):
            continue
    return False


def is_interim_right(shown: list[Any]) -> bool:
    """The result once and last; what was said on the way once at most."""
    whole = text(shown)
    return whole.endswith("Said and done") and whole.count("Said") == 1 and whole.count("Thinking about it") <= 1


def is_answer_right(report: dict[str, Any]) -> bool:
    is_told = text(report["shown"]) == "Hello, Ada!" and text(report["question"]) == "Who are you?"
    return is_told and report.get("history", ["ask", "Who are you?", "Ada"]) == ["ask", "Who are you?", "Ada"]


RIGHT: dict[str, Callable[[dict[str, Any]], bool]] = {
    "hello": lambda told: text(told["shown"]) == "Hello, hello there!",
    "separators": lambda told: text(told["shown"]) == SEPARATORS,
    "emoji": lambda told: text(told["shown"]) == EMOJI,
    "interim": lambda told: is_interim_right(told["shown"]),
    "chunks": lambda told: text(told["shown"]) == "one two three",
    "data": lambda told: has_data(told["shown"]),
    "file": lambda told: {"file": FILE.hex()} in told["shown"],
    "fail": lambda told: "the printer is on fire" in text(told["shown"]),
    "reject": lambda told: "not my job" in text(told["shown"]),
    "reply": lambda told: text(told["shown"]) == "a direct message",
    "slow": lambda told: text(told["shown"]) == "slow, but sure",
    "ask": is_answer_right,
    "wait": lambda told: told.get("state") == "CANCELED",
}


def environment(client: Client) -> list[str] | str:
    """The command that runs the client's driver, or why there is none."""
    place = ROOT / ".peers" / client.lock
    command = ["bash", str(ROOT / "scripts" / "_client.sh"), client.lock]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or ["cannot be installed"])[-1][:160]
    driver = str(DRIVERS / client.driver)
    return ["node", driver, str(place)] if driver.endswith(".mjs") else [str(place / "bin" / "python"), driver]


def reported(command: list[str], client: Client, url: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        env = {**os.environ, **QUIET, "REPORT": str(report), "HOME": folder}
        done = subprocess.run(
            [*command, url, client.binding], capture_output=True, text=True, timeout=600, cwd=folder, env=env
        )
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["no report"])[-1][:300]
            return {name: {"shown": [], "raised": last} for name in RIGHT}
        told: dict[str, Any] = json.loads(report.read_text("utf-8"))
        return told


def judged(client: Client, report: dict[str, Any], notes: list[str]) -> tuple[list[str], list[str]]:
    """The cells of a client's row, and what is wrong."""
    cells, wrong = [], []
    for scenario, is_right in RIGHT.items():
        found = [name for name in (scenario, f"{scenario}~blocking") if name in report]
        words = []
        for name in found:
            fault = client.faults.get(name)
            if is_right(report[name]):
                words.append("ok")
                if fault:
                    wrong.append(f"{name} is right, though listed as a fault of the client: {fault}")
            elif fault:
                if fault not in notes:
                    notes.append(fault)
                words.append(f"({notes.index(fault) + 1})")
            else:
                words.append("WRONG")
                wrong.append(f"{name}: {ascii(report[name])[:400]}")
        cells.append(" ".join(dict.fromkeys(words)) or "–")
    return cells, wrong


def table(rows: list[tuple[Client, list[str]]], missing: list[str], notes: list[str]) -> str:
    names = list(RIGHT)
    lines = [f"| client | version | binding | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    lines += [f"| {c.name} | {c.version} | {c.binding} | {' | '.join(cells)} |" for c, cells in rows]
    lines += ["", *(f"{n}. The client {note}." for n, note in enumerate(notes, 1))]
    lines += ["", *(f"* {each}" for each in missing)] if missing else []
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/clients", description=__doc__)
    parser.add_argument("only", nargs="*", help="names of clients or of their environments; all without")
    parser.add_argument("--write", action="store_true", help="write the table into docs/conformance.md")
    given = parser.parse_args()
    chosen = [each for each in CLIENTS if not given.only or {each.name, each.lock} & set(given.only)]
    if not chosen:
        parser.error(f"no client is called {' or '.join(given.only)}; there are {', '.join(c.lock for c in CLIENTS)}")
    rows, missing, notes, wrongs = [], [], list[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        agent = Path(__file__).parent / "agent.py"
        env = {"A2A_SERVER_SSE_PING": "0.5"}
        server = ServerProcess(Path(folder), "--default-skill", "tell", env=env, executors=agent).start()
        for client in chosen:
            command = environment(client)
            if isinstance(command, str):
                missing.append(f"{client.name} {client.version} is not here: {command}")
                print(missing[-1])
                continue
            cells, wrong = judged(client, reported(command, client, server.url), notes)
            rows.append((client, cells))
            print(f"{client.name} {client.version} {client.binding}: {' '.join(cells)}", flush=True)
            for line in wrong:
                print(f"    {line}", flush=True)
            wrongs += len(wrong)
        server.close()
    if given.write:
        before, _, rest = PAGE.read_text("utf-8").partition(START)
        after = rest.partition(END)[2]
        PAGE.write_text(before + START + table(rows, missing, notes) + END + after, "utf-8")
    print(f"{len(rows)} clients played, {len(missing)} not here, {wrongs} cells wrong")
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
