"""What SQLite and PostgreSQL say in different words. The only place, beside their own rooms, that knows there are two.

Each room has one `Dialect`; everything that makes statements for both asks it.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from msgspec import Struct
from sqlalchemy import ColumnElement, Executable
from sqlalchemy.engine import Dialect as Compiler


class Statement(Struct, frozen=True):
    """A compiled statement, the names of its parameters in their order, and those that SQLAlchemy gave a value."""

    sql: str
    names: tuple[str, ...]
    constants: dict[str, Any]

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([values[name] if name in values else self.constants[name] for name in self.names])


class Dialect(Protocol):
    """One database's words."""

    @property
    def compiler(self) -> Compiler:
        """SQLAlchemy's, with positional parameters."""
        ...

    @property
    def reads_past_ranges(self) -> bool:
        """Whether the end of a range of keys costs the next row, however large it is, so that a reader stops itself."""
        ...

    def any_place(self, table: str) -> str:
        """SQL for the place of some row of the table."""
        ...

    @property
    def place(self) -> str:
        """The column by which a row is found without an index."""
        ...

    def is_among(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Whether the column has one of the values of that parameter, which `listed` makes."""
        ...

    def listed(self, values: Collection[Any]) -> Any:
        """The values as one parameter."""
        ...

    def by_index(self, statement: Statement, index: str) -> Statement:
        """The same statement, read with this index, where the database would choose another one."""
        ...


def compiled(statement: Executable, dialect: Dialect) -> Statement:
    """Its text for this database."""
    result: Any = statement.compile(dialect=dialect.compiler)  # type: ignore[attr-defined]
    constants = {name: bind.value for name, bind in result.binds.items() if bind.value is not None}
    return Statement(str(result), tuple(result.positiontup or ()), constants)
