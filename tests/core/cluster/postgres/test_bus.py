"""Tests of core.cluster.postgres.bus: hints from one member to the others."""

import asyncio

import pytest

from core.cluster.bus import DELETED, INTEREST, NEWLY, VERSION, Bus
from core.cluster.postgres.bus import PostgresBus
from tests.core.cluster.postgres.conftest import PATIENCE, end_buses, until
from tests.postgres_cluster import Cluster

Buses = tuple[PostgresBus, PostgresBus]


class Ear:
    """What a bus hears of some kinds."""

    def __init__(self, bus: Bus, *kinds: str) -> None:
        self.heard: list[tuple[object, ...]] = []
        for kind in kinds:
            bus.on(kind, lambda key, value, kind=kind: self.heard.append((kind, key, value)))  # type: ignore[misc]

    async def hears(self, *hint: object) -> None:
        await until(lambda: hint in self.heard)


@pytest.mark.asyncio
async def test_a_hint_reaches_all_others_and_not_its_sender(buses: Buses) -> None:
    own, other = Ear(buses[0], "k", "x"), Ear(buses[1], "k")
    buses[0].hint("x", "nobody asked for it there")
    buses[0].hint("k", "key", "värde")
    await other.hears("k", "key", "värde")
    buses[1].hint("k", "back")
    await own.hears("k", "back", None)
    assert own.heard == [("k", "back", None)] and other.heard == [("k", "key", "värde")]


@pytest.mark.asyncio
async def test_hints_of_one_moment_are_gathered(buses: Buses) -> None:
    ear = Ear(buses[1], "k")
    notices: list[int] = []
    hear = buses[1]._hear
    buses[1]._line._heard = lambda payload: (notices.append(len(payload)), hear(payload))  # type: ignore[union-attr, assignment, return-value]
    for number in range(1_000):
        buses[0].hint("k", f"{number % 240:036}", number)
    await ear.hears("k", f"{999 % 240:036}", 999)
    await until(lambda: len(ear.heard) == 240)
    assert len(notices) == 2 and max(notices) < 8_000


@pytest.mark.asyncio
async def test_versions_are_told_to_those_only_who_have_said_interest(buses: Buses) -> None:
    ear, asked = Ear(buses[1], VERSION, DELETED), Ear(buses[0], "asked")
    for tree_id in ("followed", "other"):
        buses[0].changed(tree_id, 1)
    buses[1].hint(INTEREST, "followed", NEWLY)
    await ear.hears(VERSION, "followed", 1)
    for tree_id in ("followed", "other"):
        buses[0].changed(tree_id, 2)
    await ear.hears(VERSION, "followed", 2)
    buses[1].hint(INTEREST, "followed")
    buses[1].hint("asked", "")
    await asked.hears("asked", "", None)
    for tree_id in ("followed", "other"):
        buses[0].deleted(tree_id)
    await ear.hears(DELETED, "followed", None)
    assert [each for each in ear.heard if each[1] == "other"] == []
    assert ear.heard.count((VERSION, "followed", 2)) == 1, "interest that is renewed is not answered"


@pytest.mark.asyncio
async def test_a_bus_whose_session_is_ended_comes_back_and_says_so(
    buses: Buses, postgres: Cluster, postgres_database: str
) -> None:
    returned: list[int] = []
    for number, bus in enumerate(buses):
        bus.on_return(lambda number=number: returned.append(number))  # type: ignore[misc]
    ear = Ear(buses[1], "k")
    for round_ in range(3):
        await end_buses(postgres, postgres_database)
        buses[0].hint("k", "while it is away", round_)  # it waits, unless it was under way
        await until(lambda wanted=2 * (round_ + 1): len(returned) == wanted)  # type: ignore[misc]
        assert all(bus._line is not None and bus._line.is_up for bus in buses)
        buses[0].hint("k", "afterwards", round_)
        await ear.hears("k", "afterwards", round_)


@pytest.mark.asyncio
async def test_members_of_two_schemas_do_not_hear_each_other(postgres: Cluster, postgres_url: str) -> None:
    database = postgres_url.rpartition("/")[2]
    await asyncio.to_thread(postgres.sql, "CREATE SCHEMA IF NOT EXISTS elsewhere", database)
    there = PostgresBus(f"{postgres_url}?options=-csearch_path%3Delsewhere")
    buses = PostgresBus(postgres_url), PostgresBus(postgres_url), there
    for bus in buses:
        await bus.open()
    ears = [Ear(bus, "k") for bus in buses[1:]]
    there.hint("k", "there")
    buses[0].hint("k", "here")
    await ears[0].hears("k", "here", None)
    await until(lambda: not there._outgoing._waiting._hints)
    buses[0].hint("k", "once more")
    await ears[0].hears("k", "once more", None)
    for bus in buses:
        await bus.close()
    assert [each[1] for each in ears[0].heard] == ["here", "once more"] and ears[1].heard == []


@pytest.mark.asyncio
async def test_what_others_write_to_the_channel_is_ignored(buses: Buses, postgres: Cluster) -> None:
    ear = Ear(buses[1], "k")
    line = buses[0]._line
    assert line is not None
    for payload in ("", "{", '["x",[["k","a",1.5]]]'):
        await line.notify(payload)
    buses[0].hint("k", "sense")
    await ear.hears("k", "sense", None)
    assert len(ear.heard) == 1


@pytest.mark.asyncio
async def test_a_closed_bus_does_nothing_and_can_be_opened_again(postgres_url: str) -> None:
    bus, other = PostgresBus(postgres_url), PostgresBus(postgres_url)
    await other.open()
    ear = Ear(other, "k", VERSION)
    for close in (bus.close, bus.close):
        bus.hint("k", "too early")
        bus.changed("t", 1)
        bus.deleted("t")
        await bus.open()
        bus.hint("k", "now")
        await ear.hears("k", "now", None)
        await close()
        await close()
        assert bus._line is None
    assert {each[1] for each in ear.heard} == {"now"}
    await other.close()


def test_an_abandoned_bus_leaves_no_session_and_is_opened_anew_in_another_loop(
    postgres: Cluster, postgres_url: str, postgres_database: str
) -> None:
    bus = PostgresBus(postgres_url)
    bus.abandon()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(bus.open())
    bus.abandon()
    loop.close()

    async def again() -> None:
        await bus.open()
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'a2a-server bus'"
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(postgres.sql, sessions, postgres_database) != "1":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await bus.close()

    asyncio.run(again())
