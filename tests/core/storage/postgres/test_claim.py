"""Who holds a database, and how it writes (`core.storage.postgres.claim`)."""

import asyncio

import pytest

from core.storage.postgres.storage import PostgresStorage
from tests.postgres_cluster import Cluster


@pytest.mark.asyncio
async def test_the_database_has_one_holder_in_its_members(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str
) -> None:
    assert postgres.sql("SELECT count(*) FROM members", postgres_database) == "1"
    await storage.close()
    assert postgres.sql("SELECT count(*) FROM members", postgres_database) == "0"


@pytest.mark.parametrize(("asked", "used"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
@pytest.mark.asyncio
async def test_what_is_acknowledged_is_synced_whatever_the_server_is_told(
    postgres: Cluster, postgres_template: str, asked: str, used: str
) -> None:
    name = await asyncio.to_thread(postgres.database, postgres_template)
    await asyncio.to_thread(postgres.sql, f"ALTER DATABASE {name} SET synchronous_commit = {asked}")
    storage = PostgresStorage(postgres.url(name))
    await storage.open()
    assert storage._holder is not None
    assert await storage._holder.run(lambda held: held.fetchval("SHOW synchronous_commit")) == used
    await storage.close()
    await asyncio.to_thread(postgres.drop, name)
