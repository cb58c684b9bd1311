"""Bytes in flight: who has taken how many, what they are, and that everything is given back."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.commands import ProvideInput
from core.model.errors import IllegalCommand, NoRoom, StorageUnavailable
from core.model.in_flight import SMALL, ByteBudget, Holdings, memory_of, memory_of_tasks
from core.model.task import Cause, Task, TaskStatus
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from tests.core.cores import Bench, begin, finish, item, tasks_of, virtual_time

BIG = "x" * 10_000

# Counting


def test_budget_is_shared_by_owner_and_in_all() -> None:
    budget = ByteBudget(60_000, 100_000)
    budget.take("a", 60_000)
    with pytest.raises(NoRoom, match="use 60000 bytes of memory; 1 more would exceed your 60000") as caught:
        budget.take("a", 1)
    assert caught.value.of_caller
    budget.take("b", 40_000)
    with pytest.raises(NoRoom, match="too much memory at the moment") as caught:
        budget.take("b", 10_000)
    assert not caught.value.of_caller
    budget.give("a", 60_000)
    budget.take("b", 20_000)
    assert (budget.of("a"), budget.of("b"), budget.taken) == (0, 60_000, 60_000)


def test_owners_with_much_do_not_keep_out_others_with_little() -> None:
    """Found later: two callers with large open trees left no room for others' small tasks."""
    budget = ByteBudget(100 * SMALL, 200 * SMALL)
    for owner in "ab":
        budget.take(owner, 100 * SMALL)
        with pytest.raises(NoRoom):
            budget.take(owner, 1)
    for _ in range(50):
        budget.take("c", SMALL)
    for owner, size in (("c", SMALL + 1), ("d", SMALL)):
        with pytest.raises(NoRoom):
            budget.take(owner, size)


def test_budget_without_limits_takes_all() -> None:
    budget = ByteBudget()
    budget.take("a", 10**15)
    assert budget.taken == 10**15


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"), st.integers(0, 50), st.integers(0, 3))))
def test_limits_hold_and_everything_comes_back(steps: list[tuple[str, str, int, int]]) -> None:
    budget = ByteBudget(60_000, 100_000)
    holdings = Holdings(budget)
    for owner, n, size, what in steps:
        tree_id = owner + n
        try:
            if what == 0 and tree_id not in holdings:
                holdings.hold(tree_id, owner, SMALL + 1 + 1000 * size)
            elif what == 1:
                holdings.drop(tree_id)
            elif what == 2:
                holdings.add(tree_id, SMALL + 1 + 1000 * size)
        except NoRoom:
            pass
        assert all(budget.of(each) <= 60_000 for each in "abc") and 0 <= budget.taken <= 100_000
        assert budget.taken == sum(budget.of(each) for each in "abc")
    for owner in "abc":
        for n in "12":
            holdings.drop(owner + n)
    assert budget.taken == 0


def test_small_result_may_use_the_reserve() -> None:
    holdings = Holdings(budget := ByteBudget(10 * SMALL, 100 * SMALL))
    holdings.hold("t", "a", 10 * SMALL)
    with pytest.raises(NoRoom):
        holdings.add("t", SMALL + 1)
    for _ in range(2):
        holdings.add("t", SMALL)
    holdings.add("t", SMALL // 2)
    with pytest.raises(NoRoom):
        holdings.add("t", SMALL)
    holdings.add("gone", 10**9)
    with pytest.raises(NoRoom):
        holdings.hold("u", "a", 1)
    holdings.drop("t")
    assert budget.taken == 0


def test_tree_that_was_begun_before_is_taken_whatever_it_has() -> None:
    holdings = Holdings(budget := ByteBudget(10, 10))
    for size in (100, 50):  # it may be loaded again
        holdings.force("t", "a", size)
    assert budget.taken == 50
    with pytest.raises(NoRoom):
        holdings.hold("u", "a", 1)


def size_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sys.getsizeof(value) + sum(map(size_of, inner))


@pytest.mark.parametrize(
    "value",
    [
        "x" * 100_000,
        "x" * 100_000 + "🟢",
        "x" * 100_000 + "ü",
        "緑" * 100_000,
        [{} for _ in range(20_000)],
        [[] for _ in range(20_000)],
        [1.5 + n for n in range(20_000)],
        [f"text {n}" for n in range(20_000)],
    ],
    ids=["text", "text of wide characters", "latin", "cjk", "objects", "arrays", "numbers", "texts"],
)
def test_memory_is_about_what_python_takes(value: Any) -> None:
    estimated, real = memory_of(msgspec.json.encode(value)), size_of(value)
    assert 0.6 * real < estimated < 3 * real


def test_memory_of_tasks_counts_what_callers_bring_and_results() -> None:
    def size(**fields: Any) -> int:
        return memory_of_tasks([Task(id="t", owner="a", name="n", created_at=0.0, updated_at=0.0, **fields)])

    for field in ("inputs", "schemas", "params"):
        assert size(**{field: {"a": BIG}}) > 10_000
    assert size(result=BIG) > 10_000
    assert size(answers=(BIG,)) > 10_000
    assert memory_of_tasks([], {"message": BIG}) > 10_000
    assert size() < 1200


# In a core


@asynccontextmanager
async def core(bench: Bench, per_owner: int | None = 50_000, total: int | None = None) -> AsyncIterator[Session]:
    """It holds nothing when everything has ended."""
    bench.limits = RunnerLimits(in_flight=total, in_flight_per_owner=per_owner)
    async with bench.session() as session:
        yield session
        assert session.holdings._trees == {}
        assert session.holdings._budget.taken == 0


@virtual_time
async def test_open_inputs_are_bounded_and_make_room_when_they_end() -> None:
    """Found from outside: the inputs of one caller's open trees took 723 MiB."""
    bench = Bench()
    async with core(bench, per_owner=60_000) as session:
        trees = [await begin(session, item("a", "slow", inputs={"big": BIG})) for _ in range(4)]
        with pytest.raises(NoRoom, match="more would exceed your 60000"):
            await begin(session, item("a", "slow", inputs={"big": BIG}))
        assert len(await session.storage.live_trees()) == 4
        await session.cancel(trees[0].id)
        trees.append(await begin(session, item("a", "slow", inputs={"big": BIG})))
        bench.gate("a").set()
        for tree in trees[1:]:
            await session.wait(tree.id, has_ended)


@virtual_time
async def test_tree_that_only_waits_to_be_started_takes_nothing() -> None:
    async with core(Bench()) as session:
        drafts = [(await session.create(session.plan([item("a", inputs={"big": BIG})]))).head for _ in range(20)]
        assert session.holdings._budget.taken == 0
        await session.execute(drafts[0].id)
        await session.wait(drafts[0].id, has_ended)


@virtual_time
async def test_executing_takes_room_and_is_refused_without() -> None:
    bench = Bench()
    async with core(bench, per_owner=15_000) as session:
        first, second = [
            (await session.create(session.plan([item("a", "slow", inputs={"big": BIG})]))).head for _ in range(2)
        ]
        await session.execute(first.id)
        with pytest.raises(NoRoom):
            await session.execute(second.id)
        with pytest.raises(IllegalCommand):
            await session.execute(first.id)
        assert session.holdings._budget.taken > 10_000, "a refusal gives nothing back of the tree that runs"
        bench.gate("a").set()
        await session.wait(first.id, has_ended)
        await session.execute(second.id)
        await session.wait(second.id, has_ended)
        with pytest.raises(IllegalCommand):
            await session.execute(second.id)


@virtual_time
async def test_results_of_an_open_tree_are_bounded_and_what_does_not_fit_fails() -> None:
    bench = Bench()

    async def large(inputs: dict[str, Any], context: Any) -> Any:
        return BIG

    bench.add("large", large)
    async with core(bench) as session:
        tasks = await finish(session, *(item(f"t{n}", "large") for n in range(10)), item("small", result="y"))
        failed = [task for task in tasks.values() if task.status is TaskStatus.FAILED and task.key != "root"]
        assert len(failed) in (5, 6, 7)
        assert {task.cause for task in failed} == {Cause.NO_ROOM}
        assert "more would exceed your 50000" in str(failed[0].error)
        assert tasks["small"].status is TaskStatus.COMPLETED


@virtual_time
async def test_result_that_did_not_fit_is_given_again_where_the_task_may_retry() -> None:
    bench = Bench()
    large = item("b", result=BIG, max_attempts=3, retry={"initial": 10.0})
    async with core(bench, per_owner=30_000) as session:
        blocker = await begin(session, item("a", "slow", inputs={"big": BIG}))
        head = await begin(session, large)
        bench.gate("a").set()
        await session.wait(blocker.id, has_ended)
        await session.wait(head.id, has_ended)
        assert (await tasks_of(session, head.id))["b"].status is TaskStatus.COMPLETED


@virtual_time
async def test_owners_have_shares_of_their_own() -> None:
    bench = Bench()
    async with core(bench, per_owner=25_000, total=40_000) as session:

        async def start(owner: str) -> Any:
            plan = session.plan([item("a", "slow", inputs={"big": BIG})], owner=owner)
            return (await session.create(plan, execute=True)).head

        trees = [await start(owner) for owner in "aab"]
        for owner, of_caller in (("a", True), ("c", False)):
            with pytest.raises(NoRoom) as caught:
                await start(owner)
            assert caught.value.of_caller is of_caller
        bench.gate("a").set()
        for tree in trees:
            await session.wait(tree.id, has_ended)


@virtual_time
async def test_answers_count_and_are_refused_without_room() -> None:
    bench = Bench()

    async def asks(inputs: dict[str, Any], context: Any) -> Any:
        return len([await context.ask("more?") for _ in range(9)])

    bench.add("asks", asks)
    async with core(bench, per_owner=25_000) as session:
        head = (await session.create(session.plan([item("a", "asks")]), execute=True)).head
        for _ in range(2):
            await session.wait(head.id, lambda head: head.status.is_interrupted)
            await session.provide_input(ProvideInput(head.id, BIG))
        await session.wait(head.id, lambda head: head.status.is_interrupted)
        with pytest.raises(NoRoom):
            await session.provide_input(ProvideInput(head.id, BIG))
        await session.cancel(head.id)


@virtual_time
async def test_next_process_counts_what_it_takes_over() -> None:
    bench = Bench()
    bench.limits = RunnerLimits(in_flight_per_owner=25_000)
    first = bench.session()
    await first.start()
    await begin(first, item("a", "slow", inputs={"big": BIG}))
    await first.close(0)
    bench.limits = RunnerLimits(in_flight_per_owner=15_000)
    async with bench.session() as second:
        await second.resume()
        with pytest.raises(NoRoom):
            await begin(second, item("b", inputs={"big": BIG}))
        (tree_id,) = await second.storage.live_trees()
        await second.cancel(tree_id)
        await finish(second, item("b", inputs={"big": BIG}))


@virtual_time
async def test_tree_that_cannot_be_stored_takes_nothing() -> None:
    bench = Bench()
    async with core(bench) as session:

        def broken(*_: Any) -> Any:
            raise StorageUnavailable("full")

        append, session.storage.append = session.storage.append, broken  # type: ignore[method-assign]
        with pytest.raises(StorageUnavailable):
            await begin(session, item("a", inputs={"big": BIG}))
        session.storage.append = append  # type: ignore[method-assign]
