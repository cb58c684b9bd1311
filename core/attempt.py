"""One attempt of one task: what runs the executor and turns whatever comes of it into a command."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, cast

from core.clock import Clock
from core.commands import Command, CompleteTask, FailAttempt, RejectTask, RequestInput
from core.executors.base import Executor, ExecutorSpec, Parts, Rejected, Suspend, TaskContext
from core.executors.files import encoded
from core.executors.schema import violation
from core.hooks import Hooks
from core.inputs import resolve_inputs
from core.jsonvalue import PARTS, NotJson, to_json_value
from core.plan import unknown_executor
from core.task import Cause, Task

logger = logging.getLogger(__name__)

STOP_GRACE = 2.0  # seconds that an executor's own cancel() may take
SMALL_RESULT = 16 * 1024  # bytes of JSON of a result of a caller whose quota of stored bytes is used up
HOOK_LIMIT = 30.0  # seconds that the hooks after a task may take


@dataclass(slots=True, eq=False)
class Attempt:
    """A running attempt, as the runner holds it."""

    tree_id: str
    task: Task
    spec: ExecutorSpec | None
    context: TaskContext
    executor: Executor | None = None
    job: asyncio.Task[None] | None = None
    stopper: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # of its `timeout`
    has_begun: bool = False  # its job has had its first step
    is_over: bool = False  # its executor has ended; only the report is under way
    is_shutdown: bool = False  # it is stopped because the process ends, not because the task was cancelled

    @property
    def lane(self) -> str:
        return self.task.executor or ""

    def stop(self) -> None:
        """Interrupt the attempt, after its executor's own `cancel()` where there is one. Does not wait."""
        if self.context.stopping or self.is_over or self.job is None:
            return
        self.context.stopping = True
        if not self.has_begun:
            return  # a coroutine that is cancelled before its first step does not run at all; this one looks there
        cancel = getattr(self.executor, "cancel", None)
        if cancel is None:
            self.job.cancel()
        else:
            self.stopper = asyncio.create_task(self._stop_gently(cancel))

    def end(self) -> None:
        """The executor has ended: there is nothing left to interrupt."""
        self.is_over = True
        if self.timer is not None:
            self.timer.cancel()

    async def _stop_gently(self, cancel: Any) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE):
                answer = cancel()
                if isawaitable(answer):
                    await answer
        except Exception:  # foreign code; the attempt is interrupted all the same
            logger.exception("cancel() of executor %s failed", self.lane)
        if self.job is not None and not self.is_over:
            self.job.cancel()


async def perform(attempt: Attempt, known: Callable[[], list[str]], hooks: Hooks, clock: Clock) -> Command:
    """Run the executor once and say what came of it. Raises CancelledError when the attempt was stopped."""
    task, spec, context = attempt.task, attempt.spec, attempt.context
    if spec is None:
        return _failure(task, unknown_executor(task, known()), Cause.UNKNOWN_EXECUTOR, final=True)
    schemas = [schema for schema in (spec.input_schema, _own_schema(task)) if schema is not None]
    inputs = resolve_inputs(task.inputs, context.dependencies, schemas[0] if schemas else None)
    for schema in schemas:
        if problem := violation(schema, inputs, "inputs"):
            return _failure(task, problem, Cause.INVALID_INPUT, final=True)
    try:
        inputs = await hooks.before_task(task, inputs)
        attempt.executor = spec.make()
        try:
            result = await attempt.executor.execute(inputs, context)
        except (Suspend, Rejected):
            await context.stored()
            raise
        await context.stored()
        attempt.end()
        if hooks.wants_results:
            await _after(hooks, task, inputs, result)
        most = SMALL_RESULT if context.is_full(task.owner) else context.max_artifact
        return _completion(task, spec, result, most, clock.chance())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if context.stopping or cast("asyncio.Task[None]", asyncio.current_task()).cancelling():
            raise
        text = "the executor was cancelled from within"
        return _failure(task, text, Cause.EXECUTOR_ERROR, final=spec.at_most_once, chance=clock.chance())
    except BaseException as error:  # noqa: BLE001 - whatever foreign code raises ends its attempt, not ours
        return _ending(task, spec, _only(error), clock.chance())


async def _after(hooks: Hooks, task: Task, inputs: dict[str, Any], result: Any) -> None:
    """The hooks, which can change nothing any more: neither by what they raise nor by not coming back."""
    try:
        async with asyncio.timeout(HOOK_LIMIT):
            await hooks.after_task(task, inputs, result)
    except TimeoutError:
        logger.error("a post hook of task %s took more than %g s and was cut off", task.id, HOOK_LIMIT)


def _only(error: BaseException) -> BaseException:
    """The one exception inside groups of one, as a TaskGroup of the executor's wraps it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _ending(task: Task, spec: ExecutorSpec, error: BaseException, chance: float) -> Command:
    match error:
        case Suspend():
            return RequestInput(task.id, task.attempt, error.parts, error.auth)
        case Rejected():
            return RejectTask(task.id, task.attempt, _storable(str(error)) or "rejected")
    logger.info("attempt %d of task %s failed", task.attempt, task.id, exc_info=error)
    text = str(error) or type(error).__name__
    return _failure(task, text, Cause.EXECUTOR_ERROR, final=spec.at_most_once, chance=chance)


def _storable(text: str) -> str:
    """The text without lone surrogates, which cannot be stored."""
    return text.encode(errors="replace").decode()


def _failure(task: Task, error: str, cause: Cause, *, final: bool = False, chance: float = 0.0) -> FailAttempt:
    return FailAttempt(task.id, task.attempt, _storable(error), cause, chance, final)


def _own_schema(task: Task) -> Mapping[str, Any] | None:
    """The schema that the task itself brings; it narrows the executor's and never replaces it."""
    schema = (task.schemas or {}).get("input_schema")
    return schema if isinstance(schema, dict) else None


def _completion(task: Task, spec: ExecutorSpec, result: Any, most: int, chance: float) -> Command:
    """Judge what the executor returned, at most so many bytes of JSON (semantics §4)."""
    if isinstance(result, Parts):
        result = {PARTS: encoded(result)}
    try:
        value = to_json_value(result, "result", most)
    except NotJson as refusal:
        return _failure(task, str(refusal), Cause.INVALID_RESULT, final=True)
    if isinstance(value, dict) and (value.get("success") is False or value.get("error")):
        text = value.get("error") or value.get("message") or "the executor reported success: false"
        text = text if isinstance(text, str) else repr(text)
        return _failure(task, text, Cause.EXECUTOR_ERROR, final=spec.at_most_once, chance=chance)
    if spec.output_schema is not None and (problem := violation(spec.output_schema, value, "result")):
        return _failure(task, problem, Cause.INVALID_RESULT, final=True)
    return CompleteTask(task.id, task.attempt, value)
