"""Documents: what the server keeps beside the trees."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "documents",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("tree_id", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("crc", sa.Integer, nullable=False),
    )
    op.create_index("documents_by_time", "documents", ["kind", "at", "id"])
    op.create_index("documents_by_owner", "documents", ["kind", "owner", "at", "id"])
    op.create_index("documents_by_tree", "documents", ["tree_id", "kind"], sqlite_where=sa.text("tree_id != ''"))
