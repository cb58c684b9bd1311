"""Questions that one attempt asks at once, and the answers that find them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace

from core.executors.base import Rejected, Suspend, TaskContext
from core.model import events as e
from core.model.commands import ProvideInput
from core.model.content import Part, Said
from core.model.content_json import part_of
from core.model.errors import CallerError
from core.model.task import Task, TaskStatus
from core.session import Session
from tests.core.contents import text_of
from tests.core.cores import Bench, begin, item, tasks_of, until_event, virtual_time
from tests.core.executors.context import make_context

SIZE, COLOUR = {"text": "size?"}, {"text": "colour?"}


async def in_a_group(context: TaskContext) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        size, colour = group.create_task(context.ask("size?")), group.create_task(context.ask("colour?"))
    return [size.result(), colour.result()]


async def in_groups(context: TaskContext) -> list[Any]:
    async def inner(text: str) -> Any:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(context.ask(text))
        return asked.result()

    async with asyncio.TaskGroup() as group:
        size, colour = group.create_task(inner("size?")), group.create_task(inner("colour?"))
    return [size.result(), colour.result()]


async def gathered(context: TaskContext) -> list[Any]:
    return list(await asyncio.gather(context.ask("size?"), context.ask("colour?")))


Asking = Callable[[TaskContext], Awaitable[list[Any]]]
WAYS: dict[str, Asking] = {"group": in_a_group, "groups in a group": in_groups, "gather": gathered}


async def asked(session: Session, tree_id: str, *, times: int = 1) -> Task:
    """The task once it has asked so many times."""
    seen = 0
    async for recorded in session.follow(tree_id):
        seen += isinstance(recorded.event, e.InputRequested)
        if seen == times:
            break
    return (await tasks_of(session, tree_id))["a"]


def bench_of(ask: Callable[[TaskContext], Awaitable[Any]], **fields: Any) -> Bench:
    bench = Bench()

    async def work(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await ask(context)

    bench.add("work", work, **fields)
    return bench


@pytest.mark.parametrize("way", WAYS)
@virtual_time
async def test_questions_asked_side_by_side_are_put_together(way: str) -> None:
    """Found from outside: two questions in a TaskGroup failed the task."""
    async with bench_of(WAYS[way]).session() as session:
        head = await begin(session, item("a"))
        task = await asked(session, head.id)
        assert task.status is TaskStatus.INPUT_REQUIRED and task.question is not None
        assert task.question.parts == (SIZE, COLOUR) and len(set(task.question.keys)) == 2
        await session.provide_input(ProvideInput(head.id, ["L", "red"], each=("L", "red")))
        await until_event(session, head.id, e.TreeFinished)
        task = (await tasks_of(session, head.id))["a"]
        assert (task.result, task.attempt, task.error) == (["L", "red"], 2, None)


@pytest.mark.parametrize("way", WAYS)
@virtual_time
async def test_one_answer_is_the_first_questions_and_the_other_one_stays_open(way: str) -> None:
    async with bench_of(WAYS[way]).session() as session:
        head = await begin(session, item("a"))
        await asked(session, head.id)
        await session.provide_input(ProvideInput(head.id, "L"))
        task = await asked(session, head.id, times=2)
        assert task.question is not None and task.question.parts == (COLOUR,)
        await session.provide_input(ProvideInput(head.id, "red"))
        await until_event(session, head.id, e.TreeFinished)
        assert (await tasks_of(session, head.id))["a"].result == ["L", "red"]


@virtual_time
async def test_an_answer_finds_its_question_although_another_one_is_asked_first_now() -> None:
    attempts = iter([("size?", "colour?"), ("colour?", "size?"), ("colour?", "size?")])

    async def ask(context: TaskContext) -> dict[str, Any]:
        order = next(attempts)
        found = await asyncio.gather(*(context.ask(text) for text in order))
        return dict(zip(order, found, strict=True))

    async with bench_of(ask).session() as session:
        head = await begin(session, item("a"))
        await asked(session, head.id)
        await session.provide_input(ProvideInput(head.id, "L"))
        task = await asked(session, head.id, times=2)
        assert task.question is not None and task.question.parts == (COLOUR,)
        await session.provide_input(ProvideInput(head.id, "red"))
        await until_event(session, head.id, e.TreeFinished)
        assert (await tasks_of(session, head.id))["a"].result == {"colour?": "red", "size?": "L"}


@virtual_time
async def test_questions_in_a_row_are_answered_in_their_order_whatever_their_words() -> None:
    """A question may name the time, and so have other words in each attempt."""
    count = iter(range(100))

    async def ask(context: TaskContext) -> list[Any]:
        return [await context.ask(f"first, {next(count)}"), await context.ask(f"second, {next(count)}")]

    async with bench_of(ask).session() as session:
        head = await begin(session, item("a"))
        for number, answer in enumerate(("one", "two"), 1):
            await asked(session, head.id, times=number)
            await session.provide_input(ProvideInput(head.id, answer))
        await until_event(session, head.id, e.TreeFinished)
        assert (await tasks_of(session, head.id))["a"].result == ["one", "two"]


async def _ask_and(context: TaskContext, *errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(context.ask("size?"))
        for error in errors:
            group.create_task(fail(error))


@pytest.mark.parametrize(
    ("errors", "status", "error"),
    [
        ((ValueError("no file"),), TaskStatus.FAILED, "ValueError: no file (test_questions.py:"),
        ((ValueError("a"), KeyError("b")), TaskStatus.FAILED, "2 errors: ValueError: a (test_questions.py:"),
        ((Rejected("not mine"),), TaskStatus.REJECTED, "not mine"),
        ((Rejected("one"), Rejected("two")), TaskStatus.REJECTED, "one"),
        ((Rejected("not mine"), ValueError("a")), TaskStatus.FAILED, "2 errors: Rejected: not mine"),
    ],
)
@virtual_time
async def test_what_is_raised_beside_a_question_counts_and_the_question_does_not(
    errors: tuple[Exception, ...], status: TaskStatus, error: str
) -> None:
    async with bench_of(lambda context: _ask_and(context, *errors)).session() as session:
        head = await begin(session, item("a"))
        await until_event(session, head.id, e.TreeFinished)
        task = (await tasks_of(session, head.id))["a"]
        assert task.status is status and (task.error or "").startswith(error)


@virtual_time
async def test_all_questions_for_credentials_make_auth_required_and_one_other_does_not() -> None:
    for auths, status in (((True, True), TaskStatus.AUTH_REQUIRED), ((True, False), TaskStatus.INPUT_REQUIRED)):

        async def ask(context: TaskContext, auths: tuple[bool, ...] = auths) -> Any:
            return await asyncio.gather(*(context.ask(f"{n}?", auth=auth) for n, auth in enumerate(auths)))

        async with bench_of(ask).session() as session:
            head = await begin(session, item("a"))
            assert (await asked(session, head.id)).status is status
            await session.cancel(head.id)


def test_an_at_most_once_executor_asks_nothing() -> None:
    with pytest.raises(CallerError, match="at_most_once"):
        make_context(at_most_once=True).ask_from("size?", False, None, (), in_order=True)


def test_an_unanswered_question_that_another_ones_answer_precedes_is_asked() -> None:
    context = make_context(answers=("L",))
    with pytest.raises(Suspend):
        context.ask_from("colour?", False, None, (), in_order=False)
    assert [question.parts for question in context.questions] == [(part_of(COLOUR),)]


@virtual_time
async def test_an_executor_changes_nothing_of_the_message_that_is_stored() -> None:
    context = make_context(answers=("L",))
    answered = Said((Part(data={"n": [1]}),), {"k": [1]}, message_id="m")
    context.stored_task = replace(context.stored_task, answer_messages=(answered,))
    assert await context.ask("size?") == "L"
    for seen in (context.answer_message, context.answer_message):
        assert seen is not None
        seen["metadata"]["k"].append("changed")
        seen["parts"][0]["data"]["n"].append("changed")
        seen["parts"].append("changed")
    assert answered == Said((Part(data={"n": [1]}),), {"k": [1]}, message_id="m")
    assert context.stored_task.answer_messages == (answered,)


def test_a_command_without_parts_answers_one_question() -> None:
    assert ProvideInput("a", "yes").each == ()


async def said(session: Session, tree_id: str) -> list[str]:
    """The texts of all messages that were told, once the tree has ended."""
    texts = []
    async for recorded in session.follow(tree_id):
        if isinstance(recorded.event, e.MessageSent):
            texts.append(text_of(recorded.event.message))
        if isinstance(recorded.event, e.TreeFinished):
            break
    return texts


async def told_between(context: TaskContext) -> Any:
    await context.message("before")
    size = await context.ask("size?")
    await context.message("between")
    colour = await context.ask("colour?")
    await context.message("after")
    return [size, colour]


async def told_beside(context: TaskContext) -> Any:
    await context.message("before")
    both = await gathered(context)
    await context.message("after")
    return both


TOLD = {"in a row": (told_between, ["before", "between", "after"]), "side by side": (told_beside, ["before", "after"])}


@pytest.mark.parametrize("way", TOLD)
@virtual_time
async def test_a_message_is_told_once_however_often_the_executor_runs_over_it(way: str) -> None:
    """Found later: a message before a question was shown again after each answer."""
    ask, texts = TOLD[way]
    async with bench_of(ask).session() as session:
        head = await begin(session, item("a"))
        for times in (1, 2):
            await asked(session, head.id, times=times)
            await session.provide_input(ProvideInput(head.id, f"answer {times}"))
        await until_event(session, head.id, e.TreeFinished)
        assert await said(session, head.id) == texts
        assert (await tasks_of(session, head.id))["a"].result == ["answer 1", "answer 2"]


@virtual_time
async def test_a_retry_tells_again_only_what_came_after_the_last_answer() -> None:
    async def work(context: TaskContext) -> Any:
        await context.message("before")
        await context.ask("size?")
        await context.message("after")
        if context.attempt < 3:
            raise ValueError("the first one after the answer")

    async with bench_of(work).session() as session:
        head = await begin(session, item("a", max_attempts=3))
        await asked(session, head.id)
        await session.provide_input(ProvideInput(head.id, "L"))
        await until_event(session, head.id, e.TreeFinished)
        assert await said(session, head.id) == ["before", "after", "after"]
