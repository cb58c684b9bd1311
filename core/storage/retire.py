"""What retention makes of logs, whatever the database: how far one is compacted, and what goes with a dropped tree."""

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct

from core.model.compaction import compact
from core.model.errors import StorageError
from core.model.events import Recorded
from core.model.task import TreeHead
from core.storage import codec
from core.storage.base import EndedTree, LogPart
from core.storage.codec import Row
from core.storage.queries import BARE_HEAD_COLUMNS

MAX_EVENTS = 2_000  # of a dropped tree that go with it; those of a longer log are swept

_encode = msgspec.json.Encoder().encode


class Compaction(Struct, frozen=True):
    """How far a log is compacted. Of a dropped tree: what is left of its log."""

    tree_id: str
    seq: int = 0
    kept: int = 0
    is_dropped: bool = False


class Compacted(Struct, frozen=True):
    """A part of a log, and what becomes of it."""

    part: LogPart
    gone: tuple[int, ...]
    changed: tuple[Recorded, ...]
    kept: int


def compaction_row(state: Compaction) -> Row:
    """For a row of `compactions`."""
    values = state.tree_id, state.seq, state.kept, int(state.is_dropped)
    return *values, _crc(values)


def read_compaction(row: Sequence[Any]) -> Compaction:
    """From all columns. Raises StorageError when the row is corrupt."""
    *values, crc = row
    if _crc(values) != crc:
        raise StorageError(f"The stored compaction of tree {row[0]} is corrupt")
    tree_id, seq, kept, is_dropped = values
    return Compaction(tree_id, seq, kept, bool(is_dropped))


def _crc(values: Sequence[Any]) -> int:
    """Of the columns as the database gives them: in a damaged row of SQLite each may be of any type."""
    return crc32(_encode([int(value) if value is True or value is False else value for value in values]))


def read_ended(row: Sequence[Any]) -> EndedTree:
    """From a row of `Queries.ended_list`. Raises StorageError when it is corrupt."""
    width = len(BARE_HEAD_COLUMNS)
    head = codec.read_bare_head(row[:width])
    return EndedTree(head, 0 if row[width] is None else read_compaction(row[width:]).seq)


def compact_part(part: LogPart, rows: Sequence[Sequence[Any]]) -> Compacted:
    """What becomes of these events. Raises StorageError when one of them is corrupt."""
    log = sorted((codec.read_event(row) for row in rows), key=lambda recorded: recorded.seq)
    before = {recorded.seq: recorded for recorded in log}
    after = {recorded.seq: recorded for recorded in compact(log)}
    changed = tuple([recorded for seq, recorded in after.items() if recorded is not before[seq]])
    return Compacted(part, tuple([seq for seq in before if seq not in after]), changed, len(after))


class Changes(Struct, frozen=True):
    """What compacting writes."""

    gone: tuple[tuple[str, int], ...]  # events, by tree and number
    changed: tuple[Row, ...]  # events, of which the old rows are gone
    states: tuple[Row, ...]  # of `compactions`


def changes_of(compacted: Sequence[Compacted], present: Mapping[str, Compaction]) -> Changes:
    """Those of parts whose trees are as the parts say; `present` has the trees that are in the expected version."""
    gone: list[tuple[str, int]] = []
    changed: list[Row] = []
    states: list[Row] = []
    for each in compacted:
        part, state = each.part, present.get(each.part.tree_id)
        if state is None or state.seq != part.after:
            continue
        gone += [(part.tree_id, seq) for seq in each.gone]
        gone += [(part.tree_id, recorded.seq) for recorded in each.changed]
        changed += [codec.event_row(recorded) for recorded in each.changed]
        states.append(compaction_row(Compaction(part.tree_id, part.until, state.kept + each.kept)))
    return Changes(tuple(gone), tuple(changed), tuple(states))


def short_and_long(heads: Sequence[TreeHead], present: Mapping[str, Compaction]) -> tuple[list[str], list[Row]]:
    """Of dropped trees: those whose logs go with them, and the rows that say which logs are left to be swept."""
    short: list[str] = []
    left: list[Row] = []
    for head in heads:
        if (state := present.get(head.id)) is None:
            continue
        events_left = head.version - state.seq + state.kept
        if events_left > MAX_EVENTS:
            left.append(compaction_row(Compaction(head.id, head.version, events_left, is_dropped=True)))
        else:
            short.append(head.id)
    return short, left


def swept(state: Compaction, removed: int) -> Row:
    """The row of a dropped tree after so many of its events were removed, and some are left."""
    return compaction_row(Compaction(state.tree_id, state.seq, state.kept - removed, is_dropped=True))
