"""Folds: how far the logs of ended trees are compacted, and the way to find these trees."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "folds",
        sa.Column("tree_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("kept", sa.Integer, nullable=False),
        sa.Column("is_dropped", sa.Boolean, nullable=False),
        sa.Column("crc", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("folds_dropped", "folds", ["tree_id"], sqlite_where=sa.text("is_dropped = 1"))
    op.create_index(
        "trees_ended", "trees", ["updated_at", "id"], sqlite_where=sa.text("is_live = 0 AND status != 'pending'")
    )
