"""The tables of the database, as SQLAlchemy Core describes them. The migrations make them; a test compares the two.

A row is served from its blobs only, each beside its CRC-32. The other columns are there to find rows. A task and a tree
have two blobs each, so that what grows without bound and seldom changes is not written again with every small step.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    false,
    literal_column,
    true,
    types,
)

from core.model.task import TERMINAL, TaskStatus

# Of the schema, oldest first; the last one is what this program needs.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")

metadata = MetaData()

# What PostgreSQL stores of the same: numbers beyond 31 bits (CRC-32), and texts in the order of their bytes, as SQLite.
Text = types.Text().with_variant(types.Text(collation="C"), "postgresql")
Wide = Integer().with_variant(BigInteger(), "postgresql")


def only(condition: ColumnElement[bool]) -> dict[str, Any]:
    """For an index over those rows alone. PostgreSQL finds it in `info`: its own option would load its dialect."""
    return {"sqlite_where": condition, "info": {"only": condition}}


trees = Table(
    "trees",
    metadata,
    Column("id", Text, primary_key=True),  # its root's id
    Column("owner", Text, nullable=False),
    Column("version", Wide, nullable=False),  # the compare-and-set of every append
    Column("status", Text, nullable=False),
    Column("run", Integer, nullable=False),
    Column("is_live", Boolean, nullable=False),
    Column("origin", Text, nullable=False),
    Column("context_id", Text),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),  # the head without the next column's fields
    Column("body_crc", Wide, nullable=False),
    Column("bulk", LargeBinary, nullable=False),  # its scope and metadata
    Column("bulk_crc", Wide, nullable=False),
    Column("tenant", Text, nullable=False, server_default=""),  # its owner's
    Column("lease", Text, nullable=False, server_default=""),  # the member that runs it; empty: none
)
# Lists filter and count within an index, so its last columns are those that they ask for beside the order.
Index("trees_by_change", trees.c.owner, trees.c.updated_at, trees.c.id, trees.c.origin, trees.c.status)
Index(
    "trees_by_context",
    trees.c.owner,
    trees.c.context_id,
    trees.c.updated_at,
    trees.c.id,
    trees.c.origin,
    trees.c.status,
    **only(trees.c.context_id.is_not(None)),
)
Index("trees_live", trees.c.created_at, trees.c.id, **only(trees.c.is_live == true()))
# A tree at rest has ended, or something in it has never run.
has_ended = (trees.c.is_live == false()) & (trees.c.status != literal_column("'pending'"))
Index("trees_ended", trees.c.updated_at, trees.c.id, **only(has_ended))

tasks = Table(
    "tasks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tree_id", Text, nullable=False),  # empty while the task belongs to no tree
    Column("parent_id", Text),
    Column("position", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("user_id", Text),
    Column("status", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("spec", LargeBinary, nullable=False),  # what the caller wrote
    Column("spec_crc", Wide, nullable=False),
    Column("state", LargeBinary, nullable=False),  # what happened
    Column("state_crc", Wide, nullable=False),
    Column("tenant", Text, nullable=False, server_default=""),  # its owner's
)
Index("tasks_by_tree", tasks.c.tree_id, tasks.c.position)
Index("tasks_by_parent", tasks.c.parent_id, tasks.c.position, **only(tasks.c.parent_id.is_not(None)))
# An operator lists its tenant's tasks. Without authentication, all are of one owner.
Index("tasks_by_tenant", tasks.c.tenant, tasks.c.created_at, tasks.c.id, tasks.c.owner)
Index(
    "tasks_roots",
    tasks.c.tenant,
    tasks.c.created_at,
    tasks.c.id,
    tasks.c.owner,
    **only(tasks.c.parent_id.is_(None)),
)
# In words of its own: SQLite takes the index only for a statement that says the same.
is_open = tasks.c.status.in_([literal_column(f"'{status}'") for status in sorted(set(TaskStatus) - TERMINAL)])
Index(
    "tasks_open",
    tasks.c.tenant,
    tasks.c.owner,
    tasks.c.status,
    tasks.c.created_at,
    tasks.c.id,
    **only(is_open),
)

events = Table(
    "events",
    metadata,
    Column("tree_id", Text, primary_key=True),
    Column("seq", Wide, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("crc", Wide, nullable=False),
    # The log is read in the order of its key only, so the rows live in the key's own tree (SQLite).
    sqlite_with_rowid=False,
)

documents = Table(
    "documents",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("tree_id", Text, nullable=False),  # empty for none
    Column("at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("crc", Wide, nullable=False),
)
Index("documents_by_time", documents.c.kind, documents.c.at, documents.c.id)
Index("documents_by_owner", documents.c.kind, documents.c.owner, documents.c.at, documents.c.id)
in_a_tree = documents.c.tree_id != literal_column("''")
Index(
    "documents_by_tree",
    documents.c.tree_id,
    documents.c.kind,
    documents.c.at,
    documents.c.id,
    **only(in_a_tree),
)

compactions = Table(
    "compactions",
    metadata,
    Column("tree_id", Text, primary_key=True),
    Column("seq", Wide, nullable=False),  # the log is compacted up to this event
    Column("kept", Wide, nullable=False),  # how many events up to there remain
    Column("is_dropped", Boolean, nullable=False),  # the tree is gone, and these are all the events that are left
    Column("crc", Wide, nullable=False),
    sqlite_with_rowid=False,
)
Index("compactions_dropped", compactions.c.tree_id, **only(compactions.c.is_dropped == true()))
