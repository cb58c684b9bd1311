"""Makes executors of functions and classes: the `executor` decorator."""

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import isawaitable
from types import CoroutineType
from typing import Any, Literal, TypeVar, overload

from core.executors.base import Executor, ExecutorSpec, TaskContext
from core.executors.process import ProcessExecutor, locate
from core.executors.registry import ExecutorRegistry, default_registry
from core.executors.schema import check_schema
from core.executors.signature import Signature, is_async, signature_of, unwrapped
from core.executors.threads import ThreadContext, ThreadPool, contained
from core.model.errors import ConfigurationError

Target = TypeVar("Target", bound=Callable[..., Any])
Isolation = Literal["task", "thread", "process"]

THREADS = ThreadPool()  # for the whole process; how many run at a time is for each runner to say
os.register_at_fork(after_in_child=THREADS.forget)
DEFAULT_MODES = ("application/json", "text/plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What is said of an executor where it is defined. None: not said."""

    name: str | None = None
    description: str | None = None
    tags: Sequence[str] | None = None
    examples: Sequence[str] | None = None
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None
    input_modes: Sequence[str] | None = None
    output_modes: Sequence[str] | None = None
    cancelable: bool | None = None
    at_most_once: bool | None = None
    has_effects: bool | None = None
    concurrency: int | None = None
    isolation: Isolation | None = None
    is_skill: bool | None = None

    def or_by(self, target: Any) -> "Declared":
        """The same, completed by the attributes of a class."""
        return Declared(
            name=_either(self.name, target, "name"),
            description=_either(self.description, target, "description"),
            tags=_either(self.tags, target, "tags"),
            examples=_either(self.examples, target, "examples"),
            input_schema=_either(self.input_schema, target, "input_schema"),
            output_schema=_either(self.output_schema, target, "output_schema"),
            input_modes=_either(self.input_modes, target, "input_modes"),
            output_modes=_either(self.output_modes, target, "output_modes"),
            cancelable=_either(self.cancelable, target, "cancelable"),
            at_most_once=_either(self.at_most_once, target, "at_most_once"),
            has_effects=_either(self.has_effects, target, "has_effects"),
            concurrency=_either(self.concurrency, target, "concurrency"),
            isolation=_either(self.isolation, target, "isolation"),
            is_skill=_either(self.is_skill, target, "is_skill"),
        )


@overload
def executor(executor_id: Target) -> Target: ...


@overload
def executor(
    executor_id: str | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Sequence[str] | None = None,
    examples: Sequence[str] | None = None,
    input_schema: Mapping[str, Any] | None = None,
    output_schema: Mapping[str, Any] | None = None,
    input_modes: Sequence[str] | None = None,
    output_modes: Sequence[str] | None = None,
    cancelable: bool | None = None,
    at_most_once: bool | None = None,
    has_effects: bool | None = None,
    concurrency: int | None = None,
    isolation: Isolation | None = None,
    is_skill: bool | None = None,
    registry: ExecutorRegistry = default_registry,
    override: bool = False,
) -> Callable[[Target], Target]: ...


def executor(
    executor_id: str | Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    tags: Sequence[str] | None = None,
    examples: Sequence[str] | None = None,
    input_schema: Mapping[str, Any] | None = None,
    output_schema: Mapping[str, Any] | None = None,
    input_modes: Sequence[str] | None = None,
    output_modes: Sequence[str] | None = None,
    cancelable: bool | None = None,
    at_most_once: bool | None = None,
    has_effects: bool | None = None,
    concurrency: int | None = None,
    isolation: Isolation | None = None,
    is_skill: bool | None = None,
    registry: ExecutorRegistry = default_registry,
    override: bool = False,
) -> Any:
    """Make a function or a class an executor; it stays usable as what it was.

    `@executor` alone takes the function's own name for an id. An `async def` runs as a coroutine. A plain `def` runs in
    a thread, and is not cancelable unless declared so; with `isolation="process"` it runs in a process of its own,
    which a cancel or a timeout kills. Both take `(inputs, context)`, `(inputs)`, nothing, or inputs by name, whose
    annotations make the input schema where none is given (`core.executors.signature`). A class has such a method
    `execute`, may have `cancel()`, and may give what is not said here as attributes. The description is the docstring's
    first line unless given.

    With `has_effects=False` it promises to do nothing but to return a result of its inputs: its attempts need not wait
    until their start is stored, and one may be forgotten when the process or the disk fails.

    Raises ConfigurationError when the executor cannot work: a broken schema, an id that is taken (unless `override`).
    """
    if callable(executor_id):
        return executor(registry=registry)(executor_id)
    declared = Declared(
        name=name,
        description=description,
        tags=tags,
        examples=examples,
        input_schema=input_schema,
        output_schema=output_schema,
        input_modes=input_modes,
        output_modes=output_modes,
        cancelable=cancelable,
        at_most_once=at_most_once,
        has_effects=has_effects,
        concurrency=concurrency,
        isolation=isolation,
        is_skill=is_skill,
    )

    def register(target: Target) -> Target:
        named = getattr(target, "__name__", "") if executor_id is None else executor_id
        registry.register(make_spec(named, target, declared), override=override)
        return target

    return register


def register_executor(
    executor_id: str, target: Callable[..., Any], *, registry: ExecutorRegistry = default_registry
) -> ExecutorSpec:
    """Make a function or class known as it is, like `@executor(executor_id)`."""
    return registry.register(make_spec(executor_id, target, Declared()))


def make_spec(executor_id: str, target: Callable[..., Any], declared: Declared) -> ExecutorSpec:
    """What is known of the executor that the target is. Raises ConfigurationError when it cannot be one."""
    whose = f"executor {executor_id!r}"
    if not isinstance(executor_id, str) or not executor_id:
        raise ConfigurationError("an executor's id must be a non-empty string")
    if inspect.isclass(target):
        declared = declared.or_by(target)
    for what, schema in (("input_schema", declared.input_schema), ("output_schema", declared.output_schema)):
        if schema is not None:
            check_schema(schema, f"{whose}: {what}")
    if declared.concurrency is not None and declared.concurrency < 1:
        raise ConfigurationError(f"{whose}: concurrency must be at least 1")
    function = _function(target, whose)
    signature = signature_of(function, whose, is_method=_takes_self(target))
    if declared.input_schema is None and (schema := signature.input_schema) is not None:
        declared = replace(declared, input_schema=schema)
        check_schema(schema, f"{whose}: input_schema")
    isolation = _isolation(function, declared.isolation, whose)
    # A thread cannot be stopped from outside, but a class may have its own way.
    stops = isolation != "thread" or hasattr(target, "cancel")
    return ExecutorSpec(
        id=executor_id,
        make=_maker(target, signature, isolation),
        name=declared.name or executor_id,
        description=declared.description if declared.description is not None else _first_line(target),
        tags=tuple(declared.tags or ()),
        examples=tuple(declared.examples or ()),
        input_schema=declared.input_schema,
        output_schema=declared.output_schema,
        input_modes=tuple(declared.input_modes or DEFAULT_MODES),
        output_modes=tuple(declared.output_modes or DEFAULT_MODES),
        cancelable=stops if declared.cancelable is None else declared.cancelable,
        at_most_once=bool(declared.at_most_once),
        has_effects=declared.has_effects is not False,
        concurrency=declared.concurrency,
        uses_process=isolation == "process",
        uses_thread=isolation == "thread",
        is_skill=declared.is_skill is not False,
    )


class FunctionExecutor:
    """Runs one function, or the method of one new object, for one attempt."""

    def __init__(self, target: Callable[..., Any], signature: Signature, *, in_thread: bool) -> None:
        self._signature = signature
        self._arity = signature.arity if signature.whole is None else None
        self._in_thread = in_thread
        self._function = target
        if inspect.isclass(target):
            made: Any = target()
            self._function = made.execute
            if hasattr(made, "cancel"):
                self.cancel: Callable[[], Awaitable[None] | None] = made.cancel

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        """Run it. What it raises is raised, but for what would end the server itself."""
        if not self._in_thread:
            try:
                if self._arity is None:
                    returned = self._signature.call(self._function, inputs, context)
                else:  # the usual way, without a call more
                    returned = self._function(*(inputs, context)[: self._arity])
                # A wrapper of a coroutine function may have an answer of its own.
                return await returned if returned.__class__ is CoroutineType or isawaitable(returned) else returned
            except SystemExit as error:
                raise contained(error) from error
        positional, named = self._signature.arguments(inputs, ThreadContext(context))
        call = THREADS.start(partial(self._function, *positional, **named))
        try:
            returned = await asyncio.wrap_future(call)
            # Nothing told that it is a coroutine: a wrapper without functools.wraps, a lambda.
            return await returned if isawaitable(returned) else returned
        except asyncio.CancelledError:
            context.stopping = True  # the thread goes on; this is how it can know
            if not call.cancel():
                context.left = asyncio.wrap_future(call)
            raise


def _maker(target: Callable[..., Any], signature: Signature, isolation: Isolation) -> Callable[[], Executor]:
    if isolation == "process":
        return partial(ProcessExecutor, locate(target), signature)
    return partial(FunctionExecutor, target, signature, in_thread=isolation == "thread")


def _function(target: Callable[..., Any], whose: str) -> Callable[..., Any]:
    """What is called: the target, or a class's `execute`."""
    function = getattr(target, "execute", None) if inspect.isclass(target) else target
    if not callable(function) or inspect.isclass(function):
        raise ConfigurationError(f"{whose}: it must be a function, or a class with a method `execute`")
    inner = unwrapped(function)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise ConfigurationError(f"{whose}: it must not yield; send pieces of output with context.artifact()")
    return function


def _isolation(function: Callable[..., Any], wanted: Isolation | None, whose: str) -> Isolation:
    if is_async(function):
        if wanted not in (None, "task"):
            raise ConfigurationError(f"{whose}: isolation={wanted!r} needs a plain def; this is an async def")
        return "task"
    if wanted not in (None, "thread", "process"):
        raise ConfigurationError(f"{whose}: the isolation of a plain def is 'thread' or 'process', not {wanted!r}")
    return wanted or "thread"


def _takes_self(target: Callable[..., Any]) -> bool:
    return inspect.isclass(target) and inspect.isfunction(inspect.getattr_static(target, "execute"))


def _first_line(target: Callable[..., Any]) -> str:
    return inspect.cleandoc(target.__doc__ or "").partition("\n")[0]


def _either(said: Any, target: Any, attribute: str) -> Any:
    if said is not None:
        return said
    found = getattr(target, attribute, None)
    if isinstance(found, property):
        raise ConfigurationError(f"{target.__qualname__}.{attribute} must be a plain attribute of the class")
    return found
