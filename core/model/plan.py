"""From a caller's array of tasks to a validated tree. Pure: ids and the time come in as arguments.

Everything is judged before anything is stored, iteratively and in O(V + E), and all that is wrong is told at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from core.model.errors import InvalidPlan, Problem
from core.model.graph import check_graph
from core.model.problems import Misfit, Problems, convert, readable
from core.model.retry import PositiveSeconds, RetryPolicy
from core.model.task import Dependency, On, Task
from core.model.timestamps import from_timestamp

MAX_SCHEMA_NODES = 2_000  # of the input schema that a task brings along
# What can make a small schema take for ever, and the type by which the keyword is told from a property of that name.
COSTLY_KEYWORDS: Mapping[str, type] = {
    "pattern": str, "patternProperties": dict, "$ref": str, "$dynamicRef": str, "uniqueItems": bool,
    "unevaluatedProperties": dict, "unevaluatedItems": dict,
}  # fmt: skip

Judge = Callable[[Mapping[str, Any]], str | None]  # what is wrong with a JSON Schema
Resolve = Callable[[str, Mapping[str, Any] | None, Mapping[str, Any] | None], str | None]

ShortText = Annotated[str, Meta(min_length=1, max_length=1024)]
Priority = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Attempts = Annotated[int, Meta(ge=1, le=1000)]


class DependencyInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A dependency as a caller writes it: `on`, or `required` as the guide has it (true: success, false: any)."""

    id: str
    required: bool | UnsetType = UNSET
    on: On | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.required is not UNSET and self.on is not UNSET and self.on is not _ON[self.required]:
            raise ValueError(
                f"`required` means on: {_ON[self.required]}, but `on` is {self.on}; give only one of the two"
            )


_ON: Mapping[bool, On] = {True: On.SUCCESS, False: On.ANY}  # what `required` says


def dependency_of(given: DependencyInput | str) -> Dependency:
    """What the caller's dependency means."""
    if isinstance(given, str):
        return Dependency(given)
    if given.on is not UNSET:
        return Dependency(given.id, given.on)
    return Dependency(given.id) if given.required is UNSET else Dependency(given.id, _ON[given.required])


class TaskInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task as a caller writes it (semantics §7)."""

    id: ShortText | None = None
    name: ShortText
    user_id: ShortText | None = None
    parent_id: ShortText | None = None
    priority: Priority = 2
    dependencies: list[DependencyInput | ShortText] = []
    inputs: dict[str, Any] | None = None
    schemas: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    timeout: PositiveSeconds | None = None
    queue_timeout: PositiveSeconds | None = None
    deadline: str | None = None
    max_attempts: Attempts = 1
    retry: RetryPolicy | None = None


class TaskChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a task that a caller may change while it is pending."""

    name: ShortText | UnsetType = UNSET
    user_id: ShortText | None | UnsetType = UNSET
    priority: Priority | UnsetType = UNSET
    inputs: dict[str, Any] | None | UnsetType = UNSET
    schemas: dict[str, Any] | None | UnsetType = UNSET
    params: dict[str, Any] | None | UnsetType = UNSET
    timeout: PositiveSeconds | None | UnsetType = UNSET
    queue_timeout: PositiveSeconds | None | UnsetType = UNSET
    deadline: str | None | UnsetType = UNSET
    max_attempts: Attempts | UnsetType = UNSET
    retry: RetryPolicy | None | UnsetType = UNSET
    dependencies: list[DependencyInput | ShortText] | UnsetType = UNSET


class Limits(Struct, frozen=True, kw_only=True):
    """What one array may hold at a server's endpoint."""

    max_tasks: int = 10_000
    max_depth: int = 200


class Rules(Struct, frozen=True):
    """What an array is judged by. `judge` says what is wrong with an input schema that a task brings along."""

    resolve: Resolve
    known: Callable[[], list[str]]
    judge: Judge = lambda schema: None
    limits: Limits | None = None


class Unjudged(Struct, frozen=True):
    """An input schema of which it is still to be found out whether it can be used, and its field's path."""

    field: str
    schema: Mapping[str, Any]


class Plan(Struct, frozen=True):
    """A validated tree, ready to be stored: its tasks by position, with their final ids."""

    root_id: str
    tasks: tuple[Task, ...]
    unjudged: tuple[Unjudged, ...] = ()
    cancelled: tuple[tuple[str, str], ...] = ()  # tasks that were cancelled before they had a tree, and why


def make_plan(items: Any, rules: Rules, *, new_id: Callable[[], str], now: float, owner: str) -> Plan:
    """Turn decoded JSON into a plan.

    Tasks refer to each other by `id`, or by `name` where names are unique; the ids in the array are local to it, the
    plan's are new. Raises InvalidPlan with every problem, each with its field ("tasks[3].dependencies[0]: …").
    """
    limits = rules.limits
    if not isinstance(items, list) or not items:
        raise InvalidPlan([Problem("tasks", "must be an array of at least one task")])
    if limits and len(items) > limits.max_tasks:
        raise InvalidPlan([Problem("tasks", f"{len(items)} tasks are more than the {limits.max_tasks} allowed")])
    problems = Problems()
    inputs, unread = _parse(items, problems)
    array = _Array([new_id() for _ in inputs], _References(inputs, problems), rules, owner, now, problems)
    tasks = [array.build(index, item) for index, item in enumerate(inputs)]
    tree_id = _root(tasks, problems)
    tasks = [msgspec.structs.replace(task, tree_id=tree_id) for task in tasks]
    if problems.dropped:  # a dropped problem may be the cause of the graph's problems
        raise InvalidPlan(problems.told())
    told = {problem.field for problem in problems} - {"tasks"}
    problems += [p for p in check_graph(tasks, limits.max_depth if limits else None) if p.field not in told]
    problems += _unknown_executors(tasks, unread, rules.known)
    if problems:
        raise InvalidPlan(problems.told())
    return Plan(tree_id, tuple(tasks))


def parse_changes(changes: Mapping[str, Any]) -> tuple[dict[str, Any], Problems]:
    """The right ones of `tasks.update`'s changes, in a Task's own terms, and what is wrong with the others."""
    problems = Problems()
    try:
        parsed = convert(dict(changes), TaskChanges)
    except Misfit as misfit:
        problems += misfit.problems
        parsed = readable(changes, TaskChanges, {})
    result: dict[str, Any] = {}
    for field in changes:
        value = getattr(parsed, field, UNSET)
        if value is UNSET:
            continue
        match field:
            case "deadline" if value is not None:
                value = deadline_of(value, "deadline", problems)
            case "dependencies":
                value = tuple(map(dependency_of, value))
            case "inputs":
                value = value or {}
            case "retry":
                value = value or RetryPolicy()
        result[field] = value
    return result, problems


def _parse(items: list[Any], problems: Problems) -> tuple[list[TaskInput], frozenset[int]]:
    """The tasks, and the positions of those of which only a part could be read."""
    parsed = []
    unread = set()
    for index, item in enumerate(items):
        try:
            task = convert(item, TaskInput, f"tasks[{index}]")
        except Misfit as misfit:
            problems += misfit.problems
            unread.add(index)
            task = readable(item, TaskInput, {"name": "?"})
        parsed.append(task)
    return parsed, frozenset(unread)


class _References:
    """Finds the task that an `id` or a unique `name` of the array means."""

    def __init__(self, inputs: Sequence[TaskInput], problems: list[Problem]) -> None:
        self._by_id: dict[str, int] = {}
        for index, item in enumerate(inputs):
            if item.id is not None and self._by_id.setdefault(item.id, index) != index:
                first = self._by_id[item.id]
                problems.append(Problem(f"tasks[{index}].id", f"{item.id!r} is already the id of tasks[{first}]"))
        self._names = Counter(item.name for item in inputs)
        self._by_name = {item.name: index for index, item in enumerate(inputs)}

    def find(self, reference: str) -> int | str:
        """The position of the task, or why there is none."""
        if (index := self._by_id.get(reference)) is not None:
            return index
        match self._names[reference]:
            case 0:
                return f"there is no task {reference!r} in this array"
            case 1:
                return self._by_name[reference]
            case many:
                return f"{many} tasks are named {reference!r}; give them ids and refer to one by id"


class _Array(Struct):
    """What the tasks of one array have in common while they are built."""

    ids: Sequence[str]
    references: _References
    rules: Rules
    owner: str
    now: float
    problems: Problems

    def build(self, index: int, item: TaskInput) -> Task:
        path = f"tasks[{index}]"
        extras = extras_problems(item.schemas, item.params, self.rules.judge)
        self.problems += [Problem(f"{path}.{p.field}", p.message) for p in extras]
        given = item.deadline
        return Task(
            id=self.ids[index],
            owner=self.owner,
            name=item.name,
            ref=item.id,
            parent_id=self._id_of(item.parent_id, f"{path}.parent_id") if item.parent_id is not None else None,
            position=index,
            executor=self.rules.resolve(item.name, item.schemas, item.params),
            user_id=item.user_id,
            priority=item.priority,
            dependencies=tuple(
                Dependency(self._id_of(dependency.id, f"{path}.dependencies[{n}]"), dependency.on)
                for n, dependency in enumerate(map(dependency_of, item.dependencies))
            ),
            inputs=item.inputs or {},
            schemas=item.schemas,
            params=item.params,
            timeout=item.timeout,
            queue_timeout=item.queue_timeout,
            deadline=deadline_of(given, f"{path}.deadline", self.problems) if given is not None else None,
            max_attempts=item.max_attempts,
            retry=item.retry or RetryPolicy(),
            created_at=self.now,
            updated_at=self.now,
        )

    def _id_of(self, reference: str, path: str) -> str:
        """The new id of the task that is meant; empty, and one problem more, where there is none."""
        found = self.references.find(reference)
        if isinstance(found, int):
            return self.ids[found]
        self.problems.append(Problem(path, found))
        return ""


def extras_problems(
    schemas: Mapping[str, Any] | None, params: Mapping[str, Any] | None, judge: Judge
) -> Iterator[Problem]:
    """What is wrong with those entries of `schemas` and `params` that mean something to the core."""
    for field, given, key in (("schemas", schemas, "method"), ("params", params, "executor_id")):
        if given and given.get(key) is not None and not (isinstance(given[key], str) and given[key]):
            yield Problem(f"{field}.{key}", "must be the id of an executor")
    schema = (schemas or {}).get("input_schema")
    if schema is not None and (text := _own_schema_problem(schema) or judge(schema)):
        yield Problem("schemas.input_schema", text)


def _own_schema_problem(schema: Any) -> str | None:
    """Judging by a schema must not keep the whole process busy, so a caller's is small and plain."""
    if not isinstance(schema, dict):
        return "must be a JSON Schema object"
    inner: list[Any] = [schema]
    for each in inner:
        if len(inner) > MAX_SCHEMA_NODES:
            return f"has more than {MAX_SCHEMA_NODES} parts"
        if isinstance(each, list):
            inner.extend(each)
        elif isinstance(each, dict):
            if costly := [word for word, kind in COSTLY_KEYWORDS.items() if isinstance(each.get(word), kind)]:
                return f"must not use {costly[0]}"
            inner.extend(each.values())
    return None


def deadline_of(text: str, path: str, problems: list[Problem]) -> float | None:
    """Seconds since 1970 of a deadline; None, and one problem more, when it is no timestamp."""
    try:
        return from_timestamp(text)
    except (ValueError, OverflowError):
        problems.append(Problem(path, "must be a timestamp such as 2026-01-31T12:00:00Z"))
        return None


def _root(tasks: Sequence[Task], problems: list[Problem]) -> str:
    told = {problem.field for problem in problems}
    roots = [
        task
        for task in tasks
        if task.parent_id is None and told.isdisjoint((f"tasks[{task.position}]", f"tasks[{task.position}].parent_id"))
    ]
    if len(roots) > 1:
        names = ", ".join(repr(task.ref or task.name) for task in roots[:5])
        problems.append(Problem("tasks", f"{len(roots)} tasks have no parent_id ({names}); a tree has one root"))
    # No root at all means that the parents form a cycle, which check_graph names.
    return roots[0].id if roots else tasks[0].id


def _unknown_executors(
    tasks: Sequence[Task], unread: frozenset[int], known: Callable[[], list[str]]
) -> Iterator[Problem]:
    """A task without children must name an executor, and so must one with an explicit `schemas.method`.

    A root that has lost its children is not blamed: whatever was wrong with them has been told.
    """
    with_children = {task.parent_id for task in tasks}
    for position, task in enumerate(tasks):
        if task.executor is not None or position in unread:
            continue
        has_lost_children = task.parent_id is None and len(tasks) > 1
        if names_executor(task) or not (task.id in with_children or has_lost_children):
            yield Problem(f"tasks[{position}].{executor_field(task)}", unknown_executor(task, known()))


def names_executor(task: Task) -> bool:
    """Whether the task says outright which executor it wants, so that it cannot be meant as a group."""
    return bool((task.schemas or {}).get("method") or (task.params or {}).get("executor_id"))


def executor_field(task: Task) -> str:
    """The field of the task that names its executor."""
    if (task.schemas or {}).get("method"):
        return "schemas.method"
    return "params.executor_id" if (task.params or {}).get("executor_id") else "name"


def unknown_executor(task: Task, known: Iterable[str]) -> str:
    """What to tell about a task whose executor is not registered."""
    wanted = (task.schemas or {}).get("method") or (task.params or {}).get("executor_id") or task.name
    return f"unknown executor {wanted!r}; known are: {', '.join(known) or 'none'}"
