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

EVENT_KEYS = f"""SELECT tree_id, seq FROM events WHERE (tree_id, seq) > (?, ?)
    AND kind IN {former_content.KINDS!r} ORDER BY tree_id, seq LIMIT {PAGE}"""
EVENT = "SELECT tree_id, seq, body, crc FROM events WHERE tree_id = ? AND seq = ?"
# A task whose state has none of these texts stays as it is; one that has them may have them elsewhere.
ASKED, ANSWERED, TOLD = (
    f"instr(state, CAST('\"{name}\":' AS BLOB))" for name in ("question", "answer_messages", "told")
)
TASK_KEYS = f"SELECT id FROM tasks WHERE id > ? AND ({ASKED} OR {ANSWERED} OR {TOLD}) ORDER BY id LIMIT {PAGE}"
TASK = f"SELECT tree_id, {TOLD}, state, state_crc FROM tasks WHERE id = ?"
OUTPUT = """SELECT body, crc FROM events WHERE tree_id = ? AND task_id = ?
    AND kind IN ('artifact_added', 'message_sent') ORDER BY seq"""


def upgrade() -> None:
    connection = op.get_bind()
    # Tasks first: what they told is known by their events as these were.
    for key in _keys(connection, TASK_KEYS, ("",)):
        tree_id, has_told, *row = _row(connection, TASK, key)
        state, crc = former_content.task_row(row, _marks(connection, tree_id, *key) if has_told else None)
        if state != row[0]:
            connection.exec_driver_sql("UPDATE tasks SET state = ?, state_crc = ? WHERE id = ?", (state, crc, *key))
    for key in _keys(connection, EVENT_KEYS, ("", 0)):
        before = _row(connection, EVENT, key)
        *_, body, crc = former_content.event_row(before)
        if body != before[-2]:
            changed = "UPDATE events SET body = ?, crc = ? WHERE tree_id = ? AND seq = ?"
            connection.exec_driver_sql(changed, (body, crc, *key))


def _marks(connection: sa.Connection, tree_id: str, task_id: str) -> former_content.Marks:
    """Those of what the task's executor said."""
    marks = former_content.Marks()
    for body, crc in connection.exec_driver_sql(OUTPUT, (tree_id, task_id)):
        marks.add(body, crc)
    return marks


def _keys(connection: sa.Connection, statement: str, first: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """The keys after the first one, a page at a time, so that what is read and what is changed do not meet."""
    page: Sequence[Any] = [first]
    while page:
        page = connection.exec_driver_sql(statement, tuple(page[-1])).fetchall()
        yield from (tuple(key) for key in page)


def _row(connection: sa.Connection, statement: str, key: tuple[Any, ...]) -> Sequence[Any]:
    return connection.exec_driver_sql(statement, key).one()
