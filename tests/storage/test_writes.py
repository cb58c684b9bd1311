"""What one write weighs (`core.storage.writes`)."""

import asyncio

import pytest
from msgspec.structs import replace

from core.storage import writes
from core.storage.base import Append
from core.storage.writes import Write, is_one_batch, weight
from tests.storage.samples import created


def write(work: Append | writes.Job) -> Write:
    loop = asyncio.new_event_loop()
    try:
        return Write(loop.create_future(), work, 0, "owner", ("t",))
    finally:
        loop.close()


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
        ([100_000], True),
        ([1, 1, 1], True),
        ([1] * writes.MAX_BATCH, True),
        ([1] * (writes.MAX_BATCH + 1), False),
        ([writes.TRANSACTION_ROWS, 1], False),
        ([1, writes.TRANSACTION_ROWS], False),
    ],
)
def test_few_and_small_writes_are_one_batch(sizes: list[int], is_one: bool) -> None:
    whole = created("t")
    assert is_one_batch([write(replace(whole, tasks=whole.tasks * size)) for size in sizes]) is is_one
