"""Brings a database of PostgreSQL to the present schema. Where it has it, nothing is written or loaded.

An empty one gets the tables as they are described now; one of an earlier revision goes through alembic's, as SQLite's.
The first databases of PostgreSQL had revision 0008: those before it need not work there.
"""

import importlib

from sqlalchemy.schema import CreateIndex, CreateTable

from core.model.errors import StorageError
from core.storage.postgres import engine
from core.storage.postgres.connect import Connection, Place
from core.storage.postgres.dialect import POSTGRES
from core.storage.tables import REVISIONS, metadata

# What PostgreSQL alone has. `a2a_expect` ends every append: it refuses the statement when a row was not as expected.
BESIDE = (
    "CREATE TABLE members (lease TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, since FLOAT NOT NULL)",
    "CREATE INDEX trees_leased ON trees (lease, id) WHERE lease <> ''",
    # Room beside each row for its next version, so that an update touches no index.
    "ALTER TABLE trees SET (fillfactor = 50)",
    "ALTER TABLE tasks SET (fillfactor = 50)",
    """CREATE FUNCTION a2a_expect(got BIGINT, wanted BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$
BEGIN
    IF got <> wanted THEN
        RAISE EXCEPTION 'a2a: % rows of %', got, wanted USING ERRCODE = 'A2A01';
    END IF;
    RETURN got;
END $$""",
    # As alembic makes it.
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))",
)


async def migrate(place: Place, connection: Connection) -> None:
    """Nobody else migrates meanwhile. Raises StorageError, with the database unchanged."""
    revision = await stored_revision(place, connection)
    await _migrate(place, connection, revision)
    await engine.install(connection)


async def _migrate(place: Place, connection: Connection, revision: str | None) -> None:
    if revision == REVISIONS[-1]:
        return
    if revision is not None and revision not in REVISIONS:
        raise StorageError(
            f"The {place.text} has schema {revision}, unknown to this program (latest: {REVISIONS[-1]}): it was "
            "written by a newer version of this program, or by another one"
        )
    if revision is None:
        async with connection.transaction():
            for statement in _schema():
                await connection.execute(statement)
            await connection.execute("INSERT INTO alembic_version VALUES ($1)", REVISIONS[-1])
        return
    # Alembic costs as much time as half of all other imports of a start, and is needed for an old database only.
    await importlib.import_module("core.storage.migrations.run").upgrade_over(place.connect)


async def stored_revision(place: Place, connection: Connection) -> str | None:
    """The schema's revision; None where there is none of our tables. Raises StorageError."""
    names = [*(table.name for table in metadata.sorted_tables), "members"]
    there = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(quote_ident(name)) IS NOT NULL",
        [*names, "alembic_version"],
    )
    found = {row["name"] for row in there}
    if not found:
        return None
    if "alembic_version" not in found:
        told = ", ".join(sorted(found))
        raise StorageError(
            f"The {place.text} has tables of another program ({told}): give the server a database of its own"
        )
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return revision


def _schema() -> list[str]:
    made = []
    for table in metadata.sorted_tables:
        made.append(str(CreateTable(table).compile(dialect=POSTGRES.compiler)))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            index.dialect_options["postgresql"]["where"] = index.info.get("only")
            made.append(str(CreateIndex(index).compile(dialect=POSTGRES.compiler)))
    return [*made, *BESIDE]
