"""The schema's way into PostgreSQL (`core.storage.postgres.migrate`)."""

from collections.abc import Iterator

import pytest

from core.model.errors import StorageError
from core.storage.postgres.storage import PostgresStorage
from core.storage.tables import REVISIONS
from tests.core.storage.samples import created
from tests.postgres_cluster import Cluster

SCHEMA = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name "
    "FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
)
INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"


@pytest.fixture
def database(postgres: Cluster, postgres_template: str) -> Iterator[str]:
    name = postgres.database(postgres_template)
    yield name
    postgres.drop(name)


async def opened(postgres: Cluster, database: str) -> None:
    storage = PostgresStorage(postgres.url(database))
    await storage.open()
    await storage.close()


@pytest.mark.asyncio
async def test_a_database_of_an_earlier_schema_is_migrated_and_keeps_its_rows(postgres: Cluster, database: str) -> None:
    now = postgres.sql(SCHEMA, database), postgres.sql(INDEXES, database)
    storage = PostgresStorage(postgres.url(database))
    await storage.open()
    append = created("t", 2)
    await storage.append(append)
    await storage.close()
    postgres.sql("ALTER TABLE trees DROP COLUMN lease; UPDATE alembic_version SET version_num = '0007'", database)
    assert postgres.sql(SCHEMA, database) != now[0]

    await storage.open()

    assert await storage.load("t") == (append.head, list(append.tasks))
    await storage.close()
    postgres.sql("CREATE INDEX trees_leased ON trees (lease, id) WHERE lease <> ''", database)  # went with its column
    assert (postgres.sql(SCHEMA, database), postgres.sql(INDEXES, database)) == now
    assert postgres.sql("SELECT version_num FROM alembic_version", database) == REVISIONS[-1]


@pytest.mark.asyncio
async def test_a_schema_of_a_newer_program_is_refused_and_left_alone(postgres: Cluster, database: str) -> None:
    postgres.sql("UPDATE alembic_version SET version_num = '9999'", database)
    with pytest.raises(StorageError, match=r"has schema 9999, unknown to this program \(latest: \d+\)"):
        await opened(postgres, database)
    assert postgres.sql("SELECT version_num FROM alembic_version", database) == "9999"


def test_heads_and_tasks_have_room_for_their_next_version(postgres: Cluster, database: str) -> None:
    """An update that finds room beside its row touches no index."""
    room = "SELECT relname FROM pg_class WHERE 'fillfactor=50' = ANY (reloptions) ORDER BY 1"
    assert postgres.sql(room, database).split() == ["tasks", "trees"]
