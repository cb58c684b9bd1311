"""A running tree on the terminal: live where there is one, else a line for each event."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from a2a_server.cli.output import clean, text_of_parts

WAITING = ("input_required", "auth_required")
ENDED = ("completed", "failed", "cancelled", "rejected")
STYLES = {
    "pending": "dim",
    "in_progress": "cyan",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "rejected": "yellow",
    "input_required": "bold magenta",
    "auth_required": "bold magenta",
}
LABELS = {"in_progress": "running", "input_required": "asks", "auth_required": "asks"}
MAX_NOTE = 100  # characters of a message beside a task


@dataclass(slots=True)
class Node:
    """What is shown of one task."""

    name: str
    depth: int
    runs: bool = True  # whether it is more than a group
    status: str = "pending"
    progress: float = 0.0
    note: str = ""


@dataclass(slots=True)
class TreeView:
    """What is shown of a tree, kept up to date by its events. Tasks stand in the order of a walk through the tree."""

    root_id: str = ""
    nodes: dict[str, Node] = field(default_factory=dict)
    status: str = "in_progress"  # of the tree, when the view was made
    final: Mapping[str, Any] | None = None  # the event that ended the tree
    _counts: Counter[str] = field(default_factory=Counter)  # kept, since a tree of n tasks has 2n events and more

    def add(self, task_id: str, node: Node) -> None:
        """A task that was not shown before."""
        self.nodes[task_id] = node
        self._counts[node.status] += node.runs

    @property
    def progress(self) -> float:
        """0 to 1: the mean over the tasks that run something."""
        fractions = [1.0 if node.status in ENDED else node.progress for node in self.nodes.values() if node.runs]
        return sum(fractions) / len(fractions) if fractions else 0.0

    @property
    def counts(self) -> Counter[str]:
        return +self._counts

    @property
    def questions(self) -> dict[str, Node]:
        """The tasks that wait for an answer, by id."""
        return {task_id: node for task_id, node in self.nodes.items() if node.status in WAITING}

    @property
    def only_waits(self) -> bool:
        """Whether nothing can go on before somebody answers."""
        return not self._counts["in_progress"] and any(self._counts[status] for status in WAITING)

    @property
    def outcome(self) -> str:
        """The status it came to: of its end, else that of its open question, else as it was."""
        if self.final is not None:
            return str(self.final["status"])
        return next((node.status for node in self.questions.values()), self.status)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take an event of the stream (semantics §7) into account."""
        kind = event.get("type")
        self.root_id = self.root_id or str(event.get("root_task_id", ""))
        if kind == "final":
            self.final = event
            return
        if kind not in STREAMED:
            return
        task_id = str(event.get("task_id"))
        if (node := self.nodes.get(task_id)) is None:
            self.add(task_id, node := Node(str(event.get("name")), 0 if task_id == self.root_id else 1))
        self._counts[node.status] -= node.runs
        node.status = str(event.get("status") or node.status)
        self._counts[node.status] += node.runs
        if kind == "task_start":
            node.progress, node.note = 0.0, ""
        if event.get("progress") is not None:
            node.progress = float(event["progress"])
        if note := note_of(event):
            node.note = note


STREAMED = ("task_start", "progress", "artifact", "task_completed", "task_failed", "task_cancelled", "input_required")


def tree_view(tree: Mapping[str, Any]) -> TreeView:
    """The view of a tree as `tasks.tree` gives it: flat fields and nested `children`."""
    view = TreeView(str(tree["id"]), status=str(tree.get("tree_status", "in_progress")))
    waiting = [(tree, 0)]
    while waiting:
        task, depth = waiting.pop()
        runs = task.get("executor") is not None
        view.add(task["id"], Node(task["name"], depth, runs, task["status"], task.get("progress") or 0.0))
        waiting.extend((child, depth + 1) for child in reversed(task.get("children", ())))
    return view


def status_of(task: Mapping[str, Any]) -> str:
    """The status that is shown of a task: of a root, that of its tree."""
    return str(task.get("tree_status") or task["status"])


def note_of(event: Mapping[str, Any]) -> str:
    """What an event says in words, in one line."""
    for key in ("error", "question", "message"):
        if event.get(key):
            told = event[key]
            return clean(text_of_parts(told["parts"] if isinstance(told, dict) and "parts" in told else told))[:1000]
    if event.get("type") == "artifact":
        return clean(text_of_parts((event.get("artifact") or {}).get("parts", [])))[:1000]
    return ""


def event_line(event: Mapping[str, Any]) -> str:
    """An event as a line: time, what, which task, and what it says."""
    moment = str(event.get("timestamp") or "")
    clock = datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S") if moment else "        "
    fraction = event.get("progress")
    percent = f"{fraction:4.0%}" if event.get("type") == "progress" and fraction is not None else "    "
    kind = f"final: {event['status']}" if event.get("type") == "final" else str(event.get("type"))
    return f"{clock}  {kind:<17} {percent}  {clean(str(event.get('name')))}  {note_of(event)}".rstrip()


class Screen(Protocol):
    """Where a tree is shown while it runs."""

    def __enter__(self) -> "Screen": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Mapping[str, Any]) -> None:
        """Take one event into account."""
        ...


class PlainScreen:
    """A line for each event; with `out` None nothing is printed, and only the view is kept."""

    def __init__(self, view: TreeView, out: TextIO | None) -> None:
        self._view = view
        self._out = out

    def __enter__(self) -> "PlainScreen":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._out is not None:
            self._out.flush()

    def show(self, event: Mapping[str, Any]) -> None:
        self._view.apply(event)
        if self._out is not None:
            print(event_line(event), file=self._out, flush=True)


class LiveScreen:
    """The tree and a progress bar, redrawn in place ten times a second."""

    def __init__(self, view: TreeView, console: Console) -> None:
        self._view = view
        self._console = console
        self._lock = Lock()  # rich redraws from a thread of its own
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=10)

    def __enter__(self) -> "LiveScreen":
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            self._view.apply(event)

    def _draw(self) -> RenderableType:
        with self._lock:
            return drawing(self._view, self._console.size.height)


def screen(view: TreeView, *, silent: bool) -> Screen:
    """The screen that fits where standard output goes."""
    if silent or not sys.stdout.isatty():
        return PlainScreen(view, None if silent else sys.stdout)
    return LiveScreen(view, Console())


def drawing(view: TreeView, height: int) -> RenderableType:
    """The tree as far as it fits, what needs attention first, and the bar below it."""
    room = max(3, height - 4)
    nodes = list(view.nodes.values())
    if len(nodes) > room:
        order = {"failed": 0, "input_required": 0, "auth_required": 0, "in_progress": 1, "completed": 3}
        chosen = sorted(range(len(nodes)), key=lambda i: (order.get(nodes[i].status, 2), i))[: room - 1]
        nodes = [nodes[i] for i in sorted(chosen)]
    rows = [_row(node) for node in nodes]
    if hidden := len(view.nodes) - len(nodes):
        rows.append(Text(f"{'':12}and {hidden} more tasks", style="dim"))
    bar = Table.grid(padding=(0, 1))
    told = ", ".join(f"{count} {LABELS.get(status, status)}" for status, count in sorted(view.counts.items()))
    bar.add_row(ProgressBar(total=1.0, completed=view.progress, width=40), f"{view.progress:4.0%}", told)
    return Group(*rows, bar)


def _row(node: Node) -> Text:
    row = Text(no_wrap=True, overflow="ellipsis")
    row.append(f"{LABELS.get(node.status, node.status):<12}", STYLES.get(node.status, ""))
    row.append("  " * min(node.depth, 20) + clean(node.name), "bold" if not node.runs else "")
    if node.status == "in_progress" and 0 < node.progress < 1:
        row.append(f" {node.progress:.0%}", "cyan")
    if node.note and node.status != "completed":
        row.append(f"  {node.note[:MAX_NOTE]}", "dim")
    return row
