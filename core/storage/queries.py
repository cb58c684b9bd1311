"""The reading statements: made by SQLAlchemy Core, compiled once for each shape of a query and each database."""

from collections.abc import Collection, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    bindparam,
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
from core.storage.base import DocumentQuery, EndedQuery, TaskQuery, TreeQuery
from core.storage.dialect import Dialect, Statement, compiled
from core.storage.tables import compactions, documents, events, has_ended, in_a_tree, is_open, tasks, trees

AFTER_SLASH = "0"  # the character after a slash: ids with a prefix that ends with one come before it
SHAPES = 512  # compiled statements kept of each kind

TASK_COLUMNS = (tasks.c.id, tasks.c.owner, tasks.c.spec, tasks.c.spec_crc, tasks.c.state, tasks.c.state_crc)
NODE_COLUMNS = (tasks.c.id, tasks.c.name, tasks.c.status, tasks.c.parent_id)  # before the large ones in the row
HEAD_COLUMNS = (trees.c.id, trees.c.owner, trees.c.body, trees.c.body_crc, trees.c.bulk, trees.c.bulk_crc)
BARE_HEAD_COLUMNS = HEAD_COLUMNS[:4]  # before the large ones in the row
DOCUMENT_COLUMNS = tuple(documents.c[name] for name in ("kind", "id", "owner", "tree_id", "at", "body", "crc"))
EVENT_COLUMNS = (events.c.tree_id, events.c.seq, events.c.body, events.c.crc)


Bound = tuple[str, tuple[Any, ...]]  # SQL and its parameters
# One step for each of them, by the index.
TENANTS = (
    "WITH RECURSIVE found(tenant) AS (SELECT min(tenant) FROM tasks UNION ALL "
    "SELECT (SELECT min(tenant) FROM tasks WHERE tenant > found.tenant) FROM found WHERE found.tenant IS NOT NULL) "
    "SELECT tenant FROM found WHERE tenant IS NOT NULL"
)


class TaskShape(NamedTuple):
    """What a query for tasks asks about, whatever the values."""

    given: frozenset[str]
    root_only: bool
    statuses: int | None  # how many
    only_open: bool
    before: bool
    counting: bool = False


class Queries:
    """The reading statements of one database, but for those of events."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        by_id: ColumnElement[Any] = bindparam("id")
        self.head = compiled(select(*HEAD_COLUMNS).where(trees.c.id == by_id), dialect)
        self.task = compiled(select(*TASK_COLUMNS).where(tasks.c.id == by_id), dialect)
        self._bare_head = compiled(select(*BARE_HEAD_COLUMNS).where(trees.c.id == by_id), dialect)
        self._head_of, self._head_of_tenant = _owned(dialect, trees, BARE_HEAD_COLUMNS)
        self._task_of, self._task_of_tenant = _owned(dialect, tasks, TASK_COLUMNS)
        self._tree_of = compiled(select(tasks.c.tree_id).where(tasks.c.id == by_id), dialect)
        self._tree_of_owner, self._tree_of_tenant = _owned(dialect, tasks, (tasks.c.tree_id,))
        of_tree = tasks.c.tree_id == by_id
        self.tree_tasks = compiled(select(*TASK_COLUMNS).where(of_tree).order_by(tasks.c.position), dialect)
        first = select(*NODE_COLUMNS).where(of_tree).order_by(tasks.c.position)
        self.nodes = compiled(first.limit(bindparam("limit")), dialect)
        self.node = compiled(select(*NODE_COLUMNS).where(tasks.c.id == by_id), dialect)
        self.heads = compiled(select(*HEAD_COLUMNS).where(dialect.is_among(trees.c.id, "ids")), dialect)
        of_ids = dialect.is_among(trees.c.id, "ids")
        self.versions = compiled(select(trees.c.id, trees.c.version).where(of_ids), dialect)
        members = select(tasks.c.tree_id, *TASK_COLUMNS).where(dialect.is_among(tasks.c.tree_id, "ids"))
        self.trees_tasks = compiled(members.order_by(tasks.c.tree_id, tasks.c.position), dialect)
        is_cancelled = (tasks.c.tree_id == literal_column("''")) & (tasks.c.status == literal_column("'cancelled'"))
        named = dialect.is_among(tasks.c.id, "ids")
        self.cancelled_drafts = compiled(select(*TASK_COLUMNS).where(named, is_cancelled), dialect)
        children = select(*TASK_COLUMNS).where(tasks.c.parent_id == by_id)
        self.children = compiled(children.order_by(tasks.c.position, tasks.c.id), dialect)
        is_named = (documents.c.kind == bindparam("kind")) & (documents.c.id == by_id)
        self.document = compiled(select(*DOCUMENT_COLUMNS).where(is_named), dialect)
        self.live_trees = compiled(
            select(trees.c.id).where(trees.c.is_live == true()).order_by(trees.c.created_at, trees.c.id), dialect
        )
        self._stored = compiled(_stored(), dialect)
        self._compaction = compiled(select(*compactions.c).where(compactions.c.tree_id == by_id), dialect)
        dropped = compiled(select(*compactions.c).where(compactions.c.is_dropped == true()).limit(1), dialect)
        self.any_dropped: Bound = dropped.sql, dropped.parameters({})  # a row where there is something to be swept
        self._ended = compiled(_ended(more=False), dialect), compiled(_ended(more=True), dialect)
        self._task_list = lru_cache(SHAPES)(partial(_make_task_list, dialect))
        self._tree_list = lru_cache(SHAPES)(partial(_make_tree_list, dialect))
        self._document_list = lru_cache(SHAPES)(partial(_make_document_list, dialect))

    def one_head(self, tree_id: str, owner: str | None, tenant: str | None) -> Bound:
        """One tree's bare head: any owner's, this owner's or this tenant's."""
        return _one((self._bare_head, self._head_of, self._head_of_tenant), tree_id, owner, tenant)

    def one_task(self, task_id: str, owner: str | None, tenant: str | None) -> Bound:
        """One task: any owner's, this owner's or this tenant's."""
        return _one((self.task, self._task_of, self._task_of_tenant), task_id, owner, tenant)

    def one_tree_of(self, task_id: str, owner: str | None, tenant: str | None) -> Bound:
        """The tree of one task: any owner's, this owner's or this tenant's."""
        return _one((self._tree_of, self._tree_of_owner, self._tree_of_tenant), task_id, owner, tenant)

    def task_list(self, query: TaskQuery) -> Bound:
        """The query's page of tasks."""
        statement = self._task_list(_task_shape(query))
        return statement.sql, statement.parameters(_task_values(query))

    def task_count(self, query: TaskQuery, most: int) -> Bound:
        """The number of tasks that match, whatever the page; counting ends at `most`."""
        statement = self._task_list(_task_shape(query)._replace(before=False, counting=True))
        return statement.sql, statement.parameters({**_task_values(query), "most": most})

    def tree_list(self, query: TreeQuery) -> Bound:
        """The query's page of heads, and one more where there are more."""
        statement = self._tree_list(*_tree_shape(query), query.before is not None, False)
        return statement.sql, statement.parameters(_tree_values(query))

    def tree_count(self, query: TreeQuery, most: int) -> Bound:
        """The number of trees that match, whatever the page; counting ends at `most`."""
        statement = self._tree_list(*_tree_shape(query), False, True)
        return statement.sql, statement.parameters({**_tree_values(query), "most": most})

    def document_list(self, query: DocumentQuery) -> Bound:
        """The query's page of documents."""
        after_at, after_id = query.after or (None, None)
        values = {
            "kind": query.kind,
            "owner": query.owner,
            "tree_id": query.tree_id,
            "tree_ids": None if query.tree_ids is None else self._dialect.listed(query.tree_ids),
            "ids": None if query.ids is None else self._dialect.listed(query.ids),
            "prefix": query.prefix,
            "behind": query.prefix and query.prefix[:-1] + AFTER_SLASH,
            "until": query.until,
            "after_at": after_at,
            "after_id": after_id,
            "limit": query.limit,
        }
        names = ("owner", "tree_id", "tree_ids", "ids", "prefix", "until", "after")
        given = frozenset(name for name in names if getattr(query, name) is not None)
        statement = self._document_list(given)
        return statement.sql, statement.parameters(values)

    def stored_bytes(self, owner: str) -> Bound:
        """One number: the bytes of the owner's events and of what callers wrote."""
        return self._stored.sql, self._stored.parameters({"owner": owner})

    def compaction_of(self, tree_id: str) -> Bound:
        """The tree's row in `compactions`."""
        return self._compaction.sql, self._compaction.parameters({"id": tree_id})

    def ended_list(self, query: EndedQuery) -> Bound:
        """The query's page, for `retire.read_ended`."""
        after_at, after_id = query.after or (None, None)
        values = {"until": query.until, "after_at": after_at, "after_id": after_id, "limit": query.limit}
        statement = self._ended[query.after is not None]
        return statement.sql, statement.parameters(values)


def _owned(dialect: Dialect, table: Table, columns: Sequence[ColumnElement[Any]]) -> tuple[Statement, Statement]:
    """One row by its id and owner, or tenant; where no row has the id, that of some row is looked at instead.

    So the time does not tell a row of somebody else from one that does not exist (benchmarks/access.py).
    """
    named, place = table.alias("named"), dialect.place
    by_id: Select[Any] = select(literal_column(f"named.{place}")).select_from(named)
    by_id = by_id.where(named.c.id == bindparam("id"))
    row = func.coalesce(by_id.scalar_subquery(), literal_column(f"({dialect.any_place(table.name)})"))
    found = select(*columns).where(literal_column(f"{table.name}.{place}") == row)
    owner, tenant = (
        compiled(found.where(table.c[by] == bindparam(by), table.c.id == bindparam("id")), dialect)
        for by in ("owner", "tenant")
    )
    return owner, tenant


def _make_task_list(dialect: Dialect, shape: TaskShape) -> Statement:
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
        statement = statement.where(one_of(tasks.c.status, "status", statuses))
    if only_open:
        statement = statement.where(is_open)  # says nothing new, but names the index of open tasks
    is_theirs = "owner" in given
    if counting:
        counted = _counted(dialect, statement)
        return dialect.by_index(counted, "tasks_open") if only_open and not is_theirs else counted
    if before:
        page_end = tuple_(bindparam("before_at"), bindparam("before_id"))
        statement = statement.where(tuple_(tasks.c.created_at, tasks.c.id) < page_end)
    page = compiled(statement.order_by(tasks.c.created_at.desc(), tasks.c.id.desc()).limit(bindparam("limit")), dialect)
    if only_open:  # an operator's are sorted, which SQLite would rather avoid: all of its tasks may be many more
        return page if is_theirs else dialect.by_index(page, "tasks_open")
    if not root_only:
        return page
    # SQLite holds that of all tasks to be as good, but trees may be large.
    return dialect.by_index(page, "tasks_roots")


def _counted(dialect: Dialect, statement: Select[Any]) -> Statement:
    """How many rows the statement finds, up to `most`: what is counted is what is looked at."""
    found = statement.limit(bindparam("most")).subquery()
    return compiled(select(func.count()).select_from(found), dialect)


def _make_tree_list(
    dialect: Dialect, given: frozenset[str], statuses: int | None, before: bool, counting: bool
) -> Statement:
    statement: Select[Any] = select(literal_column("1")).select_from(trees) if counting else select(*BARE_HEAD_COLUMNS)
    for column in (trees.c.owner, trees.c.origin, trees.c.context_id):
        if column.name in given:
            statement = statement.where(column == bindparam(column.name))
    if "updated_since" in given:
        statement = statement.where(trees.c.updated_at >= bindparam("updated_since"))
    if statuses is not None:
        statement = statement.where(one_of(trees.c.status, "status", statuses))
    if before:
        page = tuple_(bindparam("before_at"), bindparam("before_id"))
        statement = statement.where(tuple_(trees.c.updated_at, trees.c.id) < page)
    if counting:
        return _counted(dialect, statement)
    return compiled(statement.order_by(trees.c.updated_at.desc(), trees.c.id.desc()).limit(bindparam("limit")), dialect)


def _make_document_list(dialect: Dialect, given: frozenset[str]) -> Statement:
    statement = select(*DOCUMENT_COLUMNS).where(documents.c.kind == bindparam("kind"))
    at: ColumnElement[Any] = documents.c.at
    if "prefix" in given:
        # Found by the key and sorted, as there are few; the plus keeps SQLite from reading the whole kind in order.
        statement = statement.where(documents.c.id >= bindparam("prefix"), documents.c.id < bindparam("behind"))
        at = literal_column("+documents.at")
    for column in (documents.c.owner, documents.c.tree_id):
        if column.name in given:
            statement = statement.where(column == bindparam(column.name))
    for column, names in ((documents.c.tree_id, "tree_ids"), (documents.c.id, "ids")):
        if names in given:
            statement = statement.where(dialect.is_among(column, names))
            at = literal_column("+documents.at")  # sorted, for the same reason
    if {"tree_id", "tree_ids"} & given:
        statement = statement.where(in_a_tree)  # names the index of documents that belong to a tree
    if "until" in given:
        statement = statement.where(documents.c.at <= bindparam("until"))
    if "after" in given:
        page = tuple_(bindparam("after_at"), bindparam("after_id"))
        statement = statement.where(tuple_(documents.c.at, documents.c.id) > page)
    return compiled(statement.order_by(at, documents.c.id).limit(bindparam("limit")), dialect)


def _one(
    statements: tuple[Statement, Statement, Statement], row_id: str, owner: str | None, tenant: str | None
) -> Bound:
    anybodys, owners, tenants = statements
    statement = owners if owner is not None else tenants if tenant is not None else anybodys
    return statement.sql, statement.parameters({"id": row_id, "owner": owner, "tenant": tenant})


def one_of(column: ColumnClause[Any], name: str, count: int) -> ColumnElement[bool]:
    """Whether the column has one of the values that `many` gives."""
    # Not IN: SQLAlchemy would give it its values only when it executes the statement itself.
    return or_(false(), *[column == bindparam(f"{name}_{i}") for i in range(count)])


def many(name: str, values: Collection[str]) -> dict[str, Any]:
    """The parameters of `one_of`."""
    return {f"{name}_{i}": str(value) for i, value in enumerate(sorted(set(values)))}


def is_of_all(query: TaskQuery) -> bool:
    """Whether the page is put together of those of each tenant: no index has all of its tasks in order."""
    return query.owner is None and query.tenant is None and not _task_shape(query).only_open


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
        **many("status", query.statuses or ()),
    }


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
        **many("status", query.statuses or ()),
    }


def _stored() -> Select[Any]:
    owned = select(trees.c.id).where(trees.c.owner == bindparam("owner"))
    logs = select(func.coalesce(func.sum(func.length(events.c.body)), 0)).where(events.c.tree_id.in_(owned))
    specs = select(func.coalesce(func.sum(func.length(tasks.c.spec)), 0)).where(tasks.c.tree_id.in_(owned))
    return select(logs.scalar_subquery() + specs.scalar_subquery())


def _ended(*, more: bool) -> Select[Any]:
    page = select(*BARE_HEAD_COLUMNS, *compactions.c).outerjoin_from(
        trees, compactions, compactions.c.tree_id == trees.c.id
    )
    page = page.where(has_ended, trees.c.updated_at <= bindparam("until"))
    if more:
        after = tuple_(bindparam("after_at"), bindparam("after_id"))
        page = page.where(tuple_(trees.c.updated_at, trees.c.id) > after)
    return page.order_by(trees.c.updated_at, trees.c.id).limit(bindparam("limit"))
