"""Tenants: that of each row, by which an operator's lists are read. Dependencies say `on` in place of `required`."""

from typing import Any
from zlib import crc32

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# An owner is JSON of (tenant, principal); any other one has no tenant.
TENANT = """CASE WHEN json_valid(owner) AND json_type(owner) = 'array' AND json_array_length(owner) = 2
    AND json_type(owner, '$[0]') = 'text' AND json_type(owner, '$[1]') = 'text'
    THEN json_extract(owner, '$[0]') ELSE '' END"""


def upgrade() -> None:
    for table in ("trees", "tasks"):
        op.add_column(table, sa.Column("tenant", sa.Text, nullable=False, server_default=""))
        op.execute(f"UPDATE {table} SET tenant = {TENANT}")
    for index in ("tasks_by_owner", "tasks_roots", "tasks_open"):
        op.drop_index(index, "tasks")
    op.create_index("tasks_by_tenant", "tasks", ["tenant", "created_at", "id", "owner"])
    is_root = sa.text("parent_id IS NULL")
    op.create_index("tasks_roots", "tasks", ["tenant", "created_at", "id", "owner"], sqlite_where=is_root)
    op.create_index(
        "tasks_open",
        "tasks",
        ["tenant", "owner", "status", "created_at", "id"],
        sqlite_where=sa.text("status IN ('auth_required', 'in_progress', 'input_required', 'pending')"),
    )
    connection = op.get_bind()
    optional = "SELECT id, spec FROM tasks WHERE instr(spec, CAST('\"required\":false' AS BLOB))"
    for task_id, spec in connection.exec_driver_sql(optional).fetchall():
        changed = _with_on(spec)
        connection.exec_driver_sql(
            "UPDATE tasks SET spec = ?, spec_crc = ? WHERE id = ?", (changed, crc32(changed), task_id)
        )


def _with_on(spec: bytes) -> bytes:
    """The spec, whose optional dependencies run on any end; all else in it stays as it is, byte by byte."""
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(spec, type=dict[str, msgspec.Raw])
    if "dependencies" in fields:
        given: list[dict[str, Any]] = msgspec.json.decode(fields["dependencies"])
        dependencies = [{"id": each["id"]} | ({} if each.get("required", True) else {"on": "any"}) for each in given]
        fields["dependencies"] = msgspec.Raw(msgspec.json.encode(dependencies))
    return msgspec.json.encode(fields)
