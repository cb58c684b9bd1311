"""Trees, tasks and the log of events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trees",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("is_live", sa.Boolean, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("context_id", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("body_crc", sa.Integer, nullable=False),
        sa.Column("bulk", sa.LargeBinary, nullable=False),
        sa.Column("bulk_crc", sa.Integer, nullable=False),
    )
    op.create_index("trees_by_change", "trees", ["owner", "updated_at", "id"])
    op.create_index("trees_live", "trees", ["created_at", "id"], sqlite_where=sa.text("is_live = 1"))
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tree_id", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("spec", sa.LargeBinary, nullable=False),
        sa.Column("spec_crc", sa.Integer, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("state_crc", sa.Integer, nullable=False),
    )
    op.create_index("tasks_by_tree", "tasks", ["tree_id", "position"])
    op.create_index(
        "tasks_by_parent", "tasks", ["parent_id", "position"], sqlite_where=sa.text("parent_id IS NOT NULL")
    )
    op.create_index("tasks_roots", "tasks", ["owner", "created_at", "id"], sqlite_where=sa.text("parent_id IS NULL"))
    op.create_table(
        "events",
        sa.Column("tree_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("task_id", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("crc", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
