"""Tests of core.cluster.postgres.line: a connection that listens, is looked after, and comes back."""

import asyncio
import os
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from core.cluster.postgres.line import LOOK, Line
from core.model.errors import ConfigurationError, StorageUnavailable
from core.storage.postgres.connect import Connection, Place
from tests.core.cluster.postgres.conftest import end_buses, until
from tests.postgres_cluster import Cluster


class Ends:
    """What a line tells."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.returned = 0

    def come_back(self) -> None:
        self.returned += 1

    def line(self, place: Place, *, look: float = LOOK, echo: float = 10.0) -> Line:
        return Line(place, self.heard.append, self.come_back, look=look, echo=echo)


class Pooled(Place):
    """Behind a pooler in transaction mode the session that listened is another client's by the time of the NOTIFY.

    So that nothing arrives here, the second session is one of another database.
    """

    async def connect(self, settings: Mapping[str, str] = MappingProxyType({})) -> Connection:
        connection = await super().connect(settings)
        self.url = self.url.rpartition("/")[0] + "/postgres"
        return connection


@pytest.mark.asyncio
async def test_a_pooler_that_loses_notifications_is_found_at_the_start(postgres_url: str) -> None:
    ends = Ends()
    line = ends.line(Pooled(postgres_url), echo=0.2)
    with pytest.raises(ConfigurationError, match="PgBouncer pool_mode = session") as refusal:
        await line.open()
    assert "\n" not in str(refusal.value) and not line.is_up and ends.heard == []


@pytest.mark.asyncio
async def test_a_database_that_is_not_there_is_told_in_one_line(postgres: Cluster) -> None:
    for url, error in (
        (postgres.url("nowhere"), ConfigurationError),
        ("postgresql://x@127.0.0.1:1/x", StorageUnavailable),
    ):
        with pytest.raises(error):
            await Ends().line(Place(url)).open()


@pytest.mark.asyncio
async def test_a_dead_connection_is_found_by_a_look(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is gone says nothing: here nothing that it says arrives."""
    ends = Ends()
    line = ends.line(Place(postgres_url), look=0.02)
    await line.open()
    found = line._connection
    assert found is not None
    monkeypatch.setattr("core.cluster.postgres.line.ANSWER", 0.2)
    found._transport.pause_reading()
    await until(lambda: ends.returned == 1)
    assert line.is_up and line._connection is not found and found.is_closed()
    await line.notify("hello")
    await until(lambda: "hello" in ends.heard)
    await line.close()


@pytest.mark.asyncio
async def test_it_is_tried_again_until_the_database_is_back(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    place = Place(postgres_url)
    line = ends.line(place)
    await line.open()
    connect, refused = place.connect, [OSError("away"), TimeoutError(), OSError("away")]

    async def connect_later(settings: Mapping[str, str]) -> Connection:
        if refused:
            raise refused.pop()
        return await connect(settings)

    monkeypatch.setattr(place, "connect", connect_later)
    assert line._connection is not None
    line._connection.terminate()
    await until(lambda: ends.returned == 1)
    assert refused == [] and line.is_up
    await line.close()


@pytest.mark.asyncio
async def test_a_closed_line_says_nothing_and_does_not_come_back(
    postgres: Cluster, postgres_url: str, postgres_database: str
) -> None:
    ends = Ends()
    line = ends.line(Place(postgres_url))
    await line.open()
    assert line._connection is not None
    line._connection.terminate()
    await line.close()  # while it is about to come back
    await line.notify("to nobody")
    await end_buses(postgres, postgres_database)
    assert ends.heard == ["probe"] and ends.returned == 0 and not line.is_up


@pytest.mark.asyncio
async def test_a_forked_child_leaves_the_connection_alone(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = Ends()
    line = ends.line(Place(postgres_url))
    await line.open()
    connection = line._connection
    assert connection is not None
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        line.abandon()
    assert await asyncio.wait_for(connection.fetchval("SELECT 1"), 10) == 1
    connection.terminate()
