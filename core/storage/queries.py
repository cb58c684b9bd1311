"""The reading statements: made by SQLAlchemy Core, compiled once for each shape of a query."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    bindparam,
    case,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.sql.elements import ColumnClause

from core.model.owners import tenant_of
from core.model.task import TERMINAL
from core.storage.base import DocumentQuery, EventQuery, TaskQuery, TreeQuery
from core.storage.statements import DIALECT
from core.storage.tables import documents, events, in_a_tree, is_open, tasks, trees

AFTER_SLASH = "0"  # the character after a slash: ids with a prefix that ends with one come before it
SHAPES = 512  # compiled statements kept of each kind

TASK_COLUMNS = (tasks.c.id, tasks.c.owner, tasks.c.spec, tasks.c.spec_crc, tasks.c.state, tasks.c.state_crc)
NODE_COLUMNS = (tasks.c.id, tasks.c.name, tasks.c.status, tasks.c.parent_id)  # before the large ones in the row
HEAD_COLUMNS = (trees.c.id, trees.c.owner, trees.c.body, trees.c.body_crc, trees.c.bulk, trees.c.bulk_crc)
BARE_HEAD_COLUMNS = HEAD_COLUMNS[:4]  # before the large ones in the row
EVENT_COLUMNS = (events.c.tree_id, events.c.seq, events.c.body, events.c.crc)


class Statement(Struct, frozen=True):
    """A compiled statement, the names of its parameters in their order, and those that SQLAlchemy gave a value."""

    sql: str
    names: tuple[str, ...]
    constants: dict[str, Any]

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([values[name] if name in values else self.constants[name] for name in self.names])


Bound = tuple[str, tuple[Any, ...]]  # SQL and its parameters


def compiled(statement: Select[Any]) -> Statement:
    result = statement.compile(dialect=DIALECT)
    constants = {name: bind.value for name, bind in result.binds.items() if bind.value is not None}
    return Statement(str(result), tuple(result.positiontup or ()), constants)


def _one_of(column: ColumnClause[Any], name: str, count: int) -> ColumnElement[bool]:
    # Not IN: SQLAlchemy would give it its values only when it executes the statement itself.
    return or_(false(), *[column == bindparam(f"{name}_{i}") for i in range(count)])


def _many(name: str, values: Collection[str]) -> dict[str, Any]:
    return {f"{name}_{i}": str(value) for i, value in enumerate(sorted(set(values)))}


def _owned(table: Table, columns: Sequence[ColumnElement[Any]], by: str = "owner") -> Statement:
    """One row by its id and owner (or tenant); where no row has the id, that of the first one is looked at instead.

    So the time does not tell a row of somebody else from one that does not exist (benchmarks/access.py).
    """
    named, first = table.alias("named"), table.alias("first")
    by_id: Select[Any] = select(literal_column("named.rowid")).select_from(named).where(named.c.id == bindparam("id"))
    any_row: Select[Any] = select(func.min(literal_column("first.rowid"))).select_from(first)
    row = func.coalesce(by_id.scalar_subquery(), any_row.scalar_subquery())
    looked_at = literal_column(f"{table.name}.rowid") == row
    return compiled(select(*columns).where(looked_at, table.c[by] == bindparam(by), table.c.id == bindparam("id")))


HEAD = compiled(select(*HEAD_COLUMNS).where(trees.c.id == bindparam("id")))
TASK = compiled(select(*TASK_COLUMNS).where(tasks.c.id == bindparam("id")))
BARE_HEAD = compiled(select(*BARE_HEAD_COLUMNS).where(trees.c.id == bindparam("id")))
HEAD_OF = _owned(trees, BARE_HEAD_COLUMNS)
TASK_OF = _owned(tasks, TASK_COLUMNS)
HEAD_OF_TENANT = _owned(trees, BARE_HEAD_COLUMNS, "tenant")
TASK_OF_TENANT = _owned(tasks, TASK_COLUMNS, "tenant")
TREE_TASKS = compiled(select(*TASK_COLUMNS).where(tasks.c.tree_id == bindparam("id")).order_by(tasks.c.position))
NODES = compiled(
    select(*NODE_COLUMNS).where(tasks.c.tree_id == bindparam("id")).order_by(tasks.c.position).limit(bindparam("limit"))
)
NODE = compiled(select(*NODE_COLUMNS).where(tasks.c.id == bindparam("id")))
_IDS = select(func.json_each(bindparam("ids")).table_valued("value").c.value)
HEADS = compiled(select(*HEAD_COLUMNS).where(trees.c.id.in_(_IDS)))
TREES_TASKS = compiled(
    select(tasks.c.tree_id, *TASK_COLUMNS).where(tasks.c.tree_id.in_(_IDS)).order_by(tasks.c.tree_id, tasks.c.position)
)
CANCELLED_DRAFTS = compiled(
    select(*TASK_COLUMNS).where(
        tasks.c.id.in_(_IDS), tasks.c.tree_id == literal_column("''"), tasks.c.status == literal_column("'cancelled'")
    )
)
CHILDREN = compiled(
    select(*TASK_COLUMNS).where(tasks.c.parent_id == bindparam("id")).order_by(tasks.c.position, tasks.c.id)
)
DOCUMENT = compiled(
    select(*documents.c).where(documents.c.kind == bindparam("kind"), documents.c.id == bindparam("id"))
)
# One step for each of them, by the index.
TENANTS = (
    "WITH RECURSIVE found(tenant) AS (SELECT min(tenant) FROM tasks UNION ALL "
    "SELECT (SELECT min(tenant) FROM tasks WHERE tenant > found.tenant) FROM found WHERE found.tenant IS NOT NULL) "
    "SELECT tenant FROM found WHERE tenant IS NOT NULL"
)
_IS_OF_TREE = events.c.tree_id == bindparam("tree_id")
EVENTS_AT = compiled(
    select(events.c.tree_id, events.c.seq, case((_IS_OF_TREE, events.c.body)), case((_IS_OF_TREE, events.c.crc)))
    .where(tuple_(events.c.tree_id, events.c.seq) >= tuple_(bindparam("tree_id"), bindparam("first")))
    .where(or_(events.c.seq.in_(_IDS), events.c.tree_id != bindparam("tree_id")))
    .order_by(events.c.tree_id, events.c.seq)
    .limit(bindparam("limit"))
)
LIVE_TREES = compiled(select(trees.c.id).where(trees.c.is_live == true()).order_by(trees.c.created_at, trees.c.id))


def one_head(tree_id: str, owner: str | None, tenant: str | None) -> Bound:
    """One tree's bare head: any owner's, this owner's or this tenant's."""
    return _one((BARE_HEAD, HEAD_OF, HEAD_OF_TENANT), tree_id, owner, tenant)


def one_task(task_id: str, owner: str | None, tenant: str | None) -> Bound:
    """One task: any owner's, this owner's or this tenant's."""
    return _one((TASK, TASK_OF, TASK_OF_TENANT), task_id, owner, tenant)


def _one(
    statements: tuple[Statement, Statement, Statement], row_id: str, owner: str | None, tenant: str | None
) -> Bound:
    anybodys, owners, tenants = statements
    statement = owners if owner is not None else tenants if tenant is not None else anybodys
    return statement.sql, statement.parameters({"id": row_id, "owner": owner, "tenant": tenant})


def is_of_all(query: TaskQuery) -> bool:
    """Whether the page is put together of those of each tenant: no index has all of its tasks in order."""
    return query.owner is None and query.tenant is None and not _task_shape(query)[3]


def task_list(query: TaskQuery) -> Bound:
    """The query's page of tasks."""
    statement = _task_list(_task_shape(query))
    return statement.sql, statement.parameters(_task_values(query))


def task_count(query: TaskQuery, most: int) -> Bound:
    """The number of tasks that match, whatever the page; counting ends at `most`."""
    statement = _task_list(_task_shape(query)._replace(before=False, counting=True))
    return statement.sql, statement.parameters({**_task_values(query), "most": most})


class TaskShape(NamedTuple):
    """What a query for tasks asks about, whatever the values."""

    given: frozenset[str]
    root_only: bool
    statuses: int | None  # how many
    only_open: bool
    before: bool
    counting: bool = False


def _task_shape(query: TaskQuery) -> TaskShape:
    given = frozenset(
        name
        for name in ("owner", "tenant", "user_id", "name", "context_id", "since")
        if getattr(query, name) is not None
    )
    statuses = query.statuses
    only_open = bool(statuses) and statuses is not None and not statuses & TERMINAL
    number = None if statuses is None else len(statuses)
    return TaskShape(given, query.root_only, number, only_open, query.before is not None)


def _task_values(query: TaskQuery) -> dict[str, Any]:
    created_at, task_id = query.before or (None, None)
    return {
        "owner": query.owner,
        "tenant": query.tenant if query.owner is None else tenant_of(query.owner),
        "user_id": query.user_id,
        "name": query.name,
        "context_id": query.context_id,
        "since": query.since,
        "limit": query.limit,
        "before_at": created_at,
        "before_id": task_id,
        **_many("status", query.statuses or ()),
    }


@lru_cache(SHAPES)
def _task_list(shape: TaskShape) -> Statement:
    given, root_only, statuses, only_open, before, counting = shape
    statement: Select[Any] = select(literal_column("1")).select_from(tasks) if counting else select(*TASK_COLUMNS)
    for column in (tasks.c.owner, tasks.c.user_id, tasks.c.name):
        if column.name in given:
            statement = statement.where(column == bindparam(column.name))
    if "tenant" in given or "owner" in given:  # the indexes begin with the tenant
        statement = statement.where(tasks.c.tenant == bindparam("tenant"))
    if "context_id" in given:
        statement = statement.join(trees, trees.c.id == tasks.c.tree_id)
        statement = statement.where(trees.c.context_id == bindparam("context_id"))
    if "since" in given:
        statement = statement.where(tasks.c.created_at >= bindparam("since"))
    if root_only:
        statement = statement.where(tasks.c.parent_id.is_(None))
    if statuses is not None:
        statement = statement.where(_one_of(tasks.c.status, "status", statuses))
    if only_open:
        statement = statement.where(is_open)  # says nothing new, but names the index of open tasks
    is_theirs = "owner" in given
    if counting:
        counted = _counted(statement)
        return _by_index(counted, "tasks_open") if only_open and not is_theirs else counted
    if before:
        page_end = tuple_(bindparam("before_at"), bindparam("before_id"))
        statement = statement.where(tuple_(tasks.c.created_at, tasks.c.id) < page_end)
    page = compiled(statement.order_by(tasks.c.created_at.desc(), tasks.c.id.desc()).limit(bindparam("limit")))
    if only_open:  # an operator's are sorted, which SQLite would rather avoid: all of its tasks may be many more
        return page if is_theirs else _by_index(page, "tasks_open")
    if not root_only:
        return page
    return _by_index(page, "tasks_roots")  # SQLite holds that of all tasks to be as good: trees may be large


def _by_index(statement: Statement, index: str) -> Statement:
    """The same, read with this index."""
    return replace(statement, sql=statement.sql.replace("FROM tasks", f"FROM tasks INDEXED BY {index}", 1))


def _counted(statement: Select[Any]) -> Statement:
    """How many rows the statement finds, up to `most`: what is counted is what is looked at."""
    found = statement.limit(bindparam("most")).subquery()
    return compiled(select(func.count()).select_from(found))


def tree_list(query: TreeQuery) -> Bound:
    """The query's page of heads, and one more where there are more."""
    statement = _tree_list(*_tree_shape(query), query.before is not None, False)
    return statement.sql, statement.parameters(_tree_values(query))


def tree_count(query: TreeQuery, most: int) -> Bound:
    """The number of trees that match, whatever the page; counting ends at `most`."""
    statement = _tree_list(*_tree_shape(query), False, True)
    return statement.sql, statement.parameters({**_tree_values(query), "most": most})


def _tree_shape(query: TreeQuery) -> tuple[frozenset[str], int | None]:
    names = ("owner", "origin", "context_id", "updated_since")
    given = frozenset(name for name in names if getattr(query, name) is not None)
    return given, None if query.statuses is None else len(query.statuses)


def _tree_values(query: TreeQuery) -> dict[str, Any]:
    updated_at, tree_id = query.before or (None, None)
    return {
        "owner": query.owner,
        "origin": query.origin,
        "context_id": query.context_id,
        "updated_since": query.updated_since,
        "before_at": updated_at,
        "before_id": tree_id,
        "limit": query.limit + 1,
        **_many("status", query.statuses or ()),
    }


@lru_cache(SHAPES)
def _tree_list(given: frozenset[str], statuses: int | None, before: bool, counting: bool) -> Statement:
    statement: Select[Any] = select(literal_column("1")).select_from(trees) if counting else select(*BARE_HEAD_COLUMNS)
    for column in (trees.c.owner, trees.c.origin, trees.c.context_id):
        if column.name in given:
            statement = statement.where(column == bindparam(column.name))
    if "updated_since" in given:
        statement = statement.where(trees.c.updated_at >= bindparam("updated_since"))
    if statuses is not None:
        statement = statement.where(_one_of(trees.c.status, "status", statuses))
    if before:
        page = tuple_(bindparam("before_at"), bindparam("before_id"))
        statement = statement.where(tuple_(trees.c.updated_at, trees.c.id) < page)
    if counting:
        return _counted(statement)
    return compiled(statement.order_by(trees.c.updated_at.desc(), trees.c.id.desc()).limit(bindparam("limit")))


def event_list(query: EventQuery) -> Bound:
    """The query's page of events, in order."""
    kinds = query.kinds
    values = {
        "tree_id": query.tree_id,
        "after": query.after,
        "until": query.until,
        "task_id": query.task_id,
        "limit": query.limit,
        **_many("kind", kinds or ()),
    }
    number = None if kinds is None else len(set(kinds))
    statement = _event_list(query.until is not None, query.task_id is not None, number)
    return statement.sql, statement.parameters(values)


@lru_cache(SHAPES)
def _event_list(until: bool, task: bool, kinds: int | None) -> Statement:
    statement = select(*EVENT_COLUMNS)
    statement = statement.where(events.c.tree_id == bindparam("tree_id"), events.c.seq > bindparam("after"))
    if until:
        statement = statement.where(events.c.seq <= bindparam("until"))
    if task:
        statement = statement.where(events.c.task_id == bindparam("task_id"))
    if kinds is not None:
        statement = statement.where(_one_of(events.c.kind, "kind", kinds))
    return compiled(statement.order_by(events.c.seq).limit(bindparam("limit")))


def event_places(query: EventQuery) -> Bound:
    """A tree's latest events, the latest first, without what they carry: SQLite knows sizes without reading values."""
    kinds = query.kinds
    values: dict[str, Any] = {"tree_id": query.tree_id, "until": query.until, "task_id": query.task_id}
    values |= {"limit": query.limit, **_many("kind", kinds or ())}
    statement = _event_places(query.task_id is not None, None if kinds is None else len(set(kinds)))
    return statement.sql, statement.parameters(values)


@lru_cache(SHAPES)
def _event_places(task: bool, kinds: int | None) -> Statement:
    statement = select(events.c.tree_id, events.c.seq, events.c.kind, events.c.task_id, func.length(events.c.body))
    first = tuple_(bindparam("tree_id"), bindparam("until"))
    statement = statement.where(tuple_(events.c.tree_id, events.c.seq) <= first, _matching_or_others(task, kinds))
    return compiled(statement.order_by(events.c.tree_id.desc(), events.c.seq.desc()).limit(bindparam("limit")))


def _matching_or_others(task: bool, kinds: int | None) -> ColumnElement[bool]:
    """Events of the tree that match, and any of the next tree, where the reader ends.

    SQLite would read each row whole to compare its key with the end of a range, however large the row.
    """
    matching: ColumnElement[bool] = true()
    if task:
        matching = and_(matching, events.c.task_id == bindparam("task_id"))
    if kinds is not None:
        matching = and_(matching, _one_of(events.c.kind, "kind", kinds))
    return or_(matching, events.c.tree_id != bindparam("tree_id"))


def events_at(tree_id: str, seqs: Collection[int]) -> Bound:
    """A tree's events of these numbers, in order, and then any of the next tree, where the reader ends."""
    values = {"tree_id": tree_id, "first": min(seqs, default=0), "ids": msgspec.json.encode(list(seqs)).decode()}
    return EVENTS_AT.sql, EVENTS_AT.parameters({**values, "limit": len(seqs)})


def short_events(query: EventQuery, longest: int) -> Bound:
    """The query's events and one more, in order; longer ones without what they carry, which is not read."""
    kinds = query.kinds
    values: dict[str, Any] = {"tree_id": query.tree_id, "until": query.until, "task_id": query.task_id}
    values |= {"limit": query.limit + 1, "longest": longest, **_many("kind", kinds or ())}
    statement = _short_events(query.task_id is not None, None if kinds is None else len(set(kinds)))
    return statement.sql, statement.parameters(values)


@lru_cache(SHAPES)
def _short_events(task: bool, kinds: int | None) -> Statement:
    is_short = func.length(events.c.body) <= bindparam("longest")
    statement = select(
        events.c.tree_id, events.c.seq, case((is_short, events.c.body)), case((is_short, events.c.crc))
    ).where(events.c.tree_id == bindparam("tree_id"), events.c.seq <= bindparam("until"))
    if task:
        statement = statement.where(events.c.task_id == bindparam("task_id"))
    if kinds is not None:
        statement = statement.where(_one_of(events.c.kind, "kind", kinds))
    return compiled(statement.order_by(events.c.seq).limit(bindparam("limit")))


def document_list(query: DocumentQuery) -> Bound:
    """The query's page of documents."""
    after_at, after_id = query.after or (None, None)
    values = {
        "kind": query.kind,
        "owner": query.owner,
        "tree_id": query.tree_id,
        "prefix": query.prefix,
        "behind": query.prefix and query.prefix[:-1] + AFTER_SLASH,
        "until": query.until,
        "after_at": after_at,
        "after_id": after_id,
        "limit": query.limit,
    }
    names = ("owner", "tree_id", "prefix", "until", "after")
    given = frozenset(name for name in names if getattr(query, name) is not None)
    statement = _document_list(given)
    return statement.sql, statement.parameters(values)


@lru_cache(SHAPES)
def _document_list(given: frozenset[str]) -> Statement:
    statement = select(*documents.c).where(documents.c.kind == bindparam("kind"))
    at: ColumnElement[Any] = documents.c.at
    if "prefix" in given:
        # Found by the key and sorted, as there are few; the plus keeps SQLite from reading the whole kind in order.
        statement = statement.where(documents.c.id >= bindparam("prefix"), documents.c.id < bindparam("behind"))
        at = literal_column("+documents.at")
    for column in (documents.c.owner, documents.c.tree_id):
        if column.name in given:
            statement = statement.where(column == bindparam(column.name))
    if "tree_id" in given:
        statement = statement.where(in_a_tree)  # names the index of documents that belong to a tree
    if "until" in given:
        statement = statement.where(documents.c.at <= bindparam("until"))
    if "after" in given:
        page = tuple_(bindparam("after_at"), bindparam("after_id"))
        statement = statement.where(tuple_(documents.c.at, documents.c.id) > page)
    return compiled(statement.order_by(at, documents.c.id).limit(bindparam("limit")))


def stored_bytes(owner: str) -> Bound:
    """One number: the bytes of the owner's events and of what callers wrote. SQLite knows them without the values."""
    return STORED.sql, STORED.parameters({"owner": owner})


def _stored() -> Select[Any]:
    owned = select(trees.c.id).where(trees.c.owner == bindparam("owner"))
    logs = select(func.coalesce(func.sum(func.length(events.c.body)), 0)).where(events.c.tree_id.in_(owned))
    specs = select(func.coalesce(func.sum(func.length(tasks.c.spec)), 0)).where(tasks.c.tree_id.in_(owned))
    return select(logs.scalar_subquery() + specs.scalar_subquery())


STORED = compiled(_stored())
