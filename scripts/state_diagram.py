"""Writes docs/states.md from the transition table, so that the picture cannot be wrong. `--check` only compares."""

import sys
from pathlib import Path

from core.model.task import INTERRUPTED, TERMINAL, TRANSITIONS, TaskStatus

DOCUMENT = Path(__file__).parent.parent / "docs" / "states.md"

MEANINGS = {
    TaskStatus.PENDING: "Stored; waits for its dependencies or for a free slot.",
    TaskStatus.IN_PROGRESS: "An attempt runs, or the next one waits for its moment after a failure.",
    TaskStatus.INPUT_REQUIRED: "The executor asked its caller a question; nothing runs until the answer comes.",
    TaskStatus.AUTH_REQUIRED: "The same, and the answer is a credential.",
    TaskStatus.COMPLETED: "It has a result (which may be nothing), or was skipped (`cause`).",
    TaskStatus.FAILED: "It will not be tried again in this run; `error` says why.",
    TaskStatus.CANCELLED: "Somebody cancelled it, or a task that it requires did not complete.",
    TaskStatus.REJECTED: "The executor declined it.",
}
A2A = {
    TaskStatus.PENDING: "SUBMITTED",
    TaskStatus.IN_PROGRESS: "WORKING",
    TaskStatus.CANCELLED: "CANCELED",
}

HEAD = """# The states of a task

Made by `scripts/state_diagram.py` from `TRANSITIONS` in [`core/model/task.py`](../core/model/task.py); a test compares
the two. Nothing else changes a status. Within one run a terminal status is final, also for a late worker. When a tree
is executed again, the tasks that run again begin as pending.
"""


def document() -> str:
    """The whole page."""
    moves = [(source, target) for source in TaskStatus for target in TaskStatus if target in TRANSITIONS[source]]
    diagram = ["    [*] --> pending"]
    diagram += [f"    {source} --> {target}" for source, target in moves]
    diagram += [f"    {status} --> [*]" for status in TaskStatus if status in TERMINAL]
    rows = [
        f"| `{status}` | {MEANINGS[status]} | {_kind(status)} | `TASK_STATE_{A2A.get(status, status.name)}` |"
        for status in TaskStatus
    ]
    return "\n".join(
        [
            HEAD,
            "```mermaid",
            "stateDiagram-v2",
            *diagram,
            "```",
            "",
            "| status | meaning | kind | in A2A |",
            "|---|---|---|---|",
            *rows,
            "",
            "| from | to |",
            "|---|---|",
            *(f"| `{source}` | {_targets(source)} |" for source in TaskStatus),
            "",
        ]
    )


def _kind(status: TaskStatus) -> str:
    return "terminal" if status in TERMINAL else "waits for the caller" if status in INTERRUPTED else "open"


def _targets(source: TaskStatus) -> str:
    return ", ".join(f"`{target}`" for target in TaskStatus if target in TRANSITIONS[source]) or "nothing"


def main() -> int:
    """Write the page; with `--check` say whether it is current."""
    if "--check" in sys.argv[1:]:
        if DOCUMENT.exists() and DOCUMENT.read_text("utf-8") == document():
            return 0
        print(f"{DOCUMENT} is not what core/model/task.py says: run scripts/state_diagram.py", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
