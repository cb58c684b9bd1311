"""Retention in PostgreSQL: the statements that compact logs, drop trees and sweep what they left."""

from collections.abc import Sequence

from core.model.task import TreeHead
from core.storage.base import LogPart
from core.storage.postgres.connect import Connection
from core.storage.postgres.dialect import QUERIES
from core.storage.postgres.statements import INSERT_EVENTS, PUT_COMPACTIONS, alone, columns_of
from core.storage.queries import Bound
from core.storage.retire import Compacted, Compaction, changes_of, read_compaction, short_and_long, swept

LOG_PARTS = (
    "SELECT e.tree_id, e.seq, e.body, e.crc FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS part(tree_id, "
    "after, until) JOIN events AS e ON e.tree_id = part.tree_id AND e.seq > part.after AND e.seq <= part.until"
)
PRESENT = (
    "SELECT t.id, c.seq, c.kept, c.is_dropped, c.crc FROM unnest($1::text[], $2::bigint[]) AS wanted(id, version) "
    "JOIN trees AS t ON t.id = wanted.id AND t.version = wanted.version LEFT JOIN compactions AS c ON c.tree_id = t.id "
    "WHERE NOT t.is_live FOR UPDATE OF t"
)
DELETE_EVENTS = (
    "DELETE FROM events AS e USING unnest($1::text[], $2::bigint[]) AS gone(tree_id, seq) "
    "WHERE e.tree_id = gone.tree_id AND e.seq = gone.seq"
)
DELETE_DOCUMENTS = "DELETE FROM documents WHERE tree_id = ANY ($1::text[]) AND tree_id <> ''"
DELETE_LOGS = "DELETE FROM events WHERE tree_id = ANY ($1::text[])"
DELETE_COMPACTIONS = "DELETE FROM compactions WHERE tree_id = ANY ($1::text[])"
DELETE_TASKS = "DELETE FROM tasks WHERE tree_id = ANY ($1::text[])"
DELETE_TREES = "DELETE FROM trees WHERE id = ANY ($1::text[])"
SWEEP = (
    "WITH gone AS (DELETE FROM events WHERE tree_id = $1 AND seq <= (SELECT max(seq) FROM (SELECT seq FROM events "
    "WHERE tree_id = $1 ORDER BY seq LIMIT $2) AS first) RETURNING 1) SELECT count(*) FROM gone"
)


def log_parts(parts: Sequence[LogPart]) -> Bound:
    """The events of the parts, in no order."""
    ids, afters, untils = zip(*((part.tree_id, part.after, part.until) for part in parts), strict=True)
    return LOG_PARTS, (list(ids), list(afters), list(untils))


async def write_compactions(connection: Connection, compacted: Sequence[Compacted]) -> None:
    """Write those whose trees are as their parts say."""
    present = await _present(connection, [(each.part.tree_id, each.part.version) for each in compacted])
    changes = changes_of(compacted, present)
    if changes.gone:
        await connection.execute(DELETE_EVENTS, *columns_of(changes.gone))
    if changes.changed:
        await connection.execute(alone(INSERT_EVENTS), *columns_of(changes.changed))
    await _put_compactions(connection, changes.states)


async def drop_trees(connection: Connection, heads: Sequence[TreeHead]) -> list[str]:
    """Remove those trees that are as the heads say, and their logs where these are short."""
    present = await _present(connection, [(head.id, head.version) for head in heads])
    short, left = short_and_long(heads, present)
    await delete_trees(connection, list(present), logs_of=short)
    await _put_compactions(connection, left)
    return list(present)


async def delete_trees(connection: Connection, ids: Sequence[str], *, logs_of: Sequence[str]) -> None:
    """Remove the trees, and the logs of some of them."""
    for statement, those in (
        (DELETE_DOCUMENTS, ids),
        (DELETE_LOGS, logs_of),
        (DELETE_COMPACTIONS, logs_of),
        (DELETE_TASKS, ids),
        (DELETE_TREES, ids),
    ):
        if those:
            await connection.execute(statement, list(those))


async def sweep_logs(connection: Connection, limit: int) -> bool:
    """Remove so many events of the first dropped tree. Whether any may be left, also of others."""
    sql, parameters = QUERIES.any_dropped
    row = await connection.fetchrow(sql, *parameters)
    if row is None:
        return False
    state = read_compaction(row)
    removed = await connection.fetchval(SWEEP, state.tree_id, limit)
    if removed < limit:
        await connection.execute(DELETE_COMPACTIONS, [state.tree_id])
    else:
        await _put_compactions(connection, [swept(state, removed)])
    return True


async def _put_compactions(connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
    if rows:
        given = [(*row[:3], bool(row[3]), row[4]) for row in rows]
        await connection.execute(alone(PUT_COMPACTIONS), *columns_of(given))


async def _present(connection: Connection, wanted: Sequence[tuple[str, int]]) -> dict[str, Compaction]:
    """Those trees, at rest in that version, each with how far its log is compacted."""
    if not wanted:
        return {}
    found = await connection.fetch(PRESENT, *columns_of(wanted))
    return {row[0]: Compaction(row[0]) if row[1] is None else read_compaction(row) for row in found}
