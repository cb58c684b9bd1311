"""SQLite's words (`core.storage.dialect`), and the reading statements in them."""

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, bindparam, func, select
from sqlalchemy.dialects import sqlite

from core.storage.dialect import Statement
from core.storage.event_queries import EventQueries
from core.storage.queries import Queries

DIALECT = sqlite.dialect(paramstyle="qmark")

_encode = msgspec.json.Encoder().encode


class SqliteDialect:
    """As `Dialect` says."""

    compiler = DIALECT
    # It would read each row whole to compare its key with the end of a range.
    reads_past_ranges = True
    place = "rowid"

    def any_place(self, table: str) -> str:
        return f"SELECT min(first.rowid) FROM {table} AS first"

    def is_among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column.in_(select(func.json_each(bindparam(name)).table_valued("value").c.value))

    def listed(self, values: Collection[Any]) -> Any:
        return _encode(list(values)).decode()

    def by_index(self, statement: Statement, index: str) -> Statement:
        return replace(statement, sql=statement.sql.replace("FROM tasks", f"FROM tasks INDEXED BY {index}", 1))


SQLITE = SqliteDialect()
QUERIES = Queries(SQLITE)
EVENT_QUERIES = EventQueries(SQLITE)
