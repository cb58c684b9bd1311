"""Which events of a long log a snapshot of a task is made of, so that it has a bounded number of bytes. Pure.

It is decided by what is known without reading what the events carry: their numbers, kinds, tasks and sizes.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from core.events import KINDS
from core.node_status import FAILURES, TELLING
from core.storage.base import EventPlace

SNAPSHOT_BYTES: Final = 30 * 1024 * 1024  # of JSON: the longest question or last word, result and message fit together
HISTORY_BYTES: Final = 8 * 1024 * 1024  # of the messages of its history; the latest one may be larger
ERROR_BYTES: Final = 1024 * 1024  # of what says why nodes ended
EMPTY_BYTES: Final = 1024  # of an event from which on it surely carries a result
PLACES: Final = 100_000  # events that are looked at, from the latest one backwards

MESSAGES: Final = ("message_received", "message_sent")
_TELLING: Final = frozenset(KINDS[kind] for kind in TELLING)


class Selection(NamedTuple):
    """The numbers of the events to be read, in order, and their bytes; and what is left out of the snapshot."""

    seqs: tuple[int, ...]
    size: int
    history_from: int  # the number of the oldest message that the history shows
    cut: tuple[str, ...]  # "artifacts", "history", "message": what is not all there


class _Budget:
    """What is chosen so far, and how many bytes may follow."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.seqs: set[int] = set()
        self.cut: set[str] = set()

    def take(self, places: Sequence[EventPlace], what: str) -> bool:
        """Choose all of them, or none where they are too large together."""
        size = sum(place.size for place in places)
        if size > self.left:
            self.cut.add(what)
            return False
        self.left -= size
        self.seqs.update(place.seq for place in places)
        return True


def select(
    places: Sequence[EventPlace],
    task_id: str,
    *,
    is_root: bool,
    history_length: int | None = None,
    with_artifacts: bool = True,
    most: int = SNAPSHOT_BYTES,
) -> Selection:
    """What is worth most is chosen first: the status and its message, results, artifacts, then the latest messages.

    `places`: the events of the kinds that a snapshot needs, the latest first, and not more than PLACES of them.
    """
    budget = _Budget(most)
    log = places[::-1]
    _take_status(log, task_id, is_root=is_root, budget=budget)
    if with_artifacts:
        _take_output(places, budget)
    history_from = _take_history(places, history_length, budget)
    return Selection(tuple(sorted(budget.seqs)), most - budget.left, history_from, tuple(sorted(budget.cut)))


def select_output(places: Sequence[EventPlace], most: int = SNAPSHOT_BYTES) -> Selection:
    """What the artifacts of a node are made of, from its output alone."""
    budget = _Budget(most)
    _take_output(places, budget)
    return Selection(tuple(sorted(budget.seqs)), most - budget.left, 0, tuple(sorted(budget.cut)))


def _take_status(log: Sequence[EventPlace], task_id: str, *, is_root: bool, budget: _Budget) -> None:
    """The open question, why nodes ended, what was said last; and what says the status of a node."""
    if (asked := open_question(log)) is not None:
        budget.take([asked], "message")
    errors = [place for place in log if place.kind in FAILURES]
    _take_some((place for place in reversed(errors) if place.task_id == task_id), budget)
    _take_some(errors, budget)
    telling = [place for place in log if place.kind in _TELLING]
    if telling and not is_root and telling[-1].seq not in budget.seqs:
        budget.take(telling[-1:], "message")
    said = [place for place in log if place.kind == "message_sent"]
    if said and said[-1].seq not in budget.seqs:
        budget.take(said[-1:], "message")


def _take_some(places: Iterable[EventPlace], budget: _Budget) -> None:
    left = ERROR_BYTES
    for place in places:
        if place.seq in budget.seqs:
            continue
        left -= place.size
        if left < 0 or not budget.take([place], "message"):
            return


def open_question(log: Sequence[EventPlace]) -> EventPlace | None:
    """The oldest question that waits for its answer."""
    waiting: dict[str, EventPlace] = {}
    for place in log:
        if place.kind == "input_requested":
            waiting[place.task_id] = place
        elif place.kind in _TELLING and place.kind != "message_sent":
            waiting.pop(place.task_id, None)
    return next(iter(waiting.values()), None)


def _take_output(places: Sequence[EventPlace], budget: _Budget) -> None:
    """The latest result of each node, then the pieces of each one's artifacts, all of them or none."""
    results: list[EventPlace] = []
    known: set[str] = set()  # nodes whose latest result is among them; one of nothing leaves that before it in force
    pieces: dict[str, list[EventPlace]] = {}
    for place in places:
        if place.kind == "task_completed" and place.task_id not in known:
            results.append(place)
            if place.size > EMPTY_BYTES:
                known.add(place.task_id)
        elif place.kind == "artifact_added":
            pieces.setdefault(place.task_id, []).append(place)
    for result in results:
        if result.seq not in budget.seqs:
            budget.take([result], "artifacts")
    if len(places) >= PLACES and pieces:  # of some artifact the first pieces may not be among them
        budget.cut.add("artifacts")
        return
    for of_node in pieces.values():
        budget.take(of_node, "artifacts")


def _take_history(places: Sequence[EventPlace], length: int | None, budget: _Budget) -> int:
    """The latest messages; the number of the oldest one of them."""
    said = [place for place in places if place.kind in MESSAGES]
    wanted = said if length is None else said[:length]
    history_from = places[0].seq + 1 if places else 0
    left = HISTORY_BYTES
    for n, place in enumerate(wanted):
        # One that is read for the status, too, is told twice.
        left -= place.size
        if (n and left < 0) or not budget.take([place], "history"):
            budget.cut.add("history")
            return history_from
        history_from = place.seq
    if len(places) >= PLACES and len(wanted) == len(said):
        budget.cut.add("history")
    return history_from
