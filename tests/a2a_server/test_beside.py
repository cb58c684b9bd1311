"""What is large is judged, copied and encoded beside the event loop; what is small costs no thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from a2a_server.app import build
from a2a_server.bindings import jsonrpc
from a2a_server.config import Config
from a2a_server.server import Server, listen
from a2a_server.views import frames
from core import session
from core.executors import base
from core.executors.family import Family
from core.loop import large_values
from core.loop.large_values import CHARACTERS, VALUES
from core.model.commands import ProvideInput
from core.model.submission import Submission
from core.run import attempt
from core.session import has_ended
from core.storage.base import EventQuery
from tests.a2a_server.conftest import Caller, message
from tests.core.cores import settle

SMALL: list[Any] = ["text", {"a": [1, {"b": None}]}]
LARGE: list[Any] = ["x" * (CHARACTERS + 1), [{"n": n} for n in range(VALUES)]]
SIZES = [*((value, False) for value in SMALL), *((value, True) for value in LARGE)]


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each function that takes long was called beside the loop."""
    seen: dict[str, int] = {}

    def watch(module: Any, name: str) -> None:
        old: Callable[..., Any] = getattr(module, name)

        def watched(*args: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread(), f"{name} on the loop"
            seen[name] = seen.get(name, 0) + 1
            return old(*args)

        watched.__name__ = name
        monkeypatch.setattr(module, name, watched)

    watch(large_values, "encoded")
    watch(attempt, "measured_in_pieces")
    watch(attempt, "copied_in_pieces")
    watch(base, "measured_in_pieces")
    watch(jsonrpc, "encode_in_pieces")
    watch(frames, "encode_in_pieces")
    return seen


async def ended(call: Caller, value: Any, skill: str = "echo") -> str:
    """A task whose inputs and result are that value, which has ended; its id."""
    head = (
        await call.session.create(
            call.session.plan([{"name": skill, "inputs": {"value": value}}]),
            Submission(origin="a2a", context_id="c"),
            execute=True,
        )
    ).head
    await call.session.wait(head.id, has_ended)
    return head.id


@pytest.mark.parametrize(("value", "is_large"), SIZES)
@pytest.mark.asyncio
async def test_inputs_are_copied_and_results_judged_beside_the_loop_where_they_are_large(
    call: Caller, beside: dict[str, int], value: Any, is_large: bool
) -> None:
    """A result of 9 MiB of small values held the loop for three seconds."""
    task_id = await ended(call, value)
    task = await call.session.storage.task(task_id)
    assert task is not None and task.result == {"value": value}
    assert beside == ({"measured_in_pieces": 1, "copied_in_pieces": 1} if is_large else {})


READS: dict[str, Callable[[str], Any]] = {
    "tasks.get": lambda task_id: {"task_id": task_id},
    "tasks.detail": lambda task_id: {"task_id": task_id},
    "tasks.tree": lambda task_id: {"task_id": task_id},
    "tasks.list": lambda task_id: {},
    "tasks.events": lambda task_id: {"task_id": task_id, "after": 3},
    "tasks.copy": lambda task_id: {"task_id": task_id},
}


@pytest.mark.parametrize(("value", "is_large"), SIZES)
@pytest.mark.parametrize("method", READS)
@pytest.mark.asyncio
async def test_answers_are_encoded_beside_the_loop_where_they_are_large(
    call: Caller, beside: dict[str, int], method: str, value: Any, is_large: bool
) -> None:
    task_id = await ended(call, value)
    params = READS[method](task_id)
    if method == "tasks.events":
        log = await call.session.storage.events(EventQuery(tree_id=task_id))
        params["after"] = next(each.seq for each in log if "Completed" in type(each.event).__name__) - 1
        params["limit"] = 1
    beside.clear()
    told = await call(method, params)
    assert beside.get("encode_in_pieces", 0) == is_large
    assert str(value)[:50] in str(told)


@pytest.mark.parametrize(("value", "is_large"), SIZES)
@pytest.mark.asyncio
async def test_the_children_of_a_task_are_told_beside_the_loop_where_they_are_large(
    call: Caller, beside: dict[str, int], value: Any, is_large: bool
) -> None:
    root_id = await call.tree({"id": "r", "name": "r"}, {"name": "echo", "parent_id": "r", "inputs": {"value": value}})
    (child,) = await call("tasks.children", {"parent_id": root_id})
    assert child["inputs"] == {"value": value}
    assert beside.get("encode_in_pieces", 0) >= is_large
    assert is_large or not beside


@pytest.mark.parametrize("how", ["artifact", "message"])
@pytest.mark.parametrize(("value", "is_large"), SIZES)
@pytest.mark.asyncio
async def test_what_an_executor_tells_is_judged_beside_the_loop_where_it_is_large(
    call: Caller, beside: dict[str, int], how: str, value: Any, is_large: bool
) -> None:
    async def tell(inputs: dict[str, Any], context: Any) -> None:
        await getattr(context, how)(value)

    call.lab._register(tell)
    await call.send("tell")
    assert beside.get("measured_in_pieces", 0) == is_large
    assert beside.get("encoded", 0) == is_large


@pytest.mark.parametrize(("value", "is_large"), SIZES)
@pytest.mark.asyncio
async def test_an_answer_is_measured_beside_the_loop_where_it_is_large(
    call: Caller, monkeypatch: pytest.MonkeyPatch, value: Any, is_large: bool
) -> None:
    used: list[bool] = []
    measure = session._memory_of

    def watched(brought: Any) -> int:
        used.append(threading.current_thread() is not threading.main_thread())
        return measure(brought)

    async def wonder(inputs: dict[str, Any], context: Any) -> Any:
        return await context.ask("What?")

    call.lab._register(wonder)
    task_id = await call.begin("wonder")
    await call.session.wait(task_id, lambda head: head.status.is_interrupted)
    monkeypatch.setattr(session, "_memory_of", watched)
    await call.session.provide_input(ProvideInput(task_id, value))
    await call.session.wait(task_id, has_ended)
    assert used == [is_large]


@pytest.mark.parametrize(("value", "is_large"), SIZES)
@pytest.mark.asyncio
async def test_large_frames_are_made_beside_the_loop_once_for_all_followers(
    call: Caller, monkeypatch: pytest.MonkeyPatch, value: Any, is_large: bool
) -> None:
    made: list[str] = []
    used: list[bool] = []
    updates, run = frames.updates, call.session.beside.run

    async def counted(caller: str, function: Any, *args: Any) -> Any:
        used.append(function is tuple)
        return await run(caller, function, *args)

    def seen(recorded: Any, *args: Any, **named: Any) -> Any:
        made.append(type(recorded.event).__name__)
        return updates(recorded, *args, **named)

    async def tell(inputs: dict[str, Any], context: Any) -> None:
        await call.lab.released["tell"].wait()
        await context.artifact(value)

    call.lab._register(tell)
    monkeypatch.setattr(frames, "updates", seen)
    monkeypatch.setattr(frames, "LARGEST_KEPT", 1_000)  # so that no large frame is kept
    monkeypatch.setattr(call.session.beside, "run", counted)
    task_id = await call.begin("tell")
    followers = [asyncio.create_task(call.frames("SubscribeToTask", {"id": task_id})) for _ in range(5)]
    while call.session.feed.followers < 5:
        await settle(1)
    call.lab.released["tell"].set()
    told = await asyncio.gather(*followers)
    assert all(any("artifactUpdate" in frame.data["result"] for frame in frames) for frames in told), (
        "each of them has got it"
    )
    assert sum(used) == is_large, "one thread for all of them"


@pytest.mark.asyncio
async def test_an_answer_for_which_there_is_no_room_is_cut_although_it_is_large(call: Caller) -> None:
    """What is marked as large is told bare where it must be told, as any other."""
    assert jsonrpc.Large({"id": "t", "result": LARGE}).value["id"] == "t"
    assert (await call("SendMessage", message("echo", {"data": {"value": LARGE[1]}})))["task"]["status"]


@pytest.mark.asyncio
async def test_the_end_looks_at_the_processes_of_the_machine_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    @contextmanager
    def owns_forks(family: Family) -> Iterator[None]:
        yield
        threads.append(threading.current_thread() is threading.main_thread())

    monkeypatch.setattr(Family, "owns_forks", owns_forks)
    config = Config(port=0, database=f"sqlite:///{tmp_path}/t.db", log_level="error")
    with listen(config.host, config.port, config.send_buffer) as listener:
        server = Server(
            build(config, port=listener.getsockname()[1]), lambda url, address: server.handle_exit(15, None)
        )
        await server.serve(sockets=[listener])
    assert threads == [False]
