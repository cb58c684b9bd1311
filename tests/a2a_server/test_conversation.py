"""What a client reads of a conversation: every message once, in its order, in every version, binding and method."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from a2a_server.views.snapshots import MOST_NODES
from core.executors.base import ExecutorSpec, Parts, TaskContext
from core.executors.function import Declared, make_spec
from core.session import has_ended, needs_caller
from core.storage.base import EventQuery
from tests.a2a_server.conftest import Caller, RunningServer, _Executor, calling, message, running, tree_message
from tests.a2a_server.methods.test_methods_a2a import state
from tests.core.contents import text_of
from tests.core.executors import functions

AGENT, USER = "agent", "user"


async def thinks_and_returns(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.message("thinking")
    return "answer"


async def thinks_and_streams(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.message("thinking")
    await context.artifact("ans")
    await context.artifact("wer")


async def streams_around_a_word(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.artifact("ans")
    await context.message("thinking")
    await context.artifact("wer")


async def returns_nothing(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.message("thinking")
    await context.message("said")


async def returns_no_parts(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.message("said")
    return Parts([])


async def streams_then_says(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.artifact("answer")
    await context.message("said")


async def thinks_and_fails(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.message("thinking")
    raise ValueError("broke")


TALKS = {  # what it says, and what its final status says of it
    thinks_and_returns: (["thinking"], None),
    thinks_and_streams: (["thinking"], None),
    streams_around_a_word: (["thinking"], None),
    returns_nothing: (["thinking", "said"], "said"),
    returns_no_parts: (["said"], "said"),
    streams_then_says: (["said"], "said"),
    thinks_and_fails: (
        ["thinking"],
        f"ValueError: broke (test_conversation.py:{thinks_and_fails.__code__.co_firstlineno + 2})",
    ),
}


def text(told: dict[str, Any] | None) -> str | None:
    return None if told is None else "".join(part["text"] for part in told["parts"])


def spoken(task: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(said["role"].removeprefix("ROLE_").lower(), text(said)) for said in task.get("history", [])]


@pytest_asyncio.fixture
async def served() -> AsyncIterator[RunningServer]:
    async with running() as server:
        for talk in TALKS:
            server.lab.registry.register(ExecutorSpec(id=talk.__name__, make=lambda talk=talk: _Executor(talk)))
        yield server


@pytest.mark.asyncio
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
async def test_a_message_stands_in_the_status_or_in_the_history_in_every_binding(
    served: RunningServer, talk: Any
) -> None:
    """Found from outside: Strands showed an interim message as the answer, others showed it twice."""
    words, final = TALKS[talk]
    in_history = [(USER, "hi"), *((AGENT, word) for word in words if word != final)]
    call = Caller(served.application, served.lab)
    sent = await call.send(talk.__name__)
    task_id = sent["id"]
    async with served.client() as client:
        rest = (await client.get(f"/tasks/{task_id}")).json()
        listed = (await client.get("/tasks")).json()["tasks"]
    old = await call("tasks/get", {"id": task_id})
    (bare,) = (await call("ListTasks", {"historyLength": 0}))["tasks"]

    tasks = [sent, await call("GetTask", {"id": task_id}), rest, old, *listed]
    for task in tasks:
        assert text(task["status"].get("message")) == final
        assert spoken(task) == in_history
    assert text(bare["status"].get("message")) == final


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["SendStreamingMessage", "message/stream"])
@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.__name__)
async def test_a_stream_tells_a_message_once(served: RunningServer, talk: Any, method: str) -> None:
    call = Caller(served.application, served.lab)
    said = message(talk.__name__)
    if method == "message/stream":
        said["message"] |= {"kind": "message", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}
    frames = [frame.result for frame in await call.frames(method, said)]
    updates = [frame.get("statusUpdate", frame) for frame in frames[1:]]

    told = [text(update["status"]["message"]) for update in updates if "message" in update.get("status", {})]

    words, final = TALKS[talk]
    assert told == [*words, *([final] if final not in [None, *words] else [])]


@pytest.mark.asyncio
async def test_a_question_stays_in_the_history_when_it_is_answered(call: Caller) -> None:
    """Found from outside: the agent's question left the history once it was answered."""

    async def interview(inputs: dict[str, Any], context: TaskContext) -> Any:
        name = await context.ask("Who are you?")
        await context.message(f"Thanks, {name}")
        return f"Hello, {name}!"

    call.lab.registry.register(ExecutorSpec(id="interview", make=lambda: _Executor(interview)))
    asked = await call.send("interview")
    assert (text(asked["status"]["message"]), spoken(asked)) == ("Who are you?", [(USER, "hi")])

    done = (await call("SendMessage", message(text="Ada", task=asked["id"])))["task"]

    talk = [(USER, "hi"), (AGENT, "Who are you?"), (USER, "Ada"), (AGENT, "Thanks, Ada")]
    assert (done["status"].get("message"), spoken(done)) == (None, talk)
    for length in (1, 2, 3):
        got = await call("GetTask", {"id": asked["id"], "historyLength": length})
        assert spoken(got) == talk[-length:]
    assert spoken(await call("tasks/get", {"id": asked["id"]})) == talk
    question = done["history"][1]
    assert question == asked["status"]["message"], "the same message, under the same id"


@pytest.mark.asyncio
@pytest.mark.parametrize("skill", ["ask", "login"])
async def test_a_question_that_is_never_answered_stays_too(call: Caller, skill: str) -> None:
    asked = await call.send(skill)
    question = text(asked["status"]["message"])

    cancelled = await call("CancelTask", {"id": asked["id"]})

    assert state(cancelled) == "CANCELED"
    assert spoken(cancelled) == [(USER, "hi"), (AGENT, question)]


@pytest.mark.asyncio
async def test_of_several_questions_the_status_has_the_oldest_and_the_history_the_others(call: Caller) -> None:
    children = ({"name": name, "parent_id": "r"} for name in ("ask", "login"))
    tree = tree_message({"id": "r", "name": "g"}, *children)
    task = (await call("SendMessage", tree))["task"]
    while len((got := await call("GetTask", {"id": task["id"]}))["history"]) < 2:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    questions = {text(got["status"]["message"]), text(got["history"][1])}
    assert questions == {"first?", "log in"}


@pytest.mark.asyncio
async def test_a_snapshot_and_the_stream_after_it_have_the_same_numbers(call: Caller) -> None:
    """Found from outside: a client could not tell which events a snapshot contained.

    Whoever joins them drops what the snapshot has already: events up to its number.
    """
    frames = await call.frames("SendStreamingMessage", message("chunks"))
    first, *updates = [next(iter(frame.result.values())) for frame in frames]
    numbers = [update["metadata"]["seq"] for update in updates]
    assert [first["metadata"]["seq"], *numbers] == [3, 4, 5, 6, 7, 8]
    assert numbers[-1] == frames[-1].seq
    task = await call("GetTask", {"id": first["id"]})
    assert task["metadata"]["seq"] == numbers[-1]
    assert (await call("tasks/get", {"id": first["id"]}))["metadata"]["seq"] == numbers[-1]


# What is around a task


@pytest.mark.asyncio
async def test_a_root_tells_its_nodes_and_a_node_its_place(call: Caller) -> None:
    """Found from outside: GetTask of a root said nothing about its children."""
    tree = tree_message(
        {"id": "r", "name": "g"},
        {"id": "a", "name": "number", "parent_id": "r"},
        {"id": "b", "name": "boom", "parent_id": "a"},
    )
    root = (await call("SendMessage", tree))["task"]["id"]
    for method in ("GetTask", "tasks/get"):
        got = await call(method, {"id": root})
        nodes = got["metadata"]["nodes"]
        assert [(node["name"], node["status"]) for node in nodes] == [("number", "completed"), ("boom", "failed")]
        assert "nodesLeftOut" not in got["metadata"]
        parents = {nodes[0]["id"]: root, nodes[1]["id"]: nodes[0]["id"]}
        for node_id, parent in parents.items():
            node = await call(method, {"id": node_id})
            assert (node["metadata"]["rootTaskId"], node["metadata"]["parentTaskId"]) == (root, parent)


@pytest.mark.asyncio
async def test_a_task_on_its_own_tells_no_nodes(call: Caller) -> None:
    task = await call.send("echo")
    assert (await call("GetTask", {"id": task["id"]}))["metadata"].keys() == {"progress", "seq"}


@pytest.mark.asyncio
async def test_only_so_many_nodes_are_told_and_how_many_there_are_besides() -> None:
    async with calling(max_tree_tasks=200) as call:
        below = [{"name": "nothing", "parent_id": "r"} for _ in range(MOST_NODES + 3)]
        root = (await call("SendMessage", tree_message({"id": "r", "name": "g"}, *below)))["task"]["id"]
        told = (await call("GetTask", {"id": root}))["metadata"]
    assert (len(told["nodes"]), told["nodesLeftOut"]) == (MOST_NODES, 3)


@pytest.mark.asyncio
async def test_an_answer_to_a_node_tells_its_place_too(call: Caller) -> None:
    tree = tree_message({"id": "r", "name": "g"}, {"name": "login", "parent_id": "r"})
    root = (await call("SendMessage", tree))["task"]["id"]
    (node,) = (await call("GetTask", {"id": root}))["metadata"]["nodes"]
    answered = (await call("SendMessage", message(text="token", task=node["id"])))["task"]
    assert answered["metadata"]["parentTaskId"] == root


# Extensions and metadata

MODES = {"defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"]}
CARD = {"name": "a", "description": "a", **MODES}
URI = "https://a.example/x"


async def marks(inputs: dict[str, Any], context: TaskContext) -> Any:
    """As `functions.marks`, which runs in a thread or a process."""
    await context.message("said", metadata={"m": 1}, extensions=["https://a.example/m"])
    seen = [context.answer_message]
    for question in ("first?", "second?"):
        await context.ask(question, metadata={"q": 1}, extensions=["https://a.example/q"])
        seen.append(context.answer_message)
    await context.artifact("given", artifact_id="a", metadata={"a": 1}, extensions=["https://a.example/a"])
    return {"seen": seen, "extensions": list(context.extensions)}


@pytest.mark.parametrize("isolation", ["task", "thread", "process"])
@pytest.mark.asyncio
async def test_an_executor_sees_and_sets_extensions_and_metadata(tmp_path: Path, isolation: Any) -> None:
    """Found from outside: an executor could not see which extensions were activated."""
    template = tmp_path / "card.json"
    extensions = [{"uri": URI}, {"uri": "https://a.example/other"}]
    template.write_text(json.dumps(CARD | {"capabilities": {"extensions": extensions}}))
    async with calling(card=str(template)) as call:
        function: Any = marks if isolation == "task" else functions.marks
        call.lab.registry.register(make_spec("marks", function, Declared(isolation=isolation)))
        activated = (URI, "https://a.example/other", "https://a.example/unknown")
        asked = (await call("SendMessage", message("marks"), extensions=activated))["task"]
        answers = [message(text=text, task=asked["id"]) for text in ("one", "two")]
        for number, answer in enumerate(answers):
            answer["message"] |= {"metadata": {"n": number}, "extensions": [URI]}
            done = (await call("SendMessage", answer, extensions=activated[number:]))["task"]

    question = asked["status"]["message"]
    assert (question["metadata"], question["extensions"]) == ({"q": 1}, ["https://a.example/q"])
    _, given = asked["history"]
    assert (given["metadata"], given["extensions"]) == ({"m": 1}, ["https://a.example/m"])
    by_id = {artifact["artifactId"]: artifact for artifact in done["artifacts"]}
    assert (by_id["a"]["metadata"], by_id["a"]["extensions"]) == ({"a": 1}, ["https://a.example/a"])
    result = by_id[done["id"]]["parts"][0]["data"]
    none, *seen = result["seen"]
    assert none is None
    assert [(each["parts"], each["metadata"], each["extensions"]) for each in seen] == [
        ([{"text": "one"}], {"n": 0}, [URI]),
        ([{"text": "two"}], {"n": 1}, [URI]),
    ]
    assert result["extensions"] == ["https://a.example/other"], "activated with the last answer and known by the card"


A, B = "https://a.example/a", "https://a.example/b"


@pytest.fixture
def card(tmp_path: Path) -> str:
    template = tmp_path / "card.json"
    extensions = [{"uri": uri} for uri in (A, B)]
    template.write_text(json.dumps(CARD | {"capabilities": {"extensions": extensions}}))
    return str(template)


async def sees(inputs: dict[str, Any], context: TaskContext) -> list[list[str]]:
    """What each of its attempts sees, from the second one on in their answers' place."""
    for n in range(2):
        await context.message(f"{context.attempt}: {' '.join(context.extensions)}")
        await context.ask(f"{n}?")
    return list(context.extensions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("begins", "answers", "seen"),
    [
        ((), [(A,), (B,)], [[], [A], [B]]),
        ((A,), [(B, A), ()], [[A], [A, B], []]),
        ((A,), [(), (A,)], [[A], [], [A]]),
        ((A, "https://a.example/unknown"), [("https://a.example/unknown",), (B,)], [[A], [], [B]]),
        ((A,), [None, None], [[A], [A], [A]]),
        ((A,), [(B,), None], [[A], [B], [B]]),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.asyncio
async def test_an_attempt_sees_the_extensions_of_the_request_that_it_serves(
    card: str, begins: tuple[str, ...], answers: list[tuple[str, ...] | None], seen: list[list[str]], is_stream: bool
) -> None:
    """None: an answer through `tasks.answer`, which is no A2A request and activates nothing."""
    async with calling(card=card) as call:
        call.lab.registry.register(ExecutorSpec(id="sees", make=lambda: _Executor(sees)))
        task_id = (await call("SendMessage", message("sees"), extensions=begins))["task"]["id"]
        for activated in answers:
            answer = message(text="x", task=task_id)
            if activated is None:
                await call("tasks.answer", {"task_id": task_id, "answer": "x"})
                await call.session.wait(task_id, needs_caller)
            elif is_stream:
                await call.frames("SendStreamingMessage", answer, extensions=activated)
            else:
                await call("SendMessage", answer, extensions=activated)
        stored = await call.session.storage.task(task_id)
        log = await call.session.storage.events(EventQuery(tree_id=task_id, after=0, kinds=("message_sent",)))
    said = [text_of(each.event.message) for each in log]  # type: ignore[union-attr]
    assert said == [text for n, uris in enumerate(seen, 1) for text in [f"{n}: {' '.join(uris)}"] * min(n, 2)]
    assert stored is not None and stored.result == seen[-1]


@pytest.mark.asyncio
async def test_extensions_of_an_answer_are_those_of_the_node_that_asked(card: str) -> None:
    """Its siblings go on serving the request that began the tree; a new run has only that one."""

    async def shows(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.ask("?")
        return list(context.extensions)

    async with calling(card=card) as call:
        call.lab.registry.register(ExecutorSpec(id="shows", make=lambda: _Executor(shows)))
        items = [{"id": "r", "name": "g"}, *({"id": key, "name": "shows", "parent_id": "r"} for key in "xy")]
        root = (await call("SendMessage", tree_message(*items), extensions=(A,)))["task"]
        nodes = (await call("GetTask", {"id": root["id"]}))["metadata"]["nodes"]
        await call("SendMessage", message(text="x", task=nodes[0]["id"]), extensions=(B,))
        await call("tasks.answer", {"task_id": nodes[1]["id"], "answer": "y"})
        await call.session.wait(root["id"], has_ended)
        results = [(await call("tasks.get", {"task_id": node["id"]}))["result"] for node in nodes]
    assert results == [[B], [A]]


@pytest.mark.asyncio
async def test_an_answer_without_a_message_has_none(call: Caller) -> None:
    async def looks(inputs: dict[str, Any], context: TaskContext) -> Any:
        return {"answer": await context.ask("?"), "message": context.answer_message, "known": list(context.extensions)}

    call.lab.registry.register(ExecutorSpec(id="looks", make=lambda: _Executor(looks)))
    task = await call.send("looks")
    await call("tasks.answer", {"task_id": task["id"], "answer": 7})
    await call.session.wait(task["id"], has_ended)
    done = await call("tasks.get", {"task_id": task["id"]})
    assert done["result"] == {"answer": 7, "message": None, "known": []}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"metadata": [1]}, "metadata must be a dict"),
        ({"metadata": {"a": {1}}}, "metadata"),
        ({"extensions": URI}, "extensions must be a list of URIs"),
        ({"extensions": [1]}, "extensions must be text"),
    ],
)
@pytest.mark.parametrize("say", ["message", "reply", "artifact", "ask"])
@pytest.mark.asyncio
async def test_wrong_marks_fail_the_task_and_say_nothing(call: Caller, say: str, wrong: Any, why: str) -> None:
    async def speaks(inputs: dict[str, Any], context: TaskContext) -> Any:
        await getattr(context, say)("x", **wrong)

    call.lab.registry.register(ExecutorSpec(id="speaks", make=lambda: _Executor(speaks)))
    task = await call.send("speaks")
    assert (state(task), why in str(text(task["status"]["message"])), spoken(task)) == ("FAILED", True, [(USER, "hi")])
