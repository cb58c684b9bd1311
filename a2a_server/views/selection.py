"""Which events of a long log a snapshot of a task is made of, so that it has a bounded number of bytes. Pure.

It is decided by what is known without reading what the events carry: their numbers, kinds, tasks and sizes.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from a2a_server.views.translate import OUTPUT, Shown
from core.model.events import KINDS
from core.model.node_status import ENDS, FAILURES, TELLING
from core.model.task import TaskStatus
from core.storage.base import EventPlace

SNAPSHOT_BYTES: Final = 30 * 1024 * 1024  # of JSON: the longest question or last word, result and message fit together
HISTORY_BYTES: Final = 8 * 1024 * 1024  # of the messages of its history; the latest one may be larger
ERROR_BYTES: Final = 1024 * 1024  # of what says why nodes ended
EMPTY_BYTES: Final = 1024  # of an event from which on it surely carries a result or a piece of an artifact
FEW_BYTES: Final = 100 * 1024  # of shorter ones that are read to see whether they carry something
PLACES: Final = 100_000  # events that are looked at, from the latest one backwards

MESSAGES: Final = ("message_received", "message_sent", "input_requested")
_TELLING: Final = frozenset(KINDS[kind] for kind in TELLING)


class Selection(NamedTuple):
    """The numbers of the events to be read, in order, and their bytes; and what the snapshot shows of them."""

    seqs: tuple[int, ...]
    size: int
    shown: Shown


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
    status: TaskStatus | None,
    history_length: int | None = None,
    with_artifacts: bool = True,
    most: int = SNAPSHOT_BYTES,
) -> Selection:
    """What is worth most is chosen first: the status and its message, results, artifacts, then the latest messages.

    `places`: the events of the kinds that a snapshot with artifacts needs, the latest first, and not more than PLACES
    of them. `status`: that of a tree for its root's snapshot; None for that of another node, whose events tell it.
    """
    budget = _Budget(most)
    question, word = _take_status(places, task_id, status, budget)
    if with_artifacts:
        _take_output(places, budget)
    history = _take_history(places, history_length, budget)
    shown = Shown(history, question, word, tuple(sorted(budget.cut)))
    return Selection(tuple(sorted(budget.seqs)), most - budget.left, shown)


def select_output(places: Sequence[EventPlace], most: int = SNAPSHOT_BYTES) -> Selection:
    """What the artifacts of a node are made of, from its output alone."""
    budget = _Budget(most)
    _take_output(places, budget)
    return Selection(tuple(sorted(budget.seqs)), most - budget.left, Shown(cut=tuple(sorted(budget.cut))))


def _take_status(
    places: Sequence[EventPlace], task_id: str, status: TaskStatus | None, budget: _Budget
) -> tuple[int, int]:
    """What says the status of a node, why nodes ended, and the status's message: the open question or the last word.

    From which numbers on that question and that word are to be looked for: behind all events, where there is none.
    """
    log = places[::-1]
    telling = next((place for place in places if place.kind in _TELLING), None)
    is_over = status.is_terminal if status is not None else telling is not None and telling.kind in ENDS
    is_waiting = (
        status.is_interrupted if status is not None else telling is not None and telling.kind == "input_requested"
    )
    none = places[0].seq + 1 if places else 0
    question = word = none
    if is_waiting and (asked := open_question(log)) is not None and budget.take([asked], "message"):
        question = asked.seq
    errors = [place for place in log if place.kind in FAILURES]
    _take_some((place for place in reversed(errors) if place.task_id == task_id), budget)
    _take_some(errors, budget)
    if status is None and telling is not None and telling.seq not in budget.seqs:
        budget.take([telling], "message")
    said = last_said(places, is_over=is_over)
    if said and question == none and budget.take(said, "message"):
        word = said[-1].seq
    return question, word


def last_said(places: Sequence[EventPlace], *, is_over: bool) -> list[EventPlace]:
    """What an executor said last, if the status may say it (`translate.last_word`), as the last of these.

    Before it come short events after it, the latest first: what they carry decides.
    """
    short: list[EventPlace] = []
    left = FEW_BYTES
    for place in places:
        if place.kind == "message_sent":
            return [*short, place]
        if place.kind == "input_requested":
            return []
        if is_over and place.kind in OUTPUT:
            left -= place.size
            if place.size > EMPTY_BYTES or left < 0:
                return []
            short.append(place)
    return []


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
    history_from = places[0].seq + 1 if places else 0
    if length == 0:
        return history_from
    count, left = 0, HISTORY_BYTES
    for place in places:
        if place.kind not in MESSAGES:
            continue
        if count == length:
            return history_from
        if place.seq not in budget.seqs:  # else the status tells it; the history does only where there was an error
            left -= place.size
            if (count and left < 0) or not budget.take([place], "history"):
                budget.cut.add("history")
                return history_from
            count += 1
        history_from = place.seq
    if len(places) >= PLACES:
        budget.cut.add("history")
    return history_from
