"""What an executor says again when it runs again after an answer (core/model/replay.py)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from core.executors.base import TaskContext
from core.model import events as e
from core.model.commands import ProvideInput
from core.model.replay import MOST_TOLD, Replay, key_of, told
from core.model.task import Task, TaskStatus, Told
from core.session import Session, has_ended
from core.storage.base import EventQuery
from tests.core.contents import text_of
from tests.core.cores import Bench, begin, item, kill, settle, tasks_of, until_event, virtual_time

Work = Callable[[TaskContext], Awaitable[Any]]


async def sequence(context: TaskContext) -> Any:
    await context.progress(0.25, "first half")
    await context.message("thinking")
    await context.artifact("ans")
    await context.artifact("wer", last_chunk=True)
    first = await context.ask("one?")
    await context.message("thinking")
    await context.progress(0.5)
    await context.artifact("more", artifact_id="b")
    second = await context.ask("two?")
    await context.message("thinking")
    await context.progress(0.1)
    await context.artifact("end")
    return [first, second]


SEQUENCE = [
    *("progress 0.25", "message thinking", "piece ans", "piece +wer", "asked"),
    *("message thinking", "progress 0.5", "piece b:more", "asked"),
    *("message thinking", "progress 0.1", "piece +end"),
]


async def other_words(context: TaskContext) -> Any:
    """Each attempt says something else, and something that is the same."""
    await context.message(f"attempt {context.attempt}")
    await context.message("thinking")
    return await context.ask("one?")


OTHER_WORDS = ["message attempt 1", "message thinking", "asked", "message attempt 2"]


async def other_end(context: TaskContext) -> Any:
    """The artifact begins in the same way and goes on in another: a piece alone means nothing."""
    await context.artifact("ans")
    await context.artifact("wer" if context.attempt == 1 else "chovy")
    return await context.ask("one?")


OTHER_END = ["piece ans", "piece +wer", "asked", "piece ans", "piece +chovy"]


async def shorter(context: TaskContext) -> Any:
    await context.artifact("ans")
    if context.attempt == 1:
        await context.artifact("wer")
    await context.ask("one?")
    await context.artifact("x", artifact_id="b")


SHORTER = ["piece ans", "piece +wer", "asked", "piece ans", "piece b:x"]


async def shorter_at_the_end(context: TaskContext) -> Any:
    await shorter_before(context)
    await context.ask("one?")


async def shorter_before(context: TaskContext) -> None:
    await context.artifact("ans")
    if context.attempt == 1:
        await context.artifact("wer")


SHORTER_AT_THE_END = ["piece ans", "piece +wer", "asked", "piece ans"]


async def shorter_before_the_next_question(context: TaskContext) -> Any:
    await shorter_before(context)
    await context.ask("one?")
    await context.ask("two?")


SHORTER_BEFORE = ["piece ans", "piece +wer", "asked", "piece ans", "asked"]


async def beside(context: TaskContext) -> Any:
    """Questions side by side: the order in which things are said may be another one."""

    async def branch(name: str) -> Any:
        await context.message(name)
        await context.artifact(name, artifact_id=name)
        return await context.ask(f"{name}?")

    names = ("x", "y") if context.attempt % 2 else ("y", "x")
    return sorted(await asyncio.gather(*map(branch, names)))


BESIDE = ["message x", "message y", "piece x:x", "piece y:y", "asked"]


async def only_before(context: TaskContext) -> Any:
    """What was said before the question and is said after it now, is new."""
    if context.attempt == 1:
        await context.message("hello")
    answer = await context.ask("one?")
    await context.message("hello")
    return answer


ONLY_BEFORE = ["message hello", "asked", "message hello"]

CASES: dict[str, tuple[Work, list[str], int]] = {
    "in a row": (sequence, SEQUENCE, 2),
    "other words": (other_words, OTHER_WORDS, 1),
    "another end": (other_end, OTHER_END, 1),
    "shorter": (shorter, SHORTER, 1),
    "shorter at the end": (shorter_at_the_end, SHORTER_AT_THE_END, 1),
    "shorter before the next question": (shorter_before_the_next_question, SHORTER_BEFORE, 2),
    "beside": (beside, BESIDE, 2),
    "only before": (only_before, ONLY_BEFORE, 1),
}


def line(event: Any) -> str | None:
    match event:
        case e.TaskProgressed():
            return f"progress {event.fraction}"
        case e.MessageSent():
            return f"message {text_of(event.message)}"
        case e.ArtifactAdded():
            named = "" if event.artifact.artifact_id == event.task_id else event.artifact.artifact_id + ":"
            return f"piece {named}{'+' * event.append}{text_of(event.artifact)}"
        case e.InputRequested():
            return "asked"
    return None


async def said(session: Session, tree_id: str) -> list[str]:
    log = await session.storage.events(EventQuery(tree_id=tree_id, after=0))
    return [told for each in log if (told := line(each.event)) is not None]


def bench_of(work: Work) -> Bench:
    bench = Bench()

    async def run(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await work(context)

    bench.add("work", run)
    return bench


async def until_asked(session: Session, tree_id: str, times: int) -> None:
    seen = 0
    async for recorded in session.follow(tree_id):
        seen += isinstance(recorded.event, e.InputRequested)
        if seen == times:
            return


@pytest.mark.parametrize("case", CASES)
@virtual_time
async def test_what_was_told_before_the_question_is_told_once(case: str) -> None:
    work, expected, questions = CASES[case]
    async with bench_of(work).session() as session:
        head = await begin(session, item("a"))
        for n in range(questions if case != "beside" else 1):
            await until_asked(session, head.id, n + 1)
            await session.provide_input(ProvideInput(head.id, str(n), each=("0", "1") if case == "beside" else ()))
        await until_event(session, head.id, e.TreeFinished)
        assert (await tasks_of(session, head.id))["a"].error is None
        assert await said(session, head.id) == expected


@virtual_time
async def test_one_answer_of_two_leaves_what_the_other_branch_said_told() -> None:
    async with bench_of(beside).session() as session:
        head = await begin(session, item("a"))
        for n in range(2):
            await until_asked(session, head.id, n + 1)
            await session.provide_input(ProvideInput(head.id, str(n)))
        await until_event(session, head.id, e.TreeFinished)
        assert await said(session, head.id) == [*BESIDE, "asked"]


async def answered(session: Session, tree_id: str, questions: int, asked: int = 0) -> None:
    """Answer each question of the run, of which there were some before it, and wait for its end."""
    for n in range(questions):
        await until_asked(session, tree_id, asked + n + 1)
        await session.provide_input(ProvideInput(tree_id, str(n)))
    await session.wait(tree_id, has_ended)


AGAIN = {
    "in a row": SEQUENCE,
    "other words": ["message attempt 3", "message thinking", "asked", "message attempt 4"],
    "beside": ["message y", "message x", "piece y:y", "piece x:x", "asked", "asked"],  # the fourth attempt
}


@pytest.mark.parametrize("case", AGAIN)
@virtual_time
async def test_a_new_run_tells_everything_again(case: str) -> None:
    work, first, _ = CASES[case]
    first = first + ["asked"] * (case == "beside")  # one answer at a time
    questions = first.count("asked")
    async with bench_of(work).session() as session:
        head = await begin(session, item("a"))
        await answered(session, head.id, questions)
        assert await said(session, head.id) == first
        assert (await tasks_of(session, head.id))["a"].told is not None, "else there is nothing to forget"

        await session.execute(head.id, force=True)
        await until_asked(session, head.id, questions + 1)
        until_first = AGAIN[case][: AGAIN[case].index("asked") + 1]
        assert await said(session, head.id) == first + until_first
        await answered(session, head.id, questions, questions)

        assert await said(session, head.id) == first + AGAIN[case]
        task = (await tasks_of(session, head.id))["a"]
        assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 2 * (questions + 1))


@virtual_time
async def test_a_run_after_a_cancelled_question_tells_everything_again() -> None:
    async with bench_of(sequence).session() as session:
        head = await begin(session, item("a"))
        await until_asked(session, head.id, 1)
        await session.cancel(head.id)
        until_first = SEQUENCE[: SEQUENCE.index("asked") + 1]
        await session.execute(head.id)
        await answered(session, head.id, 2, 1)
        assert await said(session, head.id) == until_first + SEQUENCE


# A kill between


async def next_process(bench: Bench, session: Session) -> Session:
    """The process is killed; the one after it has resumed what there was."""
    await settle()
    kill(session)
    following = bench.session()
    await following.start()
    await following.resume()
    return following


@pytest.mark.parametrize("case", CASES)
@virtual_time
async def test_what_was_told_before_the_question_is_told_once_over_a_kill_while_it_waits(case: str) -> None:
    """What is known is in the task, as the next process reads it."""
    work, expected, questions = CASES[case]
    bench = bench_of(work)
    session = bench.session()
    await session.start()
    head = await begin(session, item("a"))
    for n in range(questions if case != "beside" else 1):
        await until_asked(session, head.id, n + 1)
        task = (await tasks_of(session, head.id))["a"]
        assert msgspec.json.decode(msgspec.json.encode(task), type=Task).told == task.told is not None
        session = await next_process(bench, session)
        await session.provide_input(ProvideInput(head.id, str(n), each=("0", "1") if case == "beside" else ()))
    await session.wait(head.id, has_ended)
    assert await said(session, head.id) == expected
    assert (await tasks_of(session, head.id))["a"].status is TaskStatus.COMPLETED
    await session.close()


@pytest.mark.parametrize("kills", [1, 3])
@pytest.mark.parametrize("where", ["first", "within", "asks", "answered", "after"])
@virtual_time
async def test_an_attempt_that_is_lost_while_it_repeats_leaves_the_next_one_as_much_to_repeat(
    where: str, kills: int
) -> None:
    """What it said that was new is said again, as after any crash; what was told before the question is not."""
    bench = Bench()
    stopped: list[int] = []

    async def run(inputs: dict[str, Any], context: TaskContext) -> Any:
        async def stop(here: str) -> None:
            if here == where and 1 < context.attempt < 2 + kills:
                stopped.append(context.attempt)
                await bench.gate("never").wait()

        await stop("first")
        await context.message("before")
        await context.artifact("ans")
        await stop("within")
        await context.artifact("wer", last_chunk=True)
        await stop("asks")
        answer = await context.ask("one?")
        await stop("answered")
        await context.message("after")
        await context.artifact("more", artifact_id="b")
        await stop("after")
        return answer

    bench.add("work", run)
    session = bench.session()
    await session.start()
    head = await begin(session, item("a"))
    await until_asked(session, head.id, 1)
    await session.provide_input(ProvideInput(head.id, "x"))
    for _ in range(kills):
        session = await next_process(bench, session)
    await session.wait(head.id, has_ended)

    before, after = ["message before", "piece ans", "piece +wer", "asked"], ["message after", "piece b:more"]
    assert await said(session, head.id) == before + after * (kills + 1 if where == "after" else 1)
    task = (await tasks_of(session, head.id))["a"]
    assert (task.status, task.result, task.attempt) == (TaskStatus.COMPLETED, "x", 2 + kills)
    assert stopped == [*range(2, 2 + kills)]
    await session.close()


def test_a_message_is_repeated_as_often_as_it_was_said() -> None:
    replay: Replay[str] = Replay(Told((1, 2, 1)))
    assert [replay.repeats(key) for key in (1, 1, 1, 2, 3)] == [True, True, False, True, False]
    assert replay.left() == Told()


def test_what_is_not_repeated_yet_is_known_for_the_next_answer() -> None:
    replay: Replay[str] = Replay(Told((1, 2), {"a": (2, 7)}))
    assert replay.pieces("a", (1, 5), "p") == []
    assert replay.repeats(1)
    assert told([1, 3], {"a": (1, 5), "b": (1, 1)}, replay.left()) == Told((1, 3, 2), {"a": (2, 7), "b": (1, 1)})
    assert replay.end() == ["p"]
    assert not replay.repeats(2), "it is over"
    assert replay.left() == Told()


def test_what_is_known_is_bounded() -> None:
    known = told(list(range(MOST_TOLD + 1)), {str(n): (1, n) for n in range(MOST_TOLD + 1)}, None)
    assert (len(known.messages), len(known.artifacts)) == (MOST_TOLD, MOST_TOLD)


def test_messages_are_known_by_what_they_say() -> None:
    assert len({key_of(each) for each in (b"", b"a", b"b", b"aa")}) == 4
