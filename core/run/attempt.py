"""One attempt of one task: what runs the executor and turns whatever comes of it into a command."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar

from core.executors.base import Executor, ExecutorSpec, Parts, Rejected, Suspend, TaskContext
from core.executors.family import Family
from core.executors.files import encoded
from core.executors.hooks import Hooks
from core.executors.judges import Judges, Undecided
from core.executors.process_worker import leaves
from core.executors.raised import ErrorTexts, Told, theirs, told
from core.executors.registry import ExecutorRegistry
from core.executors.schema import TooCostly, quick_violation
from core.executors.signature import InputsRefused
from core.executors.threads import ExecutorExit, exit_text
from core.loop.beside import Beside
from core.loop.large_values import copied_in_pieces, is_small, measured_in_pieces, memory_of_copy
from core.model.commands import Cancel, Command, CompleteTask, FailAttempt, RejectTask, RequestInput, StartTask
from core.model.errors import CoreError, NoRoom
from core.model.in_flight import PER_TASK, Holdings, memory_of
from core.model.inputs import Replaced, resolve_inputs, results_of, sources_of
from core.model.jsonvalue import PARTS, NotJson, Verified, copied, measured, refuse_large
from core.model.plan import unknown_executor
from core.model.room import Claim
from core.model.task import Cause, Task
from core.outside.clock import Clock
from core.outside.egress import Egress
from core.outside.fetch_room import FetchRooms

Measure = Callable[[Any, str, int], tuple[Any, bytes]]
Judged = TypeVar("Judged")

logger = logging.getLogger(__name__)

STOP_GRACE = 2.0  # seconds that an executor's own cancel() may take
SMALL_RESULT = 16 * 1024  # bytes of JSON of a result of a caller whose quota of stored bytes is used up
MOST_TOLD = 10  # inputs with the same name that a warning names
HOOK_LIMIT = 30.0  # seconds that the hooks after a task may take


class Job(asyncio.Task[None]):
    """The asyncio task of one attempt. It tells the end of its event loop from a cancel by its executor's own code."""

    is_loop_ending = False

    def cancel(self, msg: Any = None) -> bool:
        """See asyncio.Task.cancel. `asyncio.run` cancels what is left when its loop runs no more."""
        if not self.get_loop().is_running():
            self.is_loop_ending = True
        return super().cancel(msg)

    def is_stepping(self) -> bool:
        """Whether the event loop runs it at this moment; it does not when its coroutine is thrown away."""
        try:
            return asyncio.current_task() is self
        except RuntimeError:  # no loop runs
            return False


@dataclass(slots=True, eq=False)
class Attempt:
    """A running attempt, as the runner holds it."""

    tree_id: str
    task: Task
    spec: ExecutorSpec | None
    context: TaskContext
    claim: Claim
    executor: Executor | None = None
    job: Job | None = None
    stopper: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # of its `timeout`
    patience: asyncio.TimerHandle | None = None  # after which it is abandoned, once it is interrupted
    limit: float = math.inf  # seconds that it may take
    due_at: float = math.inf  # in the event loop's time: it may take no longer
    is_overdue: bool = False  # its time is up, and that is being reported
    is_abandoned: bool = False  # it did not stop, and the runner no longer waits for it
    has_begun: bool = False  # its job has had its first step
    is_late: bool = False  # it took longer than its task's `timeout`: it held the loop, so no timer could ring
    is_over: bool = False  # its executor has ended; only the report is under way
    is_judging: bool = False  # what it gave is large, and is being judged
    holds: bool = True  # what its claim says: until it ends, and not while it lends that
    lends: int = 0  # waits for trees of its own, during which it holds nothing
    is_shutdown: bool = False  # it is stopped because the process ends, not because the task was cancelled

    def stop(self) -> None:
        """Interrupt the attempt, after its executor's own `cancel()` where there is one. Does not wait."""
        if self.context.stopping or self.job is None or (self.is_over and not self.is_judging):
            return
        self.context.stopping = True
        if self.is_over:
            self.job.cancel()
            return
        if not self.has_begun:
            return  # a coroutine that is cancelled before its first step does not run at all; this one looks there
        cancel = getattr(self.executor, "cancel", None)
        if cancel is None:
            self.job.cancel()
        else:
            self.stopper = asyncio.create_task(self._stop_gently(cancel))

    @property
    def is_interrupted(self) -> bool:
        """Whether it is us who stop it, or the end of the event loop."""
        return self.context.stopping or self.job is None or self.job.is_loop_ending

    def forget_cancels(self) -> None:
        """Its executor's own code cancelled its job; what is still to do for the attempt must not suffer from that."""
        while self.job is not None and self.job.uncancel():
            pass

    def end(self) -> None:
        """The executor has ended: there is nothing left to interrupt."""
        if self.timer is not None and not self.is_over:
            self.timer.cancel()
            self.is_late = self.due_at < asyncio.get_running_loop().time()
        if self.patience is not None:
            self.patience.cancel()  # a timer keeps what it is for, with all inputs
        self.is_over = True

    async def _stop_gently(self, cancel: Any) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE):
                answer = cancel()
                if isawaitable(answer):
                    await answer
        except (Exception, SystemExit, KeyboardInterrupt):  # foreign code; the attempt is interrupted all the same
            logger.exception("cancel() of executor %s failed", self.claim.lane)
        if self.job is not None and not self.is_over:
            self.job.cancel()


def start_of(tasks: Mapping[str, Task], task: Task, registry: ExecutorRegistry) -> StartTask:
    """What starts the next attempt of one of a tree's tasks, and records where its inputs come from."""
    spec = registry.get(task.executor or "")
    first = _own_schema(task) if spec is None or spec.input_schema is None else spec.input_schema
    return StartTask(task.id, sources_of(task.inputs, results_of(tasks, task)[0], first))


def overdue(attempt: Attempt, chance: float) -> FailAttempt:
    """Its time is up."""
    task = attempt.task
    final = attempt.spec is not None and attempt.spec.at_most_once
    text = f"timed out after {attempt.limit:g} s"
    if attempt.timer is None:  # none of its own
        text += ", the longest that one attempt may take (max_task_seconds)"
    return _failure(task, text, Cause.TIMEOUT, final=final, chance=chance)


@dataclass(frozen=True, slots=True)
class Means:
    """What all attempts of a process share: executors, time, the way out, judges, accounts of memory, children."""

    registry: ExecutorRegistry
    clock: Clock
    egress: Egress
    judges: Judges
    beside: Beside
    holdings: Holdings
    rooms: FetchRooms
    family: Family
    is_full: Callable[[str], bool]  # whose quota of stored bytes is used up
    error_texts: ErrorTexts = "full"  # what callers see of an executor's exception


def broken_off(attempt: Attempt, error: BaseException, means: Means) -> FailAttempt:
    """What its executor started beside itself raised what may end a whole program only, such as by `sys.exit()`."""
    final = attempt.spec is not None and attempt.spec.at_most_once
    said = told(ExecutorExit(exit_text(error), type(error).__name__), means.error_texts)
    chance = means.clock.chance()
    return _failure(attempt.task, said, Cause.EXECUTOR_ERROR, final=final, chance=chance)


async def perform(attempt: Attempt, means: Means) -> Command:
    """Run the executor once and say what came of it. Raises CancelledError when the attempt was stopped."""
    task, spec, context = attempt.task, attempt.spec, attempt.context
    hooks, clock = means.registry.hooks, means.clock
    context.job = attempt.job
    if spec is None:
        return _failure(task, unknown_executor(task, means.registry.ids()), Cause.UNKNOWN_EXECUTOR, final=True)
    own = _own_schema(task)
    first = own if spec.input_schema is None else spec.input_schema
    found, replaced = resolve_inputs(task.inputs, context.stored_results, first)
    try:
        inputs = copied(found) if not found or is_small(found) else await _copied(attempt, found, means.beside)
    except NoRoom as error:
        return _failure(task, str(error), Cause.NO_ROOM, final=spec.at_most_once, chance=clock.chance())
    if replaced and (lost := [each for each in replaced if each.name not in task.inputs]):
        _tell_lost(task, lost)
    for schema in (spec.input_schema, own):
        if schema is not None and (problem := await _violation(means.judges, attempt, schema, inputs, "inputs")):
            return _failure(task, problem, Cause.INVALID_INPUT, final=True)
    try:
        if hooks.sees_tasks:
            inputs = await hooks.before_task(context.task, inputs)
        attempt.executor = spec.make()
        try:
            result = await attempt.executor.execute(inputs, context)
            if context.replay is not None:
                await context.end_replay()
        except (Suspend, Rejected, BaseExceptionGroup):
            await context.stored()
            raise
        await context.stored()
        attempt.end()
        if result is None:
            command, size, memory = _completion(attempt, result, context.max_artifact, clock.chance(), measured)
        else:
            if not hooks.wants_results:
                inputs = {}  # what the result takes comes in the place of them
            command, size, memory = await _completed(attempt, result, context.max_artifact, means)
        if size > SMALL_RESULT and context.is_full(task.owner):
            command, size, memory = await _completed(attempt, result, SMALL_RESULT, means)
        if hooks.wants_results:
            await _after(hooks, context.task, inputs, result.value if type(result) is Verified else result)
        if command.__class__ is not CompleteTask:
            return command
        schema = None if type(result) is Verified else spec.output_schema
        judges = means.judges
        if schema is not None and (problem := await _violation(judges, attempt, schema, command.result, "result")):
            return _failure(task, problem, Cause.INVALID_RESULT, final=True)
        if size > PER_TASK:
            _hold(means.holdings, attempt, memory)
        return command
    except asyncio.CancelledError:
        if attempt.is_interrupted:
            raise
        attempt.forget_cancels()
        text = "the executor was cancelled from within"
        logger.info("attempt %d of task %s failed: %s", task.attempt, task.id, text)
        return _failure(task, text, Cause.EXECUTOR_ERROR, final=spec.at_most_once, chance=clock.chance())
    except BaseException as error:  # noqa: BLE001 - whatever foreign code raises ends its attempt, not ours
        return _ending(attempt, spec, _deciding(error), clock.chance(), means.error_texts)


async def wait_until_ended(
    attempts: Mapping[tuple[str, str], Attempt], limit: float, going_on: Callable[[frozenset[str]], None]
) -> float:
    """Wait until all have ended, `limit` seconds at most; the seconds that are left.

    `going_on` is told which trees have some, each time one ends. The keys are (tree, task).
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + limit
    while True:
        jobs = {key: each.job for key, each in attempts.items() if each.job is not None and not each.job.done()}
        going_on(frozenset(tree_id for tree_id, _ in jobs))
        left = ends_at - loop.time()
        if not jobs or left <= 0:
            return max(0.0, left)
        await asyncio.wait(jobs.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)


async def _violation(judges: Judges, attempt: Attempt, schema: Mapping[str, Any], value: Any, root: str) -> str | None:
    """What is wrong with the value by the schema, or why that cannot be told. What could take long is judged apart."""
    is_brought = schema is _own_schema(attempt.task)
    try:
        return quick_violation(schema, value, root, is_brought=is_brought)
    except TooCostly:
        pass
    try:
        return await _judged(attempt, judges.violation(attempt.task.owner, schema, value, root))
    except (Undecided, NoRoom) as error:
        return f"{root}: cannot be validated by the schema: {error}"


async def _after(hooks: Hooks, task: Task, inputs: dict[str, Any], result: Any) -> None:
    """The hooks, which can change nothing any more: neither by what they raise nor by not coming back."""
    try:
        async with asyncio.timeout(HOOK_LIMIT):
            await hooks.after_task(task, inputs, result)
    except TimeoutError:
        logger.error("a post hook of task %s took more than %g s and was cancelled", task.id, HOOK_LIMIT)


def _deciding(error: BaseException) -> BaseException:
    """What decides how the attempt ends, where a TaskGroup of the executor's raised several exceptions.

    An error beside questions is an error; a rejection is one whatever is asked beside it.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = leaves(error)
    others = [each for each in found if not isinstance(each, Suspend)]
    if not others:
        return found[0]
    if len(others) == 1 or all(isinstance(each, Rejected) for each in others):
        return others[0]
    return error.split(Suspend)[1] or error


def _ending(attempt: Attempt, spec: ExecutorSpec, error: BaseException, chance: float, texts: ErrorTexts) -> Command:
    task = attempt.task
    match error:
        case Suspend():
            return _question(task, attempt.context, attempt.context.questions or [error])
        case Rejected():
            return RejectTask(task.id, task.attempt, _storable(str(error)) or "rejected")
        case NoRoom():
            return _failure(task, str(error), Cause.NO_ROOM, final=spec.at_most_once, chance=chance)
        case InputsRefused():
            return _failure(task, str(error), Cause.INVALID_INPUT, final=True)
    if (reason := attempt.context.asked_to_stop) is not None:
        return Cancel(task.id, reason or None, force=True, attempt=task.attempt)  # that is how it stops
    said = told(error, texts)
    is_ours = isinstance(error, CoreError)  # then there is nothing to see in its traceback
    trace = None if is_ours else (type(error), error, theirs(error.__traceback__))
    full = said.detail or said.error
    logger.warning("attempt %d of task %s (%s) failed: %s", task.attempt, task.id, spec.id, full, exc_info=trace)
    return _failure(task, said, Cause.EXECUTOR_ERROR, final=spec.at_most_once, chance=chance)


def _question(task: Task, context: TaskContext, asked: Sequence[Suspend]) -> RequestInput:
    """All that the attempt asked, as one."""
    parts = tuple(part for each in asked for part in each.parts)
    auth = all(each.auth for each in asked)
    metadata = {name: value for each in asked for name, value in each.metadata.items()}
    extensions = tuple(dict.fromkeys(uri for each in asked for uri in each.extensions))
    keys = tuple(each.key for each in asked)
    return RequestInput(task.id, task.attempt, parts, auth, metadata, extensions, keys, context.told())


def _storable(text: str) -> str:
    """The text without lone surrogates, which cannot be stored."""
    return text.encode(errors="replace").decode()


def _failure(task: Task, error: str | Told, cause: Cause, *, final: bool = False, chance: float = 0.0) -> FailAttempt:
    said = Told(error) if isinstance(error, str) else error
    detail = None if said.detail is None else _storable(said.detail)
    return FailAttempt(task.id, task.attempt, _storable(said.error), cause, chance, final, detail)


def _own_schema(task: Task) -> Mapping[str, Any] | None:
    """The schema that the task itself brings; it narrows the executor's and never replaces it."""
    schema = (task.schemas or {}).get("input_schema")
    return schema if isinstance(schema, dict) else None


def _hold(holdings: Holdings, attempt: Attempt, size: int) -> None:
    """Have the tree hold a result of so many bytes in memory. Raises NoRoom."""
    attempt.context.leave_room(size)  # what is left is that of writing it
    holdings.add(attempt.tree_id, size)


def _tell_lost(task: Task, lost: Sequence[Replaced]) -> None:
    """Warn of inputs that others took the place of."""
    names = "; ".join(map(str, lost[:MOST_TOLD])) + f"; and {len(lost) - MOST_TOLD} more" * (len(lost) > MOST_TOLD)
    logger.warning("inputs of task %s (%r) have the same name: %s", task.id, task.name, names)


async def _copied(attempt: Attempt, found: dict[str, Any], beside: Beside) -> dict[str, Any]:
    """The large inputs, for this attempt alone. Raises NoRoom."""
    await _hold_copy(attempt, found, beside, has_texts=False)
    inputs: dict[str, Any] = await beside.run(attempt.task.owner, copied_in_pieces, found)
    return inputs


async def _hold_copy(attempt: Attempt, value: Any, beside: Beside, *, has_texts: bool) -> None:
    """Have room in memory for a copy of a large value, before there is one. Raises NoRoom when there will be none."""
    if (room := attempt.context.room) is not None:
        await room.hold(await beside.run(attempt.task.owner, partial(memory_of_copy, value, has_texts=has_texts)))


async def _completed(attempt: Attempt, result: Any, most: int, means: Means) -> tuple[Command, int, int]:
    """Judge what the executor returned; what is large is judged beside the event loop, once it has room in memory."""
    chance, is_verified = means.clock.chance(), result.__class__ is Verified
    if isinstance(result, Parts):
        result = {PARTS: encoded(result)}
    value = result.value if is_verified else result
    if is_small(value):
        return _completion(attempt, result, most, chance, measured)
    await _judged(attempt, _hold_copy(attempt, value, means.beside, has_texts=not is_verified))
    completion = means.beside.run(attempt.task.owner, _completion, attempt, result, most, chance, measured_in_pieces)
    return await _judged(attempt, completion)


async def _judged(attempt: Attempt, judging: Awaitable[Judged]) -> Judged:
    """What comes of it. It is not waited for when the attempt is stopped, also after its executor's end."""
    attempt.is_judging = True
    try:
        return await judging
    finally:
        attempt.is_judging = False


def _completion(attempt: Attempt, result: Any, most: int, chance: float, measure: Measure) -> tuple[Command, int, int]:
    """Judge what the executor returned, at most so many bytes of JSON (semantics §4); they, and its bytes of memory."""
    task = attempt.task
    try:
        if task.dependencies[1:]:  # it may give back the results of many tasks
            refuse_large(result, "result", most)
        value, data = measure(result, "result", most)
    except NotJson as refusal:
        return _failure(task, str(refusal), Cause.INVALID_RESULT, final=True), 0, 0
    size = len(data)
    if isinstance(value, dict) and (value.get("success") is False or value.get("error")):
        text = value.get("error") or value.get("message") or "the executor reported success: false"
        text = text if isinstance(text, str) else repr(text)
        final = attempt.spec is not None and attempt.spec.at_most_once
        return _failure(task, text, Cause.EXECUTOR_ERROR, final=final, chance=chance), size, 0
    return CompleteTask(task.id, task.attempt, value), size, memory_of(data) if size > PER_TASK else 0
