"""Judging by schemas in child processes: bounded in time and memory, shared by owners, gone at the end."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from core.executors import judges as module
from core.executors.judges import Judges, Undecided
from core.executors.schema import violation
from core.executors.schema_worker import NICENESS
from core.loop import large_values
from core.model.errors import NoRoom

INTEGERS = {"items": {"type": "integer"}}
ENDLESS: tuple[dict[str, Any], str] = ({"pattern": "^(a|aa)+$"}, "a" * 60 + "b")


@pytest_asyncio.fixture
async def judges() -> AsyncIterator[Judges]:
    made = Judges(processes=1)
    yield made
    await made.close()


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.asyncio
async def test_judgement_is_that_of_this_process(judges: Judges) -> None:
    for value in ([1, 2], [1, "x"], 5, {"a": None}, "ü" * 1000):
        assert await judges.violation("a", INTEGERS, value, "inputs") == violation(INTEGERS, value, "inputs")
    assert await judges.unusable("a", [INTEGERS, {"type": 5}]) == [
        None,
        "is not a usable JSON Schema: 5 is not valid under any of the given schemas",
    ]


@pytest.mark.asyncio
async def test_process_is_started_when_it_is_needed_and_used_again(judges: Judges) -> None:
    before = children()
    await judges.violation("a", INTEGERS, [1], "inputs")
    (started,) = children() - before
    await judges.violation("b", INTEGERS, [1], "inputs")
    assert children() - before == {started}
    await judges.close()
    assert children() == before
    with pytest.raises(Undecided, match="stopping"):
        await judges.violation("a", INTEGERS, [1], "inputs")


@pytest.mark.asyncio
async def test_process_gives_way_to_the_server_that_serves_everybody(judges: Judges) -> None:
    before = children()
    await judges.violation("a", INTEGERS, [1], "inputs")
    (started,) = children() - before
    assert psutil.Process(started).nice() == min(19, psutil.Process().nice() + NICENESS)


@pytest.mark.asyncio
async def test_endless_judgement_is_killed_and_the_next_one_is_done() -> None:
    """Found from outside: a check against a caller's schema blocked the event loop and could not be stopped."""
    judges = Judges(processes=1, seconds=0.5)
    try:
        before = children()
        with pytest.raises(Undecided, match=r"takes more than 0\.5 s"):
            await judges.violation("a", *ENDLESS, "inputs")
        assert children() == before
        assert await judges.violation("a", INTEGERS, [1], "inputs") is None
    finally:
        await judges.close()


@pytest.mark.asyncio
async def test_judgement_that_takes_too_much_memory_is_given_up() -> None:
    judges = Judges(processes=1, memory=300 * 1024 * 1024, seconds=30)  # memory comes first, on a busy machine too
    try:
        with pytest.raises(Undecided, match="memory"):
            await judges.violation("a", {"items": {}}, [[]] * 10_000_000, "inputs")
        assert await judges.violation("a", INTEGERS, [1], "inputs") is None
    finally:
        await judges.close()


@pytest.mark.asyncio
async def test_value_that_cannot_be_sent_is_told(judges: Judges) -> None:
    with pytest.raises(Undecided, match="not a JSON value"):
        await judges.violation("a", INTEGERS, object(), "inputs")
    assert await judges.violation("a", INTEGERS, [1], "inputs") is None


@pytest.mark.asyncio
async def test_owners_take_turns(judges: Judges) -> None:
    ended: list[str] = []

    async def judge(owner: str) -> None:
        await judges.violation(owner, INTEGERS, [1], "inputs")
        ended.append(owner)

    await asyncio.gather(*(judge(owner) for owner in "aaaaabbc"))
    assert "".join(ended) == "aabcabaa"  # the first one ran when the others came


@pytest.mark.asyncio
async def test_one_owner_may_have_so_many_waiting(judges: Judges, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    asked = [asyncio.ensure_future(judges.violation("a", INTEGERS, [n], "inputs")) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(NoRoom, match="of your values wait"):
        await judges.violation("a", INTEGERS, [1], "inputs")
    assert await judges.violation("b", INTEGERS, [1], "inputs") is None
    assert await asyncio.gather(*asked) == [None] * 3


@pytest.mark.asyncio
async def test_judgement_that_nobody_waits_for_any_more_is_stopped() -> None:
    judges = Judges(processes=1, seconds=10_000)
    try:
        await judges.violation("a", INTEGERS, [1], "inputs")
        endless = asyncio.ensure_future(judges.violation("a", *ENDLESS, "inputs"))
        waiting = asyncio.ensure_future(judges.violation("a", *ENDLESS, "inputs"))
        await asyncio.sleep(0)
        waiting.cancel()
        endless.cancel()
        await asyncio.wait([waiting, endless])
        assert endless.cancelled() and waiting.cancelled()
        async with asyncio.timeout(30):
            assert await judges.violation("a", INTEGERS, [1], "inputs") is None
    finally:
        await judges.close()


@pytest.mark.asyncio
async def test_closing_tells_those_who_wait() -> None:
    judges = Judges(processes=1)
    before = children()
    asked = [asyncio.ensure_future(judges.violation("a", *ENDLESS, "inputs")) for _ in range(2)]
    await asyncio.sleep(0)
    await judges.close()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(each) for each in found] == ["the server is stopping"] * 2
    assert children() == before


@pytest.mark.asyncio
async def test_process_that_cannot_be_started_is_told(judges: Judges, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)"):
        monkeypatch.setattr(module, "_PROGRAM", program)
        with pytest.raises(Undecided, match="no process could be started"):
            await judges.violation("a", INTEGERS, [1], "inputs")


@pytest.mark.asyncio
@pytest.mark.parametrize("value", [["x" * 1_000] * 1_000, [1] * 10_000, [10**398] * 1_000])
async def test_large_values_are_encoded_beside_the_loop(judges: Judges, value: Any, monkeypatch: Any) -> None:
    """Before the other process saw a byte of it, 10 MiB of texts held the loop for 25 ms, and of integers for 216."""
    used: list[bool] = []

    def watched(content: Any) -> bytes:
        used.append(threading.current_thread() is not threading.main_thread())
        return large_values.encoded(content)

    monkeypatch.setattr(module, "encoded", watched)
    schema = {"items": {"type": "object"}, "maxItems": 1}
    assert await judges.violation("a", schema, value, "inputs") == violation(schema, value, "inputs")
    assert await judges.violation("a", schema, [1], "inputs") == violation(schema, [1], "inputs")
    assert used == [True, False]
