"""What every storage promises about trees that have ended (`core.storage.base`), and the SQL behind it."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.model import events as e
from core.model.compaction import compact
from core.model.errors import TaskNotFound, VersionConflict
from core.model.events import Event, Recorded
from core.model.task import TaskStatus, TreeHead
from core.storage import retire
from core.storage.base import Append, Document, EndedQuery, EndedTree, EventQuery, LogPart, Storage
from core.storage.sqlite import retirement
from core.storage.sqlite.dialect import DIALECT, QUERIES
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.sql import SqlStorage
from tests.core.contents import artifact
from tests.core.storage.samples import created, finished, recorded, started

ALL = EndedQuery(until=1e9)


def said(head: TreeHead, *events: Event) -> Append:
    """The append after `head` that says these things."""
    after = replace(head, version=head.version + len(events), is_live=True)
    told = [recorded(after, head.version + n, event) for n, event in enumerate(events, 1)]
    return Append(head=after, events=tuple(told), tasks=())


def pieces(tree_id: str, count: int) -> list[Event]:
    return [e.ArtifactAdded(tree_id, 1, artifact("a", str(n)), append=n > 0) for n in range(count)]


async def ended_tree(storage: Storage, tree_id: str, *, at: float = 1000.0, count: int = 3) -> TreeHead:
    """A tree with artifacts that has ended at that time."""
    first = created(tree_id)
    start = started(first.head, first.tasks[0])
    chunks = said(start.head, *pieces(tree_id, count))
    end = finished(chunks.head)
    end = replace(end, head=replace(end.head, updated_at=at))
    for append in (first, start, chunks, end):
        await storage.append(append)
    return end.head


def part_of(head: TreeHead, after: int = 0, until: int | None = None) -> LogPart:
    return LogPart(head.id, head.version, after, head.version - 1 if until is None else until)


async def log_of(storage: Storage, tree_id: str) -> Sequence[Recorded]:
    return list(await storage.events(EventQuery(tree_id=tree_id, limit=100_000)))


@pytest.mark.asyncio
async def test_the_ended_are_found_by_their_end(storage: Storage) -> None:
    """Neither what runs, nor what waits for an answer, nor what never ran, nor what ended a moment ago."""
    heads = [
        await ended_tree(storage, name, at=at) for name, at in (("b", 20.0), ("a", 20.0), ("c", 10.0), ("d", 99.0))
    ]
    draft, running, asking = created("draft"), created("running"), created("asking")
    start = started(running.head, running.tasks[0])
    question = said(asking.head, e.InputRequested("asking", 1, ()))
    asks = replace(question, head=replace(question.head, status=TaskStatus.INPUT_REQUIRED))
    for append in (draft, running, start, asking, asks):
        await storage.append(append)

    found = await storage.ended(EndedQuery(until=20.0))

    assert [ended.head for ended in found] == [heads[2], heads[1], heads[0]]
    assert {ended.compacted for ended in found} == {0}
    first = await storage.ended(EndedQuery(until=20.0, limit=2))
    assert first == found[:2]
    assert await storage.ended(EndedQuery(until=20.0, limit=2, after=first[-1].key)) == found[2:]


@pytest.mark.asyncio
async def test_a_compacted_log_keeps_what_remains(storage: Storage) -> None:
    head = await ended_tree(storage, "t", count=5)
    await ended_tree(storage, "o")
    await storage.compact([])
    before, others = await log_of(storage, "t"), await log_of(storage, "o")

    await storage.compact([part_of(head)])

    assert await storage.compacted("t") == head.version - 1
    assert await storage.compacted("o") == await storage.compacted("x") == 0
    log = await log_of(storage, "t")
    assert log == [*compact(before[:-1]), before[-1]]
    assert [recorded.seq for recorded in log] == [3, head.version]
    assert await storage.events(EventQuery(tree_id="t", after=3)) == [before[-1]]
    assert await storage.events(EventQuery(tree_id="t", until=3)) == [log[0]]
    assert await storage.events(EventQuery(tree_id="t", kinds=["artifact_added"])) == [log[0]]
    assert await log_of(storage, "o") == others
    assert [(ended.head.id, ended.compacted) for ended in await storage.ended(ALL)] == [
        ("o", 0),
        ("t", head.version - 1),
    ]


@pytest.mark.parametrize("cut", [6, 3])
@pytest.mark.asyncio
async def test_a_log_is_compacted_part_by_part(storage: Storage, cut: int) -> None:
    """What remains of the first part is no part of the second, also where it stands at the cut."""
    head = await ended_tree(storage, "t", count=8)
    before = await log_of(storage, "t")

    await storage.compact([part_of(head, 0, cut)])
    await storage.compact([part_of(head, cut)])

    assert await log_of(storage, "t") == [*compact(before[:cut]), *compact(before[cut:-1]), before[-1]]
    await storage.compact([part_of(head, cut)])
    assert await storage.compacted("t") == head.version - 1
    assert len(await log_of(storage, "t")) == 3, "what is compacted already is left alone"


@pytest.mark.asyncio
async def test_a_tree_that_went_on_is_neither_compacted_nor_dropped(storage: Storage) -> None:
    """The look was before; in the order of the writes the new run came first."""
    head = await ended_tree(storage, "t")
    again = said(head, e.RunStarted("t", 2))
    await storage.append(again)
    before = await log_of(storage, "t")

    await storage.compact([part_of(head), part_of(again.head)])
    assert await storage.drop([head, again.head]) == []

    assert await storage.compacted("t") == 0
    assert await log_of(storage, "t") == before


@pytest.mark.asyncio
async def test_many_are_compacted_and_dropped_at_once_and_what_went_on_hinders_none(storage: Storage) -> None:
    went_on, one, two = [await ended_tree(storage, name) for name in ("a", "b", "c")]
    await storage.append(said(went_on, e.RunStarted("a", 2)))
    before = {head.id: await log_of(storage, head.id) for head in (one, two)}

    await storage.compact([part_of(went_on), part_of(one), part_of(two)])

    for head in (one, two):
        assert await log_of(storage, head.id) == [*compact(before[head.id][:-1]), before[head.id][-1]]
        assert await storage.compacted(head.id) == head.version - 1
    assert sorted(await storage.drop([went_on, one, two])) == ["b", "c"]
    for head in (one, two):
        assert await log_of(storage, head.id) == []
        assert await storage.compacted(head.id) == 0


@pytest.mark.asyncio
async def test_a_compacted_tree_runs_again(storage: Storage) -> None:
    head = await ended_tree(storage, "t")
    await storage.compact([part_of(head)])
    again = said(head, e.RunStarted("t", 2))
    end = finished(again.head)

    await storage.append(again)
    await storage.append(end)
    await storage.compact([part_of(end.head, head.version - 1)])

    assert [recorded.seq for recorded in await log_of(storage, "t")] == [3, end.head.version]
    assert await storage.compacted("t") == end.head.version - 1


@pytest.mark.asyncio
async def test_the_dropped_are_gone_and_the_others_stay(storage: Storage) -> None:
    one, two, stays = [await ended_tree(storage, name) for name in ("one", "two", "stays")]
    await storage.compact([part_of(two), part_of(stays)])
    for tree_id in ("one", "stays", ""):
        await storage.put_documents(Document(kind="note", id=f"of {tree_id}", tree_id=tree_id, body=b"1"))

    assert sorted(await storage.drop([one, two, one])) == ["one", "two"]
    assert await storage.drop([one]) == []

    for tree_id in ("one", "two"):
        assert await storage.load(tree_id) is await storage.task(tree_id) is None
        assert await log_of(storage, tree_id) == []
        assert await storage.compacted(tree_id) == 0
    assert await storage.document("note", "of one") is None
    assert await storage.document("note", "of stays") is not None
    assert await storage.document("note", "of ") is not None
    assert await storage.load("stays") is not None
    assert [recorded.seq for recorded in await log_of(storage, "stays")] == [3, stays.version]
    assert await storage.sweep(100) is False
    with pytest.raises(TaskNotFound):
        await storage.put_documents(Document(kind="note", id="late", tree_id="one", body=b"1"))
    with pytest.raises(VersionConflict):
        await storage.append(said(one, e.RunStarted("one", 2)))


@pytest.mark.asyncio
async def test_a_compacted_tree_is_deleted_by_its_caller(storage: Storage) -> None:
    head = await ended_tree(storage, "t")
    await storage.compact([part_of(head)])

    assert await storage.delete("t") is True

    assert await storage.compacted("t") == 0
    await ended_tree(storage, "t")
    assert await storage.compacted("t") == 0


# The file


@pytest_asyncio.fixture
async def file(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


def whole(path: Path) -> None:
    assert examine(path).problems == ()


def spoiled(path: Path, statement: str) -> tuple[str, ...]:
    """What a check says after somebody changed the file."""
    foreign = sqlite3.connect(path)
    with foreign:
        assert foreign.execute(statement).rowcount > 0
    foreign.close()
    return examine(path).problems


@pytest.mark.asyncio
async def test_a_long_log_is_swept_after_its_tree_and_the_file_is_whole_at_each_step(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retire, "MAX_EVENTS", 10)
    storage = SqlStorage(str(file))
    await storage.open()
    head = await ended_tree(storage, "t", count=20)
    await ended_tree(storage, "o")
    whole(file)
    await storage.compact([part_of(head, 0, 2)])
    whole(file)

    assert await storage.drop([head]) == ["t"]
    whole(file)
    assert await storage.head("t") is None
    left = []
    while await storage.sweep(9):
        whole(file)
        left.append(len(await log_of(storage, "t")))
    assert left == [12, 3, 0]
    await storage.close()
    assert spoiled(file, "DELETE FROM events WHERE tree_id = 'o' AND seq = 2") == ("the log of tree o has gaps",)


@pytest.mark.parametrize(("limit", "swept"), [(7, 0), (6, 1)])
@pytest.mark.asyncio
async def test_a_log_goes_with_its_tree_up_to_a_length_of_which_what_was_compacted_is_no_part(
    file: Path, monkeypatch: pytest.MonkeyPatch, limit: int, swept: int
) -> None:
    """Of its 13 events 7 are left: one artifact of five chunks, the other five, and the end."""
    monkeypatch.setattr(retire, "MAX_EVENTS", limit)
    storage = SqlStorage(str(file))
    await storage.open()
    head = await ended_tree(storage, "t", count=10)
    await storage.compact([part_of(head, 0, 7)])
    assert (head.version, len(await log_of(storage, "t"))) == (13, 7)

    await storage.drop([head])

    whole(file)
    assert await storage.sweep(100) is bool(swept)
    assert await log_of(storage, "t") == []
    assert await storage.sweep(100) is False
    await storage.close()
    whole(file)


@pytest.mark.asyncio
async def test_a_sweep_that_comes_after_another_finds_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its write, in the order of the writes."""
    monkeypatch.setattr(retire, "MAX_EVENTS", 10)
    storage = SqlStorage(str(file))
    await storage.open()
    await storage.drop([await ended_tree(storage, "t", count=20)])
    assert storage._writer is not None
    sweeps = [storage._writer.submit(lambda connection: retirement.sweep_logs(connection, 100)) for _ in range(2)]
    assert await asyncio.gather(*sweeps) == [True, False]
    await storage.close()
    whole(file)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM events WHERE tree_id = 't' AND seq = 3", "the log of tree t has gaps"),
        ("DELETE FROM events WHERE tree_id = 't' AND seq > 3", "the log of tree t has gaps"),
        ("DELETE FROM compactions WHERE tree_id = 't'", "the log of tree t has gaps"),
        ("UPDATE compactions SET kept = 2 WHERE tree_id = 't'", "The stored compaction of tree t is corrupt"),
        ("UPDATE compactions SET tree_id = 'x' WHERE tree_id = 't'", "The stored compaction of tree x is corrupt"),
        ("DELETE FROM events WHERE tree_id = 'd' AND seq = 5", "log of the dropped tree d has gaps"),
        ("DELETE FROM compactions WHERE tree_id = 'd'", "13 rows of events belong to no tree"),
        ("DELETE FROM trees WHERE id = 't'", "1 rows of compactions belong to no tree"),
    ],
)
@pytest.mark.asyncio
async def test_what_is_missing_from_a_compacted_file_is_found(
    file: Path, monkeypatch: pytest.MonkeyPatch, statement: str, told: str
) -> None:
    """Compacting must not make the check at start blind for lost rows."""
    monkeypatch.setattr(retire, "MAX_EVENTS", 10)
    storage = SqlStorage(str(file))
    await storage.open()
    await storage.compact([part_of(await ended_tree(storage, "t"))])
    await storage.drop([await ended_tree(storage, "d", count=10)])
    await storage.close()
    whole(file)

    assert any(told in problem for problem in spoiled(file, statement))


@pytest.mark.asyncio
async def test_a_log_that_cannot_be_read_is_left_alone(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = SqlStorage(str(file))
    await storage.open()
    broken, sound = await ended_tree(storage, "broken"), await ended_tree(storage, "sound")
    foreign = sqlite3.connect(file, isolation_level=None)
    foreign.execute("UPDATE events SET body = x'7b7d' WHERE tree_id = 'broken' AND seq = 2")
    foreign.close()

    await storage.compact([part_of(broken)])
    assert await storage.compacted("broken") == 0
    await storage.compact([part_of(broken), part_of(sound)])

    assert [await storage.compacted(name) for name in ("broken", "sound")] == [0, sound.version - 1]
    assert "event 2 of tree broken is corrupt" in caplog.text
    await storage.close()


@pytest.mark.asyncio
async def test_the_statements_find_their_rows_by_index(file: Path) -> None:
    """A scan would grow with the file, and stand in everybody's way."""
    storage = SqlStorage(str(file))
    await storage.open()
    await storage.close()
    connection = sqlite3.connect(file)
    texts = [
        *(
            QUERIES._ended[0].sql,
            QUERIES._ended[1].sql,
            retirement.LOG_PARTS.sql,
            retirement.PRESENT.sql,
            QUERIES.any_dropped[0],
        ),
        *(
            str(statement.compile(dialect=DIALECT))
            for statement in (
                *(
                    retirement.DELETE_EVENTS,
                    retirement.DELETE_LOGS,
                    retirement.DELETE_COMPACTIONS,
                    retirement.DELETE_TASKS,
                ),
                *(retirement.DELETE_TREES, retirement.DELETE_DOCUMENTS),
            )
        ),
    ]
    for text in texts:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", ["0"] * text.count("?"))]
        tables = ("trees", "tasks", "events", "documents", "compactions")
        assert not [step for step in plan if step.removeprefix("SCAN ") in tables], (text, plan)
        assert not [step for step in plan if "TEMP B-TREE" in step and "trees" in text.split("WHERE")[0]], (text, plan)
    connection.close()


def test_an_ended_tree_knows_its_place() -> None:
    head = TreeHead(id="t", created_at=1.0, updated_at=2.0)
    assert EndedTree(head, 0).key == (2.0, "t")
