"""Messages, artifacts and questions are kept in the core's own form in place of A2A's JSON (decision 0018)."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from core.storage import former_content

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PAGE = 1_000  # keys that are in memory at a time; of the rows it is one

EVENTS = f"""SELECT tree_id, seq FROM events WHERE (tree_id, seq) > (?, ?)
    AND kind IN {former_content.KINDS!r} ORDER BY tree_id, seq LIMIT {PAGE}"""
# A task without these texts has nothing that changes; one with them may have them elsewhere, and stays as it is.
TASKS = f"""SELECT id FROM tasks WHERE id > ?
    AND (instr(state, CAST('"question":' AS BLOB)) OR instr(state, CAST('"answer_messages":' AS BLOB)))
    ORDER BY id LIMIT {PAGE}"""


def upgrade() -> None:
    connection = op.get_bind()
    for key in _keys(connection, EVENTS, ("", 0)):
        row = _row(connection, "SELECT tree_id, seq, body, crc FROM events WHERE tree_id = ? AND seq = ?", key)
        *_, body, crc = former_content.event_row(row)
        if body != row[-2]:
            changed = "UPDATE events SET body = ?, crc = ? WHERE tree_id = ? AND seq = ?"
            connection.exec_driver_sql(changed, (body, crc, *key))
    for key in _keys(connection, TASKS, ("",)):
        row = _row(connection, "SELECT state, state_crc FROM tasks WHERE id = ?", key)
        state, crc = former_content.task_row(row)
        if state != row[0]:
            connection.exec_driver_sql("UPDATE tasks SET state = ?, state_crc = ? WHERE id = ?", (state, crc, *key))


def _keys(connection: sa.Connection, statement: str, first: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The keys after the first one, a page at a time, so that what is read and what is changed do not meet."""
    page: Sequence[Any] = [first]
    while page:
        page = connection.exec_driver_sql(statement, tuple(page[-1])).fetchall()
        yield from (tuple(key) for key in page)


def _row(connection: sa.Connection, statement: str, key: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(connection.exec_driver_sql(statement, key).one())
