"""What becomes of a message beside its task: files, references, contexts, modes, and how its work is stopped."""

import asyncio
import base64
from typing import Any

import pytest

from core.executors.base import ExecutorSpec, Parts, TaskContext
from core.executors.function import executor
from tests.a2a_server.conftest import Caller, calling, message, somebody, tree_message
from tests.a2a_server.methods.test_methods_a2a import refused, state


def register(call: Caller, run: Any, **options: Any) -> None:
    """Make an executor of the function, under its name."""
    executor(run.__name__, registry=call.lab.registry, **options)(run)


# Files


@pytest.mark.asyncio
async def test_a_file_goes_in_and_comes_out(call: Caller) -> None:
    async def upper(inputs: dict[str, Any], context: TaskContext) -> Any:
        content = await context.read_file(inputs["files"][0])
        return Parts([
            {"raw": content.upper(), "filename": "out.txt", "mediaType": "text/plain"},
            {"url": "https://example.com/more"},
        ])  # fmt: skip

    register(call, upper)
    given = {"raw": base64.urlsafe_b64encode(b"hi?").decode().rstrip("="), "mediaType": "text/plain"}
    task = (await call("SendMessage", message("upper", given)))["task"]
    assert task["artifacts"][0]["parts"] == [
        {"raw": base64.b64encode(b"HI?").decode(), "filename": "out.txt", "mediaType": "text/plain"},
        {"url": "https://example.com/more"},
    ]
    assert task["history"][0]["parts"] == [given | {"raw": base64.b64encode(b"hi?").decode()}]


@pytest.mark.asyncio
async def test_a_file_at_a_private_address_fails_the_task_with_a_safe_text(call: Caller) -> None:
    async def fetch(inputs: dict[str, Any], context: TaskContext) -> Any:
        return len(await context.read_file(inputs["files"][0]))

    register(call, fetch)
    task = (await call("SendMessage", message("fetch", {"url": "http://127.0.0.1:1/"})))["task"]
    assert state(task) == "FAILED"
    assert task["status"]["message"]["parts"] == [{"text": "the file cannot be read: destination not allowed"}]


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
@pytest.mark.asyncio
async def test_a_file_over_the_limit_is_refused_for_new_and_running_tasks(method: str) -> None:
    async with calling(max_file=4) as call:
        task = await call.send("ask")
        large = {"raw": base64.b64encode(b"12345").decode()}
        for given in (message("echo", large), message(None, large, task=task["id"])):
            error = await refused(call, method, given)
            assert (error.code, error.fields) == (-32602, {"message.parts[0].raw"})
        assert (await call("ListTasks", {}))["totalSize"] == 1


@pytest.mark.asyncio
async def test_too_much_output_fails_the_task_with_a_clear_error(call: Caller) -> None:
    async def flood(inputs: dict[str, Any], context: TaskContext) -> Any:
        return Parts([{"raw": bytes(8 * 1024 * 1024)}])

    register(call, flood)
    task = await call.send("flood")
    assert state(task) == "FAILED"
    assert "10485760 are allowed" in task["status"]["message"]["parts"][0]["text"]


@pytest.mark.asyncio
async def test_an_append_to_no_artifact_fails_the_task(call: Caller) -> None:
    """A2A §4.2.2: such an event would be an invalid response of the agent."""

    async def torn(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.artifact("x", artifact_id="a", append=True)

    register(call, torn)
    task = await call.send("torn")
    assert (state(task), "artifacts" in task) == ("FAILED", False)
    assert "there is no artifact 'a'" in task["status"]["message"]["parts"][0]["text"]


@pytest.mark.asyncio
async def test_an_answer_in_a_media_type_that_its_executor_does_not_take_is_refused(call: Caller) -> None:
    task = await call.send("ask")
    answer = message(None, {"url": "https://example.com/a.mp4", "mediaType": "video/mp4"}, task=task["id"])
    assert (await refused(call, "SendMessage", answer)).code == -32005
    tree = (await call("SendMessage", tree_message({"id": "r", "name": "g"}, {"name": "ask", "parent_id": "r"})))[
        "task"
    ]
    picture = message(None, {"url": "https://example.com/a.png", "mediaType": "image/png"}, task=tree["id"])
    again = (await call("SendMessage", picture))["task"]
    assert again["status"]["message"]["parts"] == [{"text": "second?"}]


# What the executor sees of the request


@pytest.mark.asyncio
async def test_executor_sees_the_references_that_its_caller_may_see(call: Caller) -> None:
    mine = (await call("SendMessage", tree_message({"id": "r", "name": "g"}, {"name": "number", "parent_id": "r"})))[
        "task"
    ]
    child = mine["artifacts"][0]["artifactId"]
    foreign = (await call("SendMessage", message("nothing"), principal=somebody("bob")))["task"]["id"]
    params = message("echo")
    params["message"]["referenceTaskIds"] = [mine["id"], foreign, "unheard", child, mine["id"]]
    task = (await call("SendMessage", params))["task"]
    assert call.lab.requests[0]["message"]["referenceTaskIds"] == [mine["id"], child]
    assert task["history"][0]["referenceTaskIds"] == params["message"]["referenceTaskIds"]


@pytest.mark.asyncio
async def test_executor_sees_the_accepted_output_modes(call: Caller) -> None:
    modes = ["text/plain", "video/mp4"]
    await call("SendMessage", message("echo") | {"configuration": {"acceptedOutputModes": modes}})
    await call("SendMessage", message("echo"))
    assert [request.get("acceptedOutputModes") for request in call.lab.requests] == [modes, None]


# Contexts


@pytest.mark.asyncio
async def test_a_context_is_scoped_to_its_owner(call: Caller) -> None:
    await call.send("nothing", context="shared")
    theirs = await call("SendMessage", message("nothing", context="shared"), principal=somebody("bob"))
    assert theirs["task"]["contextId"] == "shared"
    assert (await call("ListTasks", {"contextId": "shared"}))["totalSize"] == 1


@pytest.mark.asyncio
async def test_contexts_of_clients_are_refused_where_the_operator_says_so() -> None:
    async with calling(client_context_ids=False) as call:
        first = await call.send("nothing")
        again = await call.send("nothing", context=first["contextId"])
        assert again["contextId"] == first["contextId"]
        own = await refused(call, "SendMessage", message("nothing", context="mine"))
        foreign = await refused(
            call, "SendMessage", message("nothing", context=first["contextId"]), principal=somebody("bob")
        )
        for error in (own, foreign):
            assert (error.code, error.fields) == (-32602, {"message.contextId"})
        assert own.message == foreign.message
        asking = await call.send("ask", context=first["contextId"])
        assert state((await call("SendMessage", message(task=asking["id"])))["task"]) == "INPUT_REQUIRED"


# Cancelling


class Stopped:
    """Holds, and notes what its cancel() and its interruption see."""

    def __init__(self, seen: list[Any], started: asyncio.Event) -> None:
        self._seen = seen
        self._started = started
        self._context: TaskContext | None = None

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        self._context = context
        self._started.set()
        await asyncio.get_running_loop().create_future()

    async def cancel(self) -> None:
        assert self._context is not None
        self._seen.append(dict(self._context.cancel_metadata))


@pytest.mark.asyncio
async def test_metadata_of_a_cancel_reaches_the_executors_that_it_stops(call: Caller) -> None:
    seen: list[Any] = []
    starts = [asyncio.Event(), asyncio.Event()]
    makers = iter([lambda: Stopped(seen, starts[0]), lambda: Stopped(seen, starts[1])])
    call.lab.registry.register(ExecutorSpec(id="stopped", make=lambda: next(makers)()))
    tree = tree_message({"id": "r", "name": "g"}, *({"name": "stopped", "parent_id": "r"} for _ in range(2)))
    task = (await call("SendMessage", tree | {"configuration": {"returnImmediately": True}}))["task"]
    for started in starts:
        await started.wait()
    canceled = await call("CancelTask", {"id": task["id"], "metadata": {"reason": "enough", "keep": True}})
    assert state(canceled) == "CANCELED"
    assert seen == [{"reason": "enough", "keep": True}] * 2


# Speed


@pytest.mark.asyncio
async def test_a_blocking_call_for_a_new_task_reads_nothing_of_it_from_storage(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read costs a turn of a reader's thread; with three of them a call takes twice as long."""
    storage = call.session.storage
    read: list[str] = []
    for name in ("head", "task", "events", "load"):
        known = getattr(storage, name)

        def noted(*args: Any, name: str = name, known: Any = known, **options: Any) -> Any:
            read.append(name)
            return known(*args, **options)

        monkeypatch.setattr(storage, name, noted)
    sent = await call.send("echo", text="hi")
    assert state(sent) == "COMPLETED"
    assert read == []
    monkeypatch.undo()
    assert await call("GetTask", {"id": sent["id"]}) == sent


# Schemas that come with the tasks


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
@pytest.mark.asyncio
async def test_a_large_schema_that_cannot_be_used_is_refused_by_its_field(call: Caller, method: str) -> None:
    """It is judged in another process; small ones are refused by the same path."""
    for properties in (1, 200):
        own = {"type": "no such type", "properties": {f"p{n}": {"type": "integer"} for n in range(properties)}}
        tree = tree_message({"name": "echo", "schemas": {"input_schema": own}})
        error = await refused(call, method, tree)
        assert (error.code, error.fields) == (-32602, {"message.parts[0].data.tasks[0].schemas.input_schema"})
    assert (await call("ListTasks", {}))["totalSize"] == 0


# Bytes in flight

BIG = {"data": {"big": "x" * 10_000}}
STARTS: dict[str, Any] = {
    "SendMessage": message("hold", BIG),
    "SendStreamingMessage": message("hold", BIG),
    "message/send": {
        "message": {"kind": "message", "messageId": "m", "role": "user", "parts": [BIG | {"kind": "data"}]},
        "metadata": {"skillId": "hold"},
    },
    "tasks.execute": {"tasks": [{"name": "hold", "inputs": BIG}]},
}


@pytest.mark.parametrize("method", STARTS)
@pytest.mark.asyncio
async def test_inputs_beyond_the_caller_s_share_are_refused_until_others_have_ended(method: str) -> None:
    async with calling(max_in_flight_per_caller=30_000) as call:
        task_id = await call.begin("hold", text="x" * 10_000)
        error = await refused(call, method, STARTS[method])
        assert (error.code, "would exceed your 30000" in str(error)) == (-32050, True)
        await call("CancelTask", {"id": task_id})
        call.lab.released["hold"].set()
        if method == "SendStreamingMessage":
            assert await call.frames(method, STARTS[method])
        else:
            await call(method, STARTS[method])


@pytest.mark.parametrize("method", STARTS)
@pytest.mark.asyncio
async def test_inputs_beyond_what_the_process_may_hold_are_refused_as_overload(method: str) -> None:
    async with calling(max_in_flight=5_000) as call:
        error = await refused(call, method, STARTS[method])
        assert error.code == -32051
        assert (await call("ListTasks", {}))["totalSize"] == 0
        assert await call.send("echo"), "a small one fits"


@pytest.mark.asyncio
async def test_answer_to_a_question_beyond_the_share_is_refused_and_a_cancel_is_not() -> None:
    async with calling(max_in_flight_per_caller=8_000) as call:
        task_id = await call.begin("ask")
        await call.session.wait(task_id, lambda head: head.status.is_interrupted)
        error = await refused(call, "SendMessage", message(None, BIG, task=task_id))
        assert error.code == -32050
        assert state(await call("CancelTask", {"id": task_id})) == "CANCELED"
