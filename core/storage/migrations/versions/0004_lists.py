"""Indexes within which lists are read and counted, so that none looks at more rows than it tells."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("trees_by_change", "trees")
    op.create_index("trees_by_change", "trees", ["owner", "updated_at", "id", "origin", "status"])
    op.create_index(
        "trees_by_context",
        "trees",
        ["owner", "context_id", "updated_at", "id", "origin", "status"],
        sqlite_where=sa.text("context_id IS NOT NULL"),
    )
    op.create_index("tasks_by_owner", "tasks", ["owner", "created_at", "id"])
    op.create_index(
        "tasks_open",
        "tasks",
        ["owner", "status", "created_at", "id"],
        sqlite_where=sa.text("status IN ('auth_required', 'in_progress', 'input_required', 'pending')"),
    )
    op.drop_index("documents_by_tree", "documents")
    op.create_index(
        "documents_by_tree", "documents", ["tree_id", "kind", "at", "id"], sqlite_where=sa.text("tree_id != ''")
    )
