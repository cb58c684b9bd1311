"""The core as a Python library: the names that the guide uses (semantics §6)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from inspect import isawaitable
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from msgspec.structs import replace

from core.cancel_result import CancelObject
from core.databases import key_of, name_of, storage_of
from core.executors.builtins.registration import register_builtins
from core.executors.registry import ExecutorRegistry, default_registry, wanted_executor
from core.executors.schema import judge_schema
from core.model.commands import ProvideInput
from core.model.errors import ConfigurationError, InvalidPlan, NothingToRun, Problem, TaskNotFound
from core.model.events import Recorded, TreeFinished
from core.model.graph import check_graph
from core.model.jsonvalue import NotJson, to_json_value
from core.model.plan import (
    Plan,
    TaskInput,
    deadline_of,
    dependency_of,
    extras_problems,
    names_executor,
)
from core.model.problems import Misfit, Problems, convert, readable
from core.model.retry import RetryPolicy
from core.model.streaming import stream_event
from core.model.submission import Submission
from core.model.task import ANONYMOUS, Cause, Task, TaskStatus, TreeHead
from core.model.tree import TaskTree
from core.outside.egress import EgressPolicy
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from core.storage.base import TaskQuery
from core.storage.memory import MemoryStorage

FROM_PYTHON = Submission(origin="python")
DEFAULT_DATABASE = "sqlite:///a2a-server.db"

Callback = Callable[[dict[str, Any]], Awaitable[None] | None]

# One process may open a database file once, so sessions of the same file are one session.
_sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()


def create_session(url: str | None = None, *, limits: RunnerLimits | None = None) -> Session:
    """A core on that database: a SQLite file by default, or PostgreSQL by its URL; ":memory:" keeps nothing.

    It opens itself on first use and closes with the event loop, or by `close()`; in another loop it opens anew. All
    sessions of one database are one. Raises ConfigurationError for a database that is not supported.
    """
    url = url or DEFAULT_DATABASE
    # The guide's programs name the built-in executors without registering anything. Commands stay off.
    register_builtins(default_registry, egress=EgressPolicy(), command=None)
    if url == ":memory:":
        return Session(MemoryStorage(), limits=limits)
    key = key_of(url)
    session = _sessions.get(key)
    if session is None or session.is_closed or (limits is not None and session.is_left):
        session = Session(storage_of(url), limits=limits)
        _sessions[key] = session
    elif limits is not None:
        raise ConfigurationError(f"a session on {name_of(url)} is open already; its limits cannot be changed")
    return session


class TaskTreeNode:
    """A task with its children, as a caller builds a tree (semantics §6)."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.children: list[TaskTreeNode] = []
        self._parent: TaskTreeNode | None = None

    def add_child(self, child: "TaskTreeNode") -> None:
        """Adopt a node: its task becomes a child of this one. Raises ValueError when that would close a circle."""
        above: TaskTreeNode | None = self
        while above is not None:
            if above is child:
                raise ValueError(f"task {child.task.id} cannot be below itself")
            above = above._parent
        child._parent = self
        child.task = replace(child.task, parent_id=self.task.id)
        self.children.append(child)

    def nodes(self) -> "list[TaskTreeNode]":
        """This node and all below it, parents before children. Raises ValueError when one is there twice."""
        found = [self]
        seen = {id(self)}
        for node in found:
            for child in node.children:
                if id(child) in seen:
                    raise ValueError(f"task {child.task.id} is in this tree twice")
                seen.add(id(child))
                found.append(child)
        return found

    def calculate_progress(self) -> float:
        """0 to 1: the mean over the tasks that run something, and 1 when the whole is completed, as the tree has it."""
        if self.calculate_status() is TaskStatus.COMPLETED:
            return 1.0
        fractions = [node.task.progress for node in self.nodes() if not (node.task.is_group and node.children)]
        return sum(fractions) / len(fractions)

    def calculate_status(self) -> TaskStatus:
        """One status for the whole, as the tree has it (semantics §3, roll-up): a failure that every dependent
        tolerates is none. While tasks are open: a question, else in progress, or pending when none has begun."""
        nodes = self.nodes()
        statuses = {node.task.status for node in nodes}
        for status in (TaskStatus.INPUT_REQUIRED, TaskStatus.AUTH_REQUIRED, TaskStatus.IN_PROGRESS):
            if status in statuses:
                return status
        if TaskStatus.PENDING in statuses:
            has_begun = any(node.task.started_at is not None for node in nodes)
            return TaskStatus.IN_PROGRESS if has_begun else TaskStatus.PENDING
        root = replace(self.task, parent_id=None)
        tree = TaskTree(
            TreeHead(id=root.id, created_at=0.0, updated_at=0.0), [root, *(node.task for node in nodes[1:])]
        )
        return tree.roll_up(lambda task_id: tree.tasks[task_id].status)


class TaskRepository:
    """Stored tasks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._created = count()

    async def create_task(
        self,
        name: str,
        user_id: str | None = None,
        parent_id: str | None = None,
        priority: int = 2,
        dependencies: Iterable[dict[str, Any] | str] | None = None,
        inputs: dict[str, Any] | None = None,
        schemas: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        id: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - a field of the task, not of this call
        queue_timeout: float | None = None,
        deadline: str | None = None,
        max_attempts: int = 1,
        retry: dict[str, Any] | None = None,
    ) -> Task:
        """Store a task that will run when its tree is distributed. Raises InvalidPlan naming every bad field.

        `timeout` and `queue_timeout` are in seconds, `deadline` is an RFC 3339 timestamp.
        """
        given: dict[str, Any] = {
            "id": id, "name": name, "user_id": user_id, "parent_id": parent_id, "priority": priority, "inputs": inputs,
            "dependencies": list(dependencies or ()), "schemas": schemas, "params": params, "timeout": timeout,
            "queue_timeout": queue_timeout, "deadline": deadline, "max_attempts": max_attempts, "retry": retry,
        }  # fmt: skip
        parsed, deadline_at, given = _checked(given)
        await self._session.ensure_started()
        now = self._session.clock.now()
        task = Task(
            id=id or self._session.clock.new_id(),
            name=name,
            user_id=user_id,
            parent_id=parent_id,
            position=next(self._created),
            executor=wanted_executor(name, schemas, params),
            priority=parsed.priority,
            dependencies=tuple(map(dependency_of, parsed.dependencies)),
            inputs=given["inputs"] or {},
            schemas=given["schemas"],
            params=given["params"],
            timeout=timeout,
            queue_timeout=queue_timeout,
            deadline=deadline_at,
            max_attempts=parsed.max_attempts,
            retry=parsed.retry or RetryPolicy(),
            created_at=now,
            updated_at=now,
        )
        await self._session.storage.put_draft(task)
        return task

    async def create_tree(self, items: list[dict[str, Any]]) -> TaskTreeNode:
        """Store the tree that an array of tasks describes, such as a YAML file's (docs/task.schema.json).

        It runs when it is distributed. Raises InvalidPlan with everything that is wrong; then nothing is stored.
        """
        await self._session.ensure_started()
        plan = self._session.plan(items)
        await self._session.create(plan, FROM_PYTHON)
        nodes = {task.id: TaskTreeNode(task) for task in plan.tasks}
        for task in plan.tasks:
            if task.parent_id is not None:
                nodes[task.parent_id].add_child(nodes[task.id])
        return nodes[plan.root_id]

    async def get_task_by_id(self, task_id: str) -> Task | None:
        """The task as it is now, or None."""
        await self._session.ensure_started()
        return await self._session.storage.task(task_id)

    async def get_task_tree(self, task: Task | str) -> TaskTreeNode:
        """The task with everything below it, as it is now. Raises TaskNotFound."""
        await self._session.ensure_started()
        task_id = task if isinstance(task, str) else task.id
        found = await self._session.storage.task(task_id)
        if found is None:
            raise TaskNotFound(task_id)
        root = TaskTreeNode(found)
        open_nodes = [root]
        for node in open_nodes:
            for child in await self._session.storage.children(node.task.id):
                node.add_child(TaskTreeNode(child))
            open_nodes.extend(node.children)
        return root

    async def cancel_draft(self, task_id: str, reason: str | None = None) -> bool:
        """Cancel a task that belongs to no tree yet, with the drafts below it. False when it is no such task."""
        storage = self._session.storage
        task = await storage.task(task_id)
        if task is None or task.tree_id:
            return False
        now = self._session.clock.now()
        found = [task]
        for each in found:
            found += [child for child in await storage.children(each.id) if not child.tree_id and child not in found]
            if each.status is TaskStatus.CANCELLED:
                continue
            error = reason or "cancelled by request"
            ended = replace(
                each, status=TaskStatus.CANCELLED, error=error, cause=Cause.REQUESTED, finished_at=now, updated_at=now
            )
            if not await storage.cancel_draft(ended) and each is task:
                return False
        return True

    async def query_tasks(
        self,
        user_id: str | None = None,
        status: str | None = None,
        name: str | None = None,
        root_only: bool = False,
        limit: int = 100,
        *,
        after: Task | None = None,
    ) -> list[Task]:
        """Tasks that match, newest first; with `after`, the last task of a page, the page behind it.

        Raises ValueError for a status that does not exist.
        """
        await self._session.ensure_started()
        query = TaskQuery(
            owner=ANONYMOUS,
            root_only=root_only,
            statuses=frozenset({TaskStatus(status)}) if status is not None else None,
            user_id=user_id,
            name=name,
            before=None if after is None else (after.created_at, after.id),
            limit=limit,
        )
        return await self._session.storage.tasks(query)


class TaskManager:
    """Runs trees of tasks (semantics §6)."""

    def __init__(self, db: Session) -> None:
        self.session = db
        self.task_repository = TaskRepository(db)
        self._callbacks: list[Callback] = []

    def on_event(self, callback: Callback) -> Callback:
        """Register a plain or async function for the events of `distribute_task_tree_with_streaming`."""
        self._callbacks.append(callback)
        return callback

    async def distribute_task_tree(self, tree: TaskTreeNode) -> TaskTreeNode:
        """Run the tree and return it when the run has ended or waits for an answer; its nodes show how it went.

        A tree that ran before is run again: what is completed is kept. Raises InvalidPlan when its edges cannot be
        satisfied; then nothing has run.
        """
        await self._start(tree)
        return await self._settled(tree)

    async def distribute_task_tree_with_streaming(
        self, tree: TaskTreeNode, use_callback: bool = True, callback: Callback | None = None
    ) -> TaskTreeNode | AsyncIterator[dict[str, Any]]:
        """Run the tree and hand over each of its events (semantics §7), in order, none lost.

        With `use_callback` they go to `callback` and to those of `on_event`, and the finished tree is returned;
        without, an async iterator of them is. Raises as `distribute_task_tree`.
        """
        after = await self._start(tree)
        if not use_callback:
            return self._events(tree, after)
        return await self._hand_over(tree, after, [*self._callbacks, *([callback] if callback else [])])

    async def cancel_task(self, task_id: str, error_message: str | None = None, *, force: bool = False) -> CancelObject:
        """Cancel the task, its subtree and all that requires them, and say how that went (semantics §5)."""
        await self.session.ensure_started()
        if await self.task_repository.cancel_draft(task_id, error_message):
            return {"task_id": task_id, "status": "cancelled", "message": f"Task {task_id} was cancelled"}
        return await self.session.cancel_answer(task_id, error_message, force=force)

    async def provide_input(self, tree: TaskTreeNode, answer: Any, task_id: str | None = None) -> TaskTreeNode:
        """Answer the open question of a task (by default the tree's oldest), and wait as `distribute_task_tree`.

        What happens from then on goes to the callbacks of `on_event`.
        """
        await self.session.ensure_started()
        head = await self.session.storage.head(tree.task.id)
        await self.session.provide_input(ProvideInput(task_id or tree.task.id, to_json_value(answer, "answer")))
        if self._callbacks and head is not None:
            return await self._hand_over(tree, head.version, self._callbacks)
        return await self._settled(tree)

    async def _settled(self, tree: TaskTreeNode) -> TaskTreeNode:
        """The tree when its run has ended, or when nothing can go on without an answer."""
        trees = self.session.orchestrator.trees
        live = trees.by_id.get(tree.task.id)
        async with self.session.runner.lending.lent():
            head = await self.session.wait(
                tree.task.id,
                lambda head: has_ended(head) or trees.is_parked(head.id, head.version),
            )
            await self.session.runner.hooks_done()
        if live is not None and live.head is head:  # nothing has happened to it since, and all of it is durable
            _show(tree, live.tasks)
            return tree
        return await self._refresh(tree)

    async def _hand_over(self, tree: TaskTreeNode, after: int, callbacks: list[Callback]) -> TaskTreeNode:
        async for event in self._events(tree, after):
            for callback in callbacks:
                answer = callback(event)
                if isawaitable(answer):
                    await answer
        await self.session.runner.hooks_done()
        return await self._refresh(tree)

    async def _start(self, tree: TaskTreeNode) -> int:
        """Start a run of the tree; the sequence number before its first event."""
        await self.session.ensure_started()
        self.session.runner.lending.nest(tree.task.id)
        head = await self.session.storage.head(tree.task.id)
        if head is None:
            plan = _plan_of(tree, self.session.registry)
            gone = await self.session.storage.cancelled_drafts([task.id for task in plan.tasks])
            plan = replace(plan, cancelled=tuple((task.id, task.error or "") for task in gone))
            await self.session.create(plan, FROM_PYTHON, execute=True)
            return 0
        nodes = tree.nodes()
        if new := [node for node in nodes if node.task.tree_id != head.id]:
            text = f"task {new[0].task.name!r} cannot join a tree that has already run; build a new tree"
            raise InvalidPlan([Problem("tasks", text)])
        if head.is_live and head.id not in self.session.orchestrator.trees.by_id:
            await self.session.orchestrator.trees.load(head.id)  # a process before this one began it and is gone
            return 0
        try:
            await self.session.execute(tree.task.id)
        except NothingToRun:
            return head.version - 1  # its followers see the end that it has come to
        return head.version

    async def _events(self, tree: TaskTreeNode, after: int) -> AsyncIterator[dict[str, Any]]:
        async with self.session.runner.lending.lent():
            async for recorded in self.session.follow(tree.task.id, after):
                event = stream_event(recorded)
                if event is not None:
                    yield event
                if isinstance(recorded.event, TreeFinished) or self._is_last_for_now(recorded):
                    await self._refresh(tree)
                    return

    def _is_last_for_now(self, recorded: Recorded) -> bool:
        """Whether nothing comes after this event until somebody answers a question."""
        return self.session.orchestrator.trees.is_parked(recorded.tree_id, recorded.seq)

    async def _refresh(self, tree: TaskTreeNode) -> TaskTreeNode:
        stored = await self.session.storage.load(tree.task.id)
        if stored is not None:
            _show(tree, {task.id: task for task in stored[1]})
        return tree


def _plan_of(tree: TaskTreeNode, registry: ExecutorRegistry) -> Plan:
    """The nodes as one validated tree. A task whose executor is unknown is left to fail when it starts."""
    nodes = tree.nodes()
    order = sorted(nodes, key=lambda node: (node.task.created_at, node.task.position))
    positions = {node.task.id: position for position, node in enumerate(order)}
    problems = []
    if len(positions) < len(nodes):
        problems.append(Problem("tasks", "the same task is in the tree twice"))
    for node in nodes:
        task = node.task
        executor = registry.resolve(task.name, task.schemas, task.params)
        if executor is None and (not node.children or names_executor(task)):
            executor = wanted_executor(task.name, task.schemas, task.params)
        parent_id = None if node is tree else task.parent_id
        changes = {"tree_id": tree.task.id, "parent_id": parent_id, "executor": executor}
        if not task.tree_id:  # a draft may have been cancelled: then the tree is, from its beginning
            changes |= {"status": TaskStatus.PENDING, "error": None, "cause": None, "finished_at": None}
        node.task = replace(task, **changes, position=positions[task.id])
    tasks = tuple(node.task for node in order)
    problems += check_graph(tasks)
    if problems:
        raise InvalidPlan(problems)
    return Plan(tree.task.id, tasks)


def _show(tree: TaskTreeNode, tasks: Mapping[str, Task]) -> None:
    """Let the nodes have their tasks as they are now."""
    for node in tree.nodes():
        node.task = tasks.get(node.task.id, node.task)


def _checked(given: dict[str, Any]) -> tuple[TaskInput, float | None, dict[str, Any]]:
    """A task's fields as they are read, its deadline, and a copy of them: what the caller keeps may change.

    Raises InvalidPlan naming every bad field.
    """
    problems = Problems()
    try:
        parsed = convert(given, TaskInput)
    except Misfit as misfit:
        problems += misfit.problems
        parsed = readable(given, TaskInput, {"name": "?"})
    problems += extras_problems(given["schemas"], given["params"], judge_schema)
    deadline = deadline_of(parsed.deadline, "deadline", problems) if parsed.deadline is not None else None
    try:
        given = to_json_value(given, "task")
    except NotJson as error:
        problems.append(Problem("", str(error)))
    if problems:
        raise InvalidPlan(problems.told())
    return parsed, deadline, given
