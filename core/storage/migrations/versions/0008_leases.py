"""Leases: the member that runs a tree; always empty in SQLite. A database of PostgreSQL begins with this revision."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.add_column("trees", sa.Column("lease", text, nullable=False, server_default=""))
