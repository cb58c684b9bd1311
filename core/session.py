"""One core, wired: storage, orchestrator, runner and feed, and what its APIs need of them.

Each API (the server, the Python API, the command line) talks to a Session and reads from its storage. The API decides
who may do what.
"""

import logging
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from core.cancel_result import CancelObject, CancelResult
from core.databases import Database
from core.executors.family import Family
from core.executors.judges import Judges
from core.executors.process import refuse_while_loading
from core.executors.registry import ExecutorRegistry, default_registry
from core.home import Home
from core.loop.beside import Beside
from core.loop.large_values import encoded, is_small
from core.model.commands import Cancel, Execute, ProvideInput, ReceiveMessage, UpdateTask
from core.model.content import Said
from core.model.copies import copies, own_ids
from core.model.decide import decide
from core.model.errors import (
    CallerError,
    CoreError,
    InvalidPlan,
    Problem,
    StorageUnavailable,
    TaskNotCancelable,
    TaskNotFound,
    TreeIsRunning,
)
from core.model.events import Recorded, TaskCancelled
from core.model.graph import check_graph
from core.model.in_flight import ByteBudget, Holdings, memory_of
from core.model.plan import (
    Limits,
    Plan,
    Rules,
    executor_field,
    extras_problems,
    make_plan,
    names_executor,
    parse_changes,
    unknown_executor,
)
from core.model.submission import BARE, Submission
from core.model.task import ANONYMOUS, Task, TaskStatus, TreeHead
from core.outside.clock import Clock
from core.outside.egress import Egress, EgressPolicy
from core.outside.fetch_room import FetchRooms
from core.run.adoption import Adoption, database_mark
from core.run.attempt import Means
from core.run.brought_schemas import BroughtSchemas, judge_rest
from core.run.cancelling import STOP_LIMIT
from core.run.decisions import LARGE_TREE, is_large
from core.run.feed import Feed
from core.run.orchestrator import Orchestrator, memory_needed
from core.run.runner import Runner
from core.run.runner_limits import RunnerLimits
from core.run.shared_time import SharedTime, clock_of
from core.run.started import Started
from core.run.stored import StoredBytes
from core.storage.base import Document, Storage

logger = logging.getLogger(__name__)


class Session:
    """Everything of one core. Use it with `async with`, or call `start()` and `close()`."""

    def __init__(
        self,
        storage: Storage,
        *,
        registry: ExecutorRegistry = default_registry,
        clock: Clock | None = None,
        limits: RunnerLimits | None = None,
        egress: Egress | None = None,
    ) -> None:
        self.storage = storage
        self.registry = registry
        self.clock = clock or clock_of(storage)
        self._time = SharedTime(storage, self.clock)
        self._limits = limits or RunnerLimits()
        self._egress = egress or Egress(EgressPolicy())
        self.is_closed = False
        self._database = Database(storage)
        self._home = Home(self._open, self._let_go, self._database.abandon)
        collected = weakref.finalize(self, self._home.place.collected, self._database.abandon)
        collected.atexit = False
        self._wire()

    def _wire(self) -> None:
        """Make all that belongs to one event loop."""
        self._is_used = False
        self._is_stopped = False
        self.stored = StoredBytes(self.storage, self._limits.stored, self.clock.now)
        self.feed = Feed(self.storage, self._database.bus)
        budget = ByteBudget(self._limits.in_flight_per_owner, self._limits.in_flight)
        self.holdings = Holdings(budget)
        self.beside = Beside()
        self.orchestrator = Orchestrator(self.storage, self.feed, self.clock, self.holdings, self.beside)
        self.feed.is_local = self.orchestrator.trees.by_id.__contains__
        self.family = Family()
        self.judges = Judges(self.family)
        rooms = FetchRooms(budget, self._egress.policy.max_bytes)
        means = Means(
            registry=self.registry,
            clock=self.clock,
            egress=self._egress,
            judges=self.judges,
            beside=self.beside,
            holdings=self.holdings,
            rooms=rooms,
            family=self.family,
            is_full=self.stored.is_full,
            error_texts=self._limits.error_texts,
        )
        self.runner = Runner(self.orchestrator, self._limits, means)
        self.orchestrator.observer = self.runner
        self.adoption = Adoption(self.storage, self.orchestrator.trees, self.runner.recovery, self.family, self._fenced)

    async def __aenter__(self) -> "Session":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Open the storage. Raises DatabaseInUse, StorageError or ConfigurationError."""
        await self._enter(until_loop_ends=False)

    async def ensure_started(self) -> None:
        """Start on first use, and close when the event loop ends; in another loop it is opened anew."""
        await self._enter(until_loop_ends=True)
        self._home.lingering.keep(self)

    @property
    def is_left(self) -> bool:
        """Whether the event loop in which it was used has ended."""
        return self._is_used and not self._home.is_open

    async def _enter(self, *, until_loop_ends: bool) -> None:
        if self.is_closed:
            raise StorageUnavailable("this session is closed; create a new one with create_session()")
        await self._home.enter(until_loop_ends=until_loop_ends)

    async def _open(self) -> None:
        refuse_while_loading()
        if self._is_used:
            self._wire()
        self._is_used = True
        await self._database.open()
        self.family.database = database_mark(self.storage, self.storage.lease)
        try:
            await self._time.begin()
            await self.adoption.end_orphans(self.storage.lease)
        except BaseException:  # nothing else would close what is open already
            await self._database.close()
            raise

    async def resume(self) -> int:
        """Resume the trees that members which are gone left unfinished; how many there were.

        Where members share the database, it goes on to look for such trees from now on. Raises StorageError.
        """
        taken = await self.adoption.adopt_lapsed()
        self.adoption.start()
        return taken

    def _fenced(self) -> None:
        """Another member goes on with the trees: what runs of them here is of no use to anybody."""
        self.runner.abandon()
        self.feed.close()

    async def stop(self, grace: float, limit: float = STOP_LIMIT) -> None:
        """Start nothing more, and let attempts end within `grace` seconds; then interrupt those that are left.

        The next `resume` takes them up. Followers and waits of a tree end when none of its attempts runs any more. For
        what was interrupted it waits `limit` seconds.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        await self.adoption.close()
        try:
            await self.runner.drain(grace, lambda trees: self.feed.close(but=trees))
        finally:
            self.feed.close()
            await self.runner.close(limit)

    async def close(self, grace: float = 10.0) -> None:
        """`stop`, and close the storage."""
        self.is_closed = True
        if self._home.is_open:
            await self.stop(grace)
        await self._home.leave()

    async def _let_go(self) -> None:
        """Stop what runs, at once, and close the storage."""
        try:
            await self.stop(0.0)
        finally:
            self.beside.close()
            await self.judges.close()
            await self.feed.end_reads()
            await self._time.close()
            await self._database.close()

    # Trees

    def plan(
        self,
        items: Any,
        *,
        owner: str = ANONYMOUS,
        limits: Limits | None = None,
        registry: ExecutorRegistry | None = None,
    ) -> Plan:
        """A validated tree from an array of tasks. `registry`: the executors it may name, where not all of them.

        Raises InvalidPlan with everything that is wrong.
        """
        known = registry or self.registry
        brought = BroughtSchemas()
        rules = Rules(known.resolve, known.ids, brought.judge, limits)
        plan = make_plan(items, rules, new_id=self.clock.new_id, now=self.clock.now(), owner=owner)
        return brought.noted(plan) if brought.later else plan

    async def create(
        self,
        plan: Plan,
        submission: Submission = BARE,
        *,
        execute: bool = False,
        documents: tuple[Document, ...] = (),
        is_large: bool = False,
    ) -> Started:
        """Store a tree with its documents, and with `execute` start it in the same transaction.

        `is_large`: it may have megabytes, and is counted beside the event loop. Raises VersionConflict when one of the
        documents is there, NoRoom when its inputs do not fit into memory, InvalidPlan for an unusable input schema.
        """
        root = next(task for task in plan.tasks if task.id == plan.root_id)
        if plan.unjudged and (problems := await judge_rest(plan.unjudged, root.owner, self.judges)):
            raise InvalidPlan(problems)
        now = self.clock.now()
        head = TreeHead(
            id=plan.root_id,
            owner=root.owner,
            size=len(plan.tasks),
            origin=submission.origin,
            context_id=submission.context_id,
            metadata=submission.metadata,
            original_task_id=submission.original_task_id,
            created_at=now,
            updated_at=now,
        )
        if execute:
            await self.registry.hooks.before_tree(head)
        self.holdings.hold(head.id, head.owner, await memory_needed(plan.tasks, head, is_large=is_large))
        try:
            return await self.orchestrator.create(head, plan, submission, execute=execute, documents=documents)
        except CoreError:
            self.holdings.drop(head.id)
            raise

    async def execute(self, task_id: str, *, force: bool = False, by: str | None = None) -> Started:
        """Start a run of the task's tree (of the whole tree when it is the root).

        Raises TaskNotFound, TreeIsRunning, IllegalCommand when there is nothing to run, or NoRoom.
        """
        tree_id = await self._tree_of(task_id)
        tree = await self.orchestrator.trees.load(tree_id)
        await self.registry.hooks.before_tree(tree.head)
        size = 0 if tree_id in self.holdings else await memory_needed(tuple(tree.tasks.values()), tree.head)
        if is_new := tree_id not in self.holdings:
            self.holdings.hold(tree_id, tree.head.owner, size)
        try:
            command = Execute(None if task_id == tree_id else task_id, force, by)
            decision = await self.orchestrator.handle(tree_id, command)
        except CoreError:
            if is_new and tree_id not in self.orchestrator.trees.by_id:
                self.holdings.drop(tree_id)
            raise
        return Started(decision.head, decision.events)

    async def would_execute(self, task_id: str, *, force: bool = False) -> None:
        """Raise what `execute` would be refused with by the tree itself; nothing is changed."""
        tree_id = await self._tree_of(task_id)
        tree = await self.orchestrator.trees.load(tree_id)
        command = Execute(None if task_id == tree_id else task_id, force)
        if is_large(tree, command):
            await self.beside.run(tree.head.owner, decide, command, tree.fork(), self.clock.now())
        else:
            decide(command, tree, self.clock.now())

    async def cancel(
        self,
        task_id: str,
        reason: str | None = None,
        *,
        force: bool = False,
        metadata: Mapping[str, Any] | None = None,
        by: str | None = None,
    ) -> CancelResult:
        """Cancel the task, its subtree and all that requires them; answers when the work has stopped, or after 5 s.

        What cannot be interrupted is asked to stop (`context.cancelled`) and runs to its end.
        The executors that are stopped see the `metadata` as `context.cancel_metadata`.

        Raises TaskNotFound, or TaskNotCancelable when the task ended otherwise.
        """
        tree_id = await self._tree_of(task_id)
        if (ended := await self._cancel_of_ended(tree_id, task_id)) is not None:
            return ended
        decision, still_running = await self.runner.cancel(
            tree_id, Cancel(task_id, reason, force, by=by), metadata or {}
        )
        left = decision.tree.running.intersection(decision.tree.subtree(task_id))
        head, task = await self.storage.head(tree_id), await self.storage.task(task_id)
        if head is None or task is None:
            raise TaskNotFound(task_id)
        shown = head.status if task_id == tree_id else task.status
        events = decision.events
        return CancelResult(
            head=head,
            task=task,
            has_effect=shown is TaskStatus.CANCELLED or any(isinstance(each.event, TaskCancelled) for each in events),
            still_running=still_running,
            not_cancelable=tuple(sorted(left)),
        )

    async def _cancel_of_ended(self, tree_id: str, task_id: str) -> CancelResult | None:
        """What a cancel comes to where all tasks have ended; None where the tree has to be looked at as a whole.

        An ended tree is not in memory, and reading one of 10,000 tasks takes longer than the answer that it has ended.
        Raises TaskNotFound, or TaskNotCancelable when the task ended otherwise.
        """
        orchestrator = self.orchestrator
        if orchestrator.trees.by_id.get(tree_id) is not None or orchestrator.latest(tree_id) is not None:
            return None
        head, task = await self.storage.head(tree_id), await self.storage.task(task_id)
        if head is None or task is None:
            raise TaskNotFound(task_id)
        if head.is_live or not head.status.is_terminal:
            return None
        shown = head.status if task_id == tree_id else task.status
        if TaskStatus.CANCELLED not in (shown, task.status):
            raise TaskNotCancelable.already(task_id, shown)
        return CancelResult(head=head, task=task, has_effect=shown is TaskStatus.CANCELLED)

    async def cancel_answer(
        self, task_id: str, reason: str | None = None, *, force: bool = False, by: str | None = None
    ) -> CancelObject:
        """`cancel` as a caller of `tasks.cancel` and of the guide's `cancel_task` is told about it (semantics §5)."""
        try:
            result = await self.cancel(task_id, reason, force=force, by=by)
        except CallerError as refusal:
            return {"task_id": task_id, "status": "failed", "message": str(refusal)}
        return result.told(task_id)

    async def provide_input(self, given: ProvideInput, documents: tuple[Document, ...] = ()) -> None:
        """Answer the task's open question; of as many as `each` has values each gets its own.

        Raises IllegalCommand (it asks nothing), InvalidPlan (`is_exact`: not one for each), TaskNotFound, NoRoom.
        """
        tree_id = await self._tree_of(given.task_id)
        brought = (given.answer, given.message)
        if is_small(brought):
            size = _memory_of(brought)
        else:  # by turns of the tree's owner, who may have others answer
            owner = (await self.orchestrator.trees.load(tree_id)).head.owner
            size = await self.beside.run(owner, _memory_of, brought)
        self.holdings.add(tree_id, size)
        await self.orchestrator.handle(tree_id, given, documents)

    async def receive_message(self, task_id: str, message: Said, documents: tuple[Document, ...] = ()) -> None:
        """Keep a caller's message in the task's history. Raises IllegalCommand when the task has ended."""
        await self.orchestrator.handle(await self._tree_of(task_id), ReceiveMessage(task_id, message), documents)

    async def update(self, task_id: str, changes: dict[str, Any], *, by: str | None = None) -> Task:
        """Change fields of a pending task of a tree at rest. Raises InvalidPlan (every broken rule), TreeIsRunning."""
        tree_id = await self._tree_of(task_id)
        tree = await self.orchestrator.trees.load(tree_id)
        task = tree.tasks[task_id]
        parsed, problems = parse_changes(changes)
        if "dependencies" in parsed:
            parsed["dependencies"] = own_ids(parsed["dependencies"], list(tree.tasks.values()))
        changed = replace(task, **parsed)
        brought = BroughtSchemas()
        problems += extras_problems(changed.schemas, changed.params, brought.judge)
        problems += await judge_rest(brought.left(changed), changed.owner, self.judges)
        if parsed.keys() & {"name", "schemas", "params"}:
            parsed["executor"] = self.registry.resolve(changed.name, changed.schemas, changed.params)
            if parsed["executor"] is None and (task_id not in tree.children or names_executor(changed)):
                problems.append(Problem(executor_field(changed), unknown_executor(changed, self.registry.ids())))
        if not problems or "dependencies" in parsed:
            graph = check_graph([changed if each.id == task_id else each for each in tree.tasks.values()])
            problems += [Problem(p.field.rpartition("].")[2], p.message) for p in graph]
        if problems:
            raise InvalidPlan(problems.told())
        changes = {name: msgspec.to_builtins(value) for name, value in parsed.items()}
        decision = await self.orchestrator.handle(tree_id, UpdateTask(task_id, changes, by))
        return decision.tree.tasks[task_id]

    async def delete(self, task_id: str) -> None:
        """Remove the whole tree of this root. Raises TaskNotFound, or TreeIsRunning while anything in it runs."""
        task = await self.storage.task(task_id)
        if task is None:
            raise TaskNotFound(task_id)
        if task.tree_id and task.tree_id != task_id:
            raise TreeIsRunning(
                task_id, f"Task {task_id} is part of the tree {task.tree_id}; delete that tree as a whole"
            )
        await self.storage.delete(task_id)
        self.feed.forget(task_id)

    async def copy(
        self,
        task_id: str,
        submission: Submission = BARE,
        *,
        children: bool = True,
        keep_results: bool = False,
        execute: bool = False,
    ) -> Started:
        """A new tree like this task (with all below it, if `children`), with `original_task_id` on every task.

        With `keep_results` completed tasks stay completed. Dependencies on tasks outside the copy are left out.
        The copy has the metadata of its original, too.
        """
        stored = await self.orchestrator.trees.load(await self._tree_of(task_id))
        chosen = set(stored.subtree(task_id) if children else [task_id])
        made = partial(
            copies,
            [task for task in stored.tasks.values() if task.id in chosen],
            task_id,
            self.clock.new_id,
            self.clock.now(),
            keep_results=keep_results,
        )
        tasks = await self.beside.run(stored.head.owner, made) if len(chosen) > LARGE_TREE else made()
        parents = {task.parent_id for task in tasks}
        if lost := [task for task in tasks if task.is_group and task.id not in parents]:
            text = f"the group {lost[0].name!r} cannot be copied without its children"
            raise InvalidPlan([Problem("children", text)])
        return await self.create(
            Plan(next(task.id for task in tasks if task.parent_id is None), tuple(tasks)),
            replace(submission, metadata=stored.head.metadata, original_task_id=task_id),
            execute=execute,
            is_large=len(tasks) > LARGE_TREE,
        )

    # Following

    def follow(self, tree_id: str, after: int = 0) -> AsyncIterator[Recorded]:
        """The tree's log from there on, live; it ends when the session closes."""
        return self.feed.follow(tree_id, after)

    async def wait(self, tree_id: str, until: Callable[[TreeHead], bool]) -> TreeHead:
        """The tree's head as soon as it satisfies `until`, or as it is when the session closes."""
        return await self.feed.wait(tree_id, until)

    async def _tree_of(self, task_id: str) -> str:
        if task_id in self.orchestrator.trees.by_id:
            return task_id
        tree_id = await self.storage.tree_of(task_id)
        if not tree_id:
            raise TaskNotFound(task_id)
        return tree_id


def _memory_of(value: Any) -> int:
    return memory_of(encoded(value))


def has_ended(head: TreeHead) -> bool:
    """Whether the tree's latest run is over. A run of a part of the tree can leave the whole pending."""
    return not head.is_live and (head.run > 0 or head.status.is_terminal)


def needs_caller(head: TreeHead) -> bool:
    """Whether the tree has ended or waits for its caller: the moment a blocking A2A call answers (spec §3.2.2)."""
    return has_ended(head) or head.status.is_interrupted
