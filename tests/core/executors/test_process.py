"""Functions in processes of their own: what they can say, and that nothing of them is left."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec import to_builtins

from core.executors import process, process_worker
from core.executors.base import Parts, Rejected, Suspend, TaskContext
from core.executors.function import Declared, make_spec
from core.executors.process import MAX_FRAME, Channel, ProcessExecutor, ProcessFailed, answer, locate
from core.executors.process_group import living_members
from core.executors.signature import InputsRefused, Signature
from core.loop import large_values
from core.loop.large_values import CHARACTERS
from core.model.commands import ReportProgress
from core.model.errors import CallerError, ConfigurationError, StaleAttempt
from tests.core.contents import text_of, texts
from tests.core.executors import functions
from tests.core.executors.context import Said, make_context

FAIL_LINE = f"functions.py:{functions.fail.__code__.co_firstlineno + 1}"


async def run(
    function: Callable[..., Any], inputs: dict[str, Any] | None = None, context: TaskContext | None = None
) -> Any:
    spec = make_spec("f", function, Declared(isolation="process"))
    assert spec.uses_process and spec.cancelable
    return await spec.make().execute(inputs or {}, context or make_context())


@pytest.mark.asyncio
async def test_function_runs_in_another_process_and_group_that_is_gone_afterwards() -> None:
    result = await run(functions.double, {"number": 21})
    assert result["doubled"] == 42
    assert result["group"] == result["pid"] != os.getpid()
    assert not psutil.pid_exists(result["pid"])


@pytest.mark.asyncio
async def test_function_without_parameters_and_class_run_too() -> None:
    assert await run(functions.nothing) is None
    assert await run(functions.Adder, {"a": 1, "b": 2}) == 3


@pytest.mark.asyncio
async def test_what_a_function_says_is_reported_in_order_and_parts_stay_parts() -> None:
    said = Said()
    result = await run(functions.tell, context=make_context(said, dependencies={"a": 7}, depends_on=("a", "b")))
    assert isinstance(result, Parts)
    assert result == [{"text": "t1 1 t1:1 7 without b"}]
    assert said.fractions == [0.5]
    assert said.parts == [{"text": "hello"}, {"text": "piece"}]
    assert isinstance(said.commands[0], ReportProgress)


@pytest.mark.asyncio
async def test_task_is_there_to_be_read_as_in_the_other_contexts() -> None:
    context = make_context(depends_on=("d1",), inputs={"n": 2**70})
    assert await run(functions.describe, context=context) == ["Task", "t1", "work", False, ["d1"]]


UNGUARDED = """
import asyncio, sys
from core.executors.function import Declared, make_spec
from tests.core.executors.context import make_context

print("started", flush=True)

def double(inputs):
    return inputs["n"] * 2

spec = make_spec("double", double, Declared(isolation="process"))
print(asyncio.run(spec.make().execute({"n": 1}, make_context())), flush=True)
"""


def test_program_without_a_guard_is_told_so_instead_of_starting_itself_without_end(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(UNGUARDED)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, env=env, timeout=60)
    assert done.stdout == "started\n" * 2, "once by us, and once more when the child loads the file"
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]


@pytest.mark.asyncio
async def test_function_in_a_process_may_start_processes_once_it_runs() -> None:
    """Only the loading of its file is no time for that."""
    assert await run(functions.nested) == {"n": 1}


@pytest.mark.asyncio
async def test_question_ends_the_attempt_and_answers_are_given_in_order() -> None:
    with pytest.raises(Suspend) as caught:
        await run(functions.ask_twice, context=make_context(answers=("one",)))
    assert (caught.value.parts, caught.value.auth) == (texts("second?"), True)
    assert await run(functions.ask_twice, context=make_context(answers=("one", "two"))) == ["one", "two"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (functions.fail, "it broke"),
        (functions.fail_without_words, "KeyError"),
        (functions.leave, "going"),
        (functions.die, r"without a result \(exit code 3\)"),
        (functions.kill_itself, r"without a result \(signal 11\)"),
        (functions.return_a_set, "the result is not JSON"),
        (functions.return_a_number_as_a_key, "the result is not JSON: an object has the key 1, which is not a string"),
        (functions.give_a_number_as_a_key, "an object has the key 1, which is not a string"),
        (functions.return_itself, "the result is not JSON: Circular reference detected"),
    ],
)
async def test_failure_comes_back_as_text(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(ProcessFailed, match=text):
        await run(function)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (functions.say_nonsense, "could not convert string to float"),
        (functions.reply_late, r"reply\(\) must come first"),
    ],
)
async def test_what_its_context_refuses_comes_back_as_our_own_text(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(CallerError, match=text):
        await run(function)


@pytest.mark.asyncio
async def test_inputs_are_taken_by_name_in_the_child_too() -> None:
    assert await run(functions.by_name, {"number": 3}) == [6, 1]
    assert await run(functions.by_name, {"number": 3, "times": 3, "other": None}) == [9, 1]
    with pytest.raises(InputsRefused, match=r"inputs.number: expected `integer`, got `string`"):
        await run(functions.by_name, {"number": "3"})


@pytest.mark.asyncio
async def test_rejection_comes_back_as_one() -> None:
    with pytest.raises(Rejected, match="not mine"):
        await run(functions.reject)


@pytest.mark.asyncio
async def test_lost_attempt_ends_the_process() -> None:
    context = make_context()

    async def refuse(tree_id: str, command: Any) -> None:
        raise StaleAttempt("t1", 1)

    context.report = refuse
    with pytest.raises(StaleAttempt):
        await run(functions.hang, context=context)


@pytest.mark.asyncio
async def test_large_values_pass_both_ways() -> None:
    inputs = {"text": "x" * 3_000_000, "deep": [{"a": None}] * 1000}
    assert await run(functions.echo, inputs) == inputs


@pytest.mark.asyncio
async def test_cancel_kills_the_process_and_its_children() -> None:
    pids: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
    context = make_context()

    async def report(tree_id: str, command: Any) -> None:
        pids.set_result(json.loads(text_of(command.message)))

    context.report = report
    attempt = asyncio.ensure_future(run(functions.hang, context=context))
    child, grandchild = await asyncio.wait_for(pids, 20)
    assert set(living_members(child)) == {child, grandchild}
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert living_members(child) == []


def test_child_ends_when_its_parent_is_killed() -> None:
    """kill -9 of the server must not leave functions running beside their own repetition."""
    program = (
        "import asyncio\n"
        "from core.executors.process import ProcessExecutor, locate\n"
        "from core.executors.signature import Signature\n"
        "from tests.core.executors import functions\n"
        "from tests.core.executors.context import make_context\n"
        "context = make_context()\n"
        "async def report(tree_id, command): print(command.message.parts[0].text, flush=True)\n"
        "context.report = report\n"
        "asyncio.run(ProcessExecutor(locate(functions.hang), Signature(arity=2)).execute({}, context))\n"
    )
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert server.stdout is not None
    pids = json.loads(server.stdout.readline())
    children = [psutil.Process(pid) for pid in pids]
    server.kill()
    server.wait()
    server.stdout.close()
    psutil.wait_procs(children, timeout=10)
    assert all(not child.is_running() or child.status() == psutil.STATUS_ZOMBIE for child in children)


@pytest.mark.asyncio
async def test_function_of_a_file_that_is_no_module_is_found(tmp_path: Path) -> None:
    """As `serve FILE` loads it: under a name that no import finds, or one that finds another file."""
    file = tmp_path / "json.py"
    file.write_text(
        "def answer(inputs):\n    return __name__\n\nif __name__ == '__main__':\n    raise SystemExit('run')\n"
    )
    for module in ("json", "__main__", "nowhere.at.all"):
        location = type(locate(functions.echo))(module, str(file), "answer")
        expected = "__executor_main__" if module == "__main__" else module
        assert await ProcessExecutor(location, Signature(arity=1)).execute({}, make_context()) == expected


@pytest.mark.asyncio
async def test_function_that_is_gone_from_its_file_fails() -> None:
    location = type(locate(functions.echo))(functions.__name__, functions.__file__, "no_such_function")
    with pytest.raises(ProcessFailed, match="no_such_function"):
        await ProcessExecutor(location, Signature(arity=1)).execute({}, make_context())


def test_function_inside_another_is_refused() -> None:
    def inner(inputs: dict[str, Any]) -> None: ...

    for function in (inner, lambda inputs: None):
        with pytest.raises(ConfigurationError, match="top level of a file"):
            make_spec("f", function, Declared(isolation="process"))


class FakeChannel:
    """Gives a job, and answers each call with its own words."""

    def __init__(self, function: str, inputs: dict[str, Any], arity: int | None) -> None:
        facts: dict[str, Any] = {"task": to_builtins(make_context().task), "task_id": "t1"}
        facts |= {"run": 1, "attempt": 1, "idempotency_key": "t1:1", "dependencies": {"a": 7}, "absent": []}
        facts |= {"extensions": [], "answer_messages": []}
        self.job = {
            "module": functions.__name__,
            "path": functions.__file__,
            "qualified_name": function,
            "arity": arity,
            "sys_path": sys.path,
            "inputs": inputs,
            "context": facts | {"request": {}, "context_id": None, "extensions": ["x"]},
        }
        self.calls: list[tuple[str, list[Any], dict[str, Any]]] = []

    def receive(self) -> Any:
        return self.job

    def call(self, method: str, positional: list[Any], named: dict[str, Any]) -> Any:
        self.calls.append((method, positional, named))
        return method


@pytest.mark.parametrize(
    ("function", "arity", "outcome"),
    [
        ("echo", 1, {"result": {"value": {"n": 1}}}),
        ("nothing", 0, {"result": {"value": None}}),
        ("describe", 2, {"result": {"value": ["Task", "t1", "work", False, []]}}),
        ("ask_twice", 2, {"result": {"value": ["ask", "ask"]}}),
        ("read", 2, {"result": {"value": 6}}),  # bytes of what FakeChannel says, read as base64
        ("reply_late", 2, {"result": {"value": None}}),
        ("tell", 2, {"result": {"parts": [{"text": "t1 1 t1:1 7 without"}]}}),
        ("marks", 2, {"result": {"value": {"seen": [None, None, None], "extensions": ["x"]}}}),
        ("fail", 1, {"raised": f"ValueError: it broke ({FAIL_LINE})", "kind": "ValueError"}),
        ("reject", 1, {"rejected": "not mine"}),
        ("by_name", None, {"unfit": "inputs: 'number' is a required property"}),
    ],
)
def test_worker_does_its_job(function: str, arity: int | None, outcome: dict[str, Any]) -> None:
    """The same as in a child, here."""
    channel = FakeChannel(function, {"n": 1}, arity)
    assert process_worker.run(channel) == outcome  # type: ignore[arg-type]
    if function == "tell":
        assert [method for method, _, _ in channel.calls] == ["progress", "message", "artifact"]
        assert channel.calls[2][1] == [{"parts": [{"text": "piece"}]}]


def test_worker_runs_a_class_and_loads_a_file_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "alone.py"
    file.write_text("class Inner:\n    def execute(self, inputs):\n        return inputs\n")
    channel = FakeChannel("Inner", {"n": 1}, 1)
    channel.job |= {"module": "__main__", "path": str(file)}
    assert process_worker.run(channel) == {"result": {"value": {"n": 1}}}  # type: ignore[arg-type]
    sys.modules.pop("__executor_main__")
    channel.job |= {"module": "nowhere.at_all", "path": str(tmp_path / "no-python")}
    assert "is not a Python file" in process_worker.run(channel)["raised"]  # type: ignore[arg-type]


def test_worker_and_parent_speak_in_frames() -> None:
    ours, theirs = socket.socketpair()
    hung_up = threading.Event()
    channel = process_worker.Channel(theirs, hung_up.set)

    def frame(value: Any) -> bytes:
        data = json.dumps(value).encode()
        return len(data).to_bytes(process_worker.HEADER) + data

    channel.listen()
    with ours, theirs:
        ours.sendall(frame({"value": "answer"}) + frame({"error": "no"}))
        assert channel.call("ask", [1], {"auth": True}) == "answer"
        assert ours.recv(1000) == frame({"call": "ask", "positional": [1], "named": {"auth": True}})
        with pytest.raises(RuntimeError, match="no"):
            channel.call("progress", [1], {})
        ours.shutdown(socket.SHUT_WR)
        assert hung_up.wait(10)


@pytest.mark.asyncio
async def test_frame_without_measure_is_refused() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=ours), MAX_FRAME, asyncio.to_thread)
    with theirs:
        theirs.sendall((MAX_FRAME + 1).to_bytes(process_worker.HEADER))
        with pytest.raises(ProcessFailed, match="at once"):
            await channel.receive()
        channel.close()
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_child_can_call_nothing_but_its_context() -> None:
    said = {"call": "report", "positional": [], "named": {}}
    assert await answer(said, make_context()) == {"error": "no such method"}


def test_worker_imports_nothing_of_the_core() -> None:
    """Its start is paid for each attempt."""
    loaded = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); print([m for m in sys.modules if m.split('.')[0] == 'core'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded, process_worker.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_bytes_go_over_the_wire_as_base64() -> None:
    assert process_worker.wrapped(Parts([{"raw": b"hi"}, {"text": "x"}])) == {"parts": [{"raw": "aGk="}, {"text": "x"}]}


@pytest.mark.asyncio
async def test_a_child_may_read_a_file() -> None:
    said = {"call": "read_file", "positional": [{"value": {"raw": "aGk="}}], "named": {}}
    assert await answer(said, make_context()) == {"value": "aGk="}
    said["positional"] = [{"value": {"text": "x"}}]
    assert "is not a file" in (await answer(said, make_context()))["error"]


@pytest.mark.asyncio
@pytest.mark.parametrize(("value", "is_large"), [("x", False), ("x" * (CHARACTERS + 1), True), ([{}] * 20_000, True)])
async def test_large_frames_are_encoded_and_decoded_beside_the_loop(
    value: Any, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By turns of their caller, as all that attempts take and give."""
    context = make_context()
    callers: list[str] = []
    threads: list[bool] = []
    run_beside = context.beside.run

    async def counted(caller: str, function: Callable[..., Any], *args: Any) -> Any:
        callers.append(caller)
        return await run_beside(caller, function, *args)

    def watched(frame: Any) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return large_values.encoded(frame)

    monkeypatch.setattr(context.beside, "run", counted)
    monkeypatch.setattr(process, "encoded", watched)
    assert await run(functions.echo, {"value": value}, context) == {"value": value}
    assert threads == [not is_large]
    assert callers == [context.stored_task.owner] * (2 * is_large)
