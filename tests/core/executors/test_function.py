"""The `executor` decorator: what it makes of functions and classes."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from core.executors.base import ExecutorSpec, Suspend
from core.executors.function import THREADS, Declared, executor, make_spec, register_executor
from core.executors.registry import ExecutorRegistry, default_registry
from core.executors.threads import ExecutorExit, ThreadContext, ThreadPool
from core.model.commands import AddArtifact
from core.model.errors import CallerError, ConfigurationError
from tests.core.executors.context import Said, make_context

REQUEST = contextvars.ContextVar[str]("REQUEST")


def spec_of(target: Any, declared: Declared | None = None) -> ExecutorSpec:
    return make_spec("f", target, declared or Declared())


async def run(target: Any, inputs: dict[str, Any] | None = None, said: Said | None = None) -> Any:
    return await spec_of(target).make().execute(inputs or {}, make_context(said))


def test_decorator_registers_and_gives_the_function_back() -> None:
    registry = ExecutorRegistry()

    async def greet(inputs: dict[str, Any]) -> str:
        """Says hello.

        And no more.
        """
        return "hello"

    schema = {"type": "object"}
    given = executor(
        "greet",
        input_schema=schema,
        output_schema={"type": "string"},
        tags=["a", "b"],
        examples=["hi"],
        at_most_once=True,
        concurrency=3,
        is_skill=False,
        output_modes=["text/plain"],
        registry=registry,
    )(greet)
    assert given is greet
    spec = registry.get("greet")
    assert spec is not None
    assert (spec.name, spec.description, spec.tags, spec.examples) == ("greet", "Says hello.", ("a", "b"), ("hi",))
    assert (spec.input_schema, spec.at_most_once, spec.concurrency) == (schema, True, 3)
    assert (spec.is_skill, spec.cancelable, spec.uses_process) == (False, True, False)
    assert (spec.input_modes, spec.output_modes) == (("application/json", "text/plain"), ("text/plain",))


def test_taken_id_is_refused_unless_overridden() -> None:
    registry = ExecutorRegistry()
    executor("f", registry=registry)(lambda: 1)
    with pytest.raises(ConfigurationError, match="already registered"):
        executor("f", registry=registry)(lambda: 2)
    executor("f", registry=registry, override=True)(lambda: 3)


def test_default_registry_is_filled_without_further_words() -> None:
    register_executor("test-default-registry", lambda: None)
    try:
        assert "test-default-registry" in default_registry
    finally:
        default_registry.unregister("test-default-registry")


@pytest.mark.asyncio
async def test_functions_take_what_they_ask_for() -> None:
    async def both(inputs: Any, context: Any) -> Any:
        return inputs, context.task_id

    async def one(inputs: Any) -> Any:
        return inputs

    async def none() -> str:
        return "none"

    async def any_number(*arguments: Any) -> int:
        return len(arguments)

    async def default(inputs: Any, times: int = 2) -> int:
        return times

    async def optional_context(inputs: Any, context: Any = None) -> str:
        return context.task_id

    assert await run(both, {"a": 1}) == ({"a": 1}, "t1")
    assert await run(one, {"a": 1}) == {"a": 1}
    assert await run(none) == "none"
    assert await run(any_number) == 2
    assert await run(default) == 2
    assert await run(optional_context) == "t1"


@pytest.mark.asyncio
async def test_plain_function_runs_in_a_thread_that_sees_the_callers_context_variables() -> None:
    def where() -> tuple[str, str]:
        return threading.current_thread().name, REQUEST.get()

    REQUEST.set("r1")
    assert await run(where) == ("executor", "r1")
    assert spec_of(where).cancelable is False
    assert spec_of(where, Declared(cancelable=True)).cancelable is True


@pytest.mark.asyncio
async def test_thread_speaks_through_its_context_and_each_word_is_stored_when_the_method_returns() -> None:
    said = Said()
    stored: list[int] = []

    def work(inputs: dict[str, Any], context: ThreadContext) -> list[Any]:
        context.progress(0.25, "a quarter")
        stored.append(len(said.commands))
        context.message("hello")
        stored.append(len(said.commands))
        context.artifact("piece", name="n", append=False, last_chunk=True, artifact_id="x", metadata={"k": 1})
        stored.append(len(said.commands))
        facts = [context.task.name, context.task_id, context.run, context.attempt, context.idempotency_key]
        facts += [context.dependencies, context.absent]
        return [*facts, context.request, context.context_id, context.cancelled, context.cancel_metadata]

    context = make_context(said, depends_on=("b",))
    told = await spec_of(work).make().execute({}, context)
    assert told == ["work", "t1", 1, 1, "t1:1", {}, ("b",), {}, None, False, {}]
    assert stored == [1, 2, 3]
    assert (said.fractions, said.parts) == ([0.25], [{"text": "hello"}, {"text": "piece"}])
    artifact = said.commands[2]
    assert isinstance(artifact, AddArtifact)
    assert (artifact.artifact.artifact_id, artifact.append, artifact.last_chunk) == ("x", False, True)


@pytest.mark.asyncio
async def test_thread_may_reply_and_ask() -> None:
    def reply(inputs: Any, context: ThreadContext) -> None:
        context.reply("direct")
        context.reply("again")

    def ask(inputs: Any, context: ThreadContext) -> Any:
        try:
            return context.ask("which?")
        except Exception:  # noqa: BLE001 - as careless executors do
            return "a handler of the function's own caught it"

    said = Said()
    with pytest.raises(CallerError, match="must come first"):
        await run(reply, said=said)
    assert said.parts == [{"text": "direct"}]
    with pytest.raises(Suspend):
        await run(ask)
    assert await spec_of(ask).make().execute({}, make_context(answers=("this",))) == "this"


@pytest.mark.asyncio
async def test_thread_learns_that_its_attempt_was_stopped() -> None:
    begun, stopped = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()

    def work(inputs: Any, context: ThreadContext) -> None:
        loop.call_soon_threadsafe(begun.set)
        stopped.wait(10)
        loop.call_soon_threadsafe(ended.set_result, context.cancelled)

    attempt = asyncio.ensure_future(run(work))
    await begun.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    stopped.set()
    assert await asyncio.wait_for(ended, 10) is True


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [SystemExit(1), StopIteration(), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_no_exception_of_a_plain_function_can_stop_the_event_loop(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(ExecutorExit, match=type(error).__name__):
        await asyncio.wait_for(run(work), 10)


@pytest.mark.asyncio
async def test_sys_exit_in_a_coroutine_fails_its_task_only() -> None:
    async def work() -> None:
        raise SystemExit(3)

    with pytest.raises(ExecutorExit, match="SystemExit: 3"):
        await run(work)


@pytest.mark.asyncio
async def test_class_gives_its_facts_as_attributes_and_a_new_object_runs_each_attempt() -> None:
    class Counter:
        """Counts."""

        name = "Counter"
        tags = ("t",)
        input_schema = {"type": "object"}
        output_schema = {"type": "integer"}
        cancelable = False
        at_most_once = True
        concurrency = 2

        def __init__(self) -> None:
            self.calls = 0

        async def execute(self, inputs: Any, context: Any) -> int:
            self.calls += 1
            return self.calls

    spec = spec_of(Counter)
    assert (spec.name, spec.description, spec.tags) == ("Counter", "Counts.", ("t",))
    assert (spec.cancelable, spec.at_most_once, spec.concurrency) == (False, True, 2)
    assert (spec.input_schema, spec.output_schema) == ({"type": "object"}, {"type": "integer"})
    assert [await spec.make().execute({}, make_context()) for _ in range(2)] == [1, 1]
    assert not hasattr(spec.make(), "cancel")
    assert spec_of(Counter, Declared(cancelable=True, concurrency=9)).concurrency == 9


@pytest.mark.asyncio
async def test_class_with_a_plain_execute_runs_in_a_thread_and_its_cancel_can_be_called() -> None:
    class Blocking:
        def __init__(self) -> None:
            self.stop = threading.Event()

        def execute(self, inputs: Any) -> str:
            self.stop.wait(10)
            return threading.current_thread().name

        def cancel(self) -> None:
            self.stop.set()

    spec = spec_of(Blocking)
    assert spec.cancelable
    made: Any = spec.make()
    attempt = asyncio.ensure_future(made.execute({}, make_context()))
    made.cancel()
    assert await attempt == "executor"


@pytest.mark.asyncio
async def test_static_and_class_methods_execute() -> None:
    class Static:
        @staticmethod
        async def execute(inputs: Any) -> Any:
            return inputs

    class OfClass:
        @classmethod
        async def execute(cls, inputs: Any, context: Any) -> str:
            return cls.__name__

    assert await run(Static, {"a": 1}) == {"a": 1}
    assert await run(OfClass) == "OfClass"


async def _coroutine() -> None: ...


def _plain() -> None: ...


async def _async_generator() -> Any:
    yield 1


def _generator() -> Any:
    yield 1


def _beside_inputs(inputs: Any, b: Any, c: Any) -> None: ...


class _WithoutExecute: ...


class _WithProperty:
    @property
    def cancelable(self) -> bool:
        return False

    async def execute(self, inputs: Any) -> None: ...


@pytest.mark.parametrize(
    ("target", "declared", "message"),
    [
        (_coroutine, Declared(isolation="process"), "needs a plain def"),
        (_coroutine, Declared(isolation="thread"), "needs a plain def"),
        (_plain, Declared(isolation="task"), "'thread' or 'process'"),
        (_async_generator, Declared(), "must not yield"),
        (_generator, Declared(), "must not yield"),
        (_beside_inputs, Declared(), r"\(inputs, context\)"),
        (_WithoutExecute, Declared(), "a method `execute`"),
        (_WithProperty, Declared(), "_WithProperty.cancelable must be a plain attribute"),
        (5, Declared(), "it must be a function"),
        (_plain, Declared(concurrency=0), "at least 1"),
        (_plain, Declared(input_schema={"type": "nonsense"}), "executor 'f': input_schema is not a usable"),
        (
            _plain,
            Declared(output_schema={"$ref": "http://127.0.0.1:9/x"}),
            "executor 'f': output_schema is not a usable",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_it_is_registered(target: Any, declared: Declared, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        spec_of(target, declared)


def test_id_must_be_a_text() -> None:
    with pytest.raises(ConfigurationError, match="non-empty string"):
        make_spec("", _plain, Declared())


@pytest.mark.asyncio
async def test_pool_makes_a_thread_for_each_call_at_a_time_and_uses_them_again() -> None:
    pool, gate, names = ThreadPool(), threading.Barrier(20), set()

    def work() -> None:
        names.add(threading.get_ident())
        gate.wait(10)

    for _ in range(3):
        await asyncio.gather(*(asyncio.wrap_future(pool.start(work)) for _ in range(20)))
    assert len(names) == 20


def test_call_for_which_the_system_has_no_thread_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, ran = ThreadPool(), []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            pool.start(lambda: ran.append("refused"))
    pool.start(lambda: ran.append("first")).result(10)
    pool.start(lambda: ran.append("second")).result(10)
    assert ran == ["first", "second"]


def test_thread_that_outlives_its_loop_gets_an_error() -> None:
    """At shutdown a plain function may go on; what it says goes nowhere, and it must not hang."""
    heard: list[str] = []
    go, done = threading.Event(), threading.Event()

    async def main() -> None:
        context = ThreadContext(make_context())
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(begun.set)
            go.wait(10)
            try:
                context.progress(0.5)
            except RuntimeError as error:
                heard.append(str(error))
            done.set()

        THREADS.start(work)
        await begun.wait()

    asyncio.run(main())
    go.set()
    assert done.wait(10)
    assert heard == ["Event loop is closed"]
