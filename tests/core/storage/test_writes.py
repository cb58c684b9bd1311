"""What one write weighs (`core.storage.writes`)."""

import asyncio
from contextlib import suppress

import pytest
from msgspec.structs import replace

from core.storage import writes
from core.storage.base import TRANSACTION_ROWS, Append
from core.storage.batch import Batch, RowsMissed
from core.storage.sqlite import statements
from core.storage.writes import Rows, Write, is_one_batch
from tests.core.storage.samples import created


def write(work: Append | writes.Job) -> Write:
    loop = asyncio.new_event_loop()
    try:
        return Write(loop.create_future(), work, 0, "owner", ("t",))
    finally:
        loop.close()


def weight(item: Write, rows: Rows | None = None) -> int:
    """What it weighs in the end, all pieces made."""
    rows = Rows() if rows is None else rows
    while not (weighed := rows.weigh(item)).is_whole:
        assert weighed.weight > 0
    return weighed.weight


def job(_: object) -> None:
    """A job that does nothing."""


def test_a_write_weighs_its_rows_and_its_bytes() -> None:
    first = created("t", 3)
    large = replace(first, tasks=(replace(first.tasks[0], inputs={"x": "x" * 100 * writes.ROW_BYTES}),))
    assert weight(write(first)) - 5 in (0, 1)  # what tasks without inputs have in bytes
    assert weight(write(large)) - (1 + 1 + 1 + 100) in (0, 1)
    assert weight(write(job)) == writes.JOB_WEIGHT


def test_what_cannot_be_stored_weighs_its_rows() -> None:
    first = created("t", 3)
    assert weight(write(replace(first, tasks=(replace(first.tasks[0], result=object()),)))) == 3


def test_an_append_stands_in_its_owners_line_and_a_job_where_it_says() -> None:
    assert write(created("t", owner="o")).line == ("o", ("t",))
    assert write(job).line == ("owner", ("t",))
    assert (write(created("t")).tree_id, write(job).tree_id) == ("t", "")


@pytest.mark.parametrize(
    ("sizes", "is_one"),
    [
        ([], True),
        ([100_000], False),  # made in pieces
        ([TRANSACTION_ROWS - 1], True),
        ([1, 1, 1], True),
        ([1] * writes.MAX_BATCH, True),
        ([1] * (writes.MAX_BATCH + 1), False),
        ([TRANSACTION_ROWS, 1], False),
        ([1, TRANSACTION_ROWS], False),
    ],
)
def test_few_and_small_writes_are_one_batch(sizes: list[int], is_one: bool) -> None:
    whole = created("t")
    assert is_one_batch([write(replace(whole, tasks=whole.tasks * size)) for size in sizes], Rows()) is is_one


def test_rows_made_before_are_those_that_a_batch_would_make() -> None:
    """Of new tasks whole rows, of others what has changed; of what was not made before they are made now."""
    first = created("t", TRANSACTION_ROWS)
    head = replace(first.head, version=first.head.version + 1)
    event = replace(first.events[-1], seq=head.version)
    later = replace(first, head=head, events=(event,), is_new=False)
    for appends in ([first], [first, later], [later]):
        rows = Rows()
        for append in appends:
            weight(write(append), rows)
        assert written(Batch(appends, {}, rows)) == written(Batch(appends, {}))
        rows.forget([write(append) for append in appends])
        assert not rows.making
        assert written(Batch(appends, {}, rows)) == written(Batch(appends, {}))


def written(batch: Batch) -> list[tuple[str, tuple[object, ...]]]:
    """The statements of a batch, with their parameters."""
    said: list[tuple[str, tuple[object, ...]]] = []
    with suppress(RowsMissed):
        statements.write(batch.steps(), lambda sql, parameters: said.append((sql, parameters)), lambda: 0)
    assert said
    return said


def test_a_row_is_made_once() -> None:
    rows, item = Rows(), write(created("t", TRANSACTION_ROWS))
    assert weight(item, rows) == weight(item, rows)
    assert isinstance(item.work, Append)
    made = rows.task_row(item.work.tasks[0])
    assert made is rows.task_row(item.work.tasks[0])
    rows.forget([item])
    assert not rows.making
    assert made is not rows.task_row(item.work.tasks[0])


def test_the_rows_of_a_large_write_are_made_in_pieces() -> None:
    rows, item = Rows(), write(created("t", TRANSACTION_ROWS + 2 * writes.PIECE))
    pieces = [rows.weigh(item) for _ in range(11)]
    assert [piece.is_whole for piece in pieces] == [False] * 10 + [True]
    assert sum(piece.weight for piece in pieces[:10]) <= pieces[10].weight


def test_what_cannot_be_stored_weighs_its_rows_also_where_they_are_many() -> None:
    first = created("t", TRANSACTION_ROWS)
    unstorable = replace(first, tasks=(*first.tasks, replace(first.tasks[0], result=object())))
    assert weight(write(unstorable)) >= TRANSACTION_ROWS
    unstorable = replace(first, tasks=(replace(first.tasks[0], inputs={"x": object()}), *first.tasks))
    assert weight(write(unstorable)) == len(unstorable.tasks) + 2
