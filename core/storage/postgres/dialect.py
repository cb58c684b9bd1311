"""PostgreSQL's words (`core.storage.dialect`), and the reading statements in them."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, any_, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from core.storage.dialect import Statement
from core.storage.event_queries import EventQueries
from core.storage.queries import Queries


class PostgresDialect:
    """As `Dialect` says."""

    compiler = dialect()  # type: ignore[no-untyped-call]
    reads_past_ranges = False
    place = "ctid"

    def any_place(self, table: str) -> str:
        return f"SELECT first.ctid FROM {table} AS first LIMIT 1"

    def is_among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column == any_(bindparam(name, type_=ARRAY(column.type)))

    def listed(self, values: Collection[Any]) -> Any:
        return list(values)

    def by_index(self, statement: Statement, index: str) -> Statement:
        return statement


POSTGRES = PostgresDialect()
QUERIES = Queries(POSTGRES)
EVENT_QUERIES = EventQueries(POSTGRES)
