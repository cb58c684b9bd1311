"""The field's word: the table `folds` is called `compactions`, and its index as well."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("folds_dropped", "folds")
    op.rename_table("folds", "compactions")
    op.create_index("compactions_dropped", "compactions", ["tree_id"], sqlite_where=sa.text("is_dropped = 1"))
