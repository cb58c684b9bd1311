"""Functions in processes of their own: what they can say, and that nothing of them is left."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.commands import ReportProgress
from core.errors import ConfigurationError, StaleAttempt
from core.executors import process_worker
from core.executors.base import Parts, Rejected, Suspend, TaskContext
from core.executors.function import Declared, make_spec
from core.executors.process import ProcessExecutor, ProcessFailed, locate
from core.executors.process_group import living_members
from tests.core.executors import functions
from tests.core.executors.context import Said, make_context


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
    result = await run(functions.tell, context=make_context(said, dependencies={"a": 7}))
    assert isinstance(result, Parts)
    assert result == [{"text": "t1 1 t1:1 7"}]
    assert said.fractions == [0.5]
    assert said.parts == [{"text": "hello"}, {"text": "piece"}]
    assert isinstance(said.commands[0], ReportProgress)


@pytest.mark.asyncio
async def test_question_ends_the_attempt_and_answers_are_given_in_order() -> None:
    with pytest.raises(Suspend) as caught:
        await run(functions.ask_twice, context=make_context(answers=("one",)))
    assert (caught.value.parts, caught.value.auth) == (({"text": "second?"},), True)
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
        (functions.say_nonsense, "could not convert string to float"),
        (functions.reply_late, r"reply\(\) comes first"),
    ],
)
async def test_failure_comes_back_as_text(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(ProcessFailed, match=text):
        await run(function)


@pytest.mark.asyncio
async def test_rejection_comes_back_as_one() -> None:
    with pytest.raises(Rejected, match="not mine"):
        await run(functions.reject)


@pytest.mark.asyncio
async def test_lost_attempt_ends_the_process() -> None:
    context = make_context()

    async def refuse(command: Any) -> None:
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

    async def report(command: Any) -> None:
        pids.set_result(json.loads(command.message["parts"][0]["text"]))

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
        "from tests.core.executors import functions\n"
        "from tests.core.executors.context import make_context\n"
        "context = make_context()\n"
        "async def report(command): print(command.message['parts'][0]['text'], flush=True)\n"
        "context.report = report\n"
        "asyncio.run(ProcessExecutor(locate(functions.hang), 2).execute({}, context))\n"
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
        assert await ProcessExecutor(location, 1).execute({}, make_context()) == expected


@pytest.mark.asyncio
async def test_function_that_is_gone_from_its_file_fails() -> None:
    location = type(locate(functions.echo))(functions.__name__, functions.__file__, "no_such_function")
    with pytest.raises(ProcessFailed, match="no_such_function"):
        await ProcessExecutor(location, 1).execute({}, make_context())


def test_function_inside_another_is_refused() -> None:
    def inner(inputs: dict[str, Any]) -> None: ...

    for function in (inner, lambda inputs: None):
        with pytest.raises(ConfigurationError, match="top level of a file"):
            make_spec("f", function, Declared(isolation="process"))


def test_worker_imports_nothing_of_the_core() -> None:
    """Its start is paid for each attempt."""
    loaded = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); print([m for m in sys.modules if m.split('.')[0] == 'core'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded, process_worker.__file__], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
