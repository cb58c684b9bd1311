"""Tests of core.run.started: what `Session.create` and `Session.execute` say that they did."""

import pytest

from core.model.submission import Submission
from core.session import has_ended
from core.storage.base import EventQuery
from tests.core.contents import said
from tests.core.cores import Bench, item, rooted, virtual_time


def names(events: object) -> list[str]:
    return [type(each.event).__name__ for each in events]  # type: ignore[attr-defined]


@pytest.mark.parametrize("executor", ["slow", "pure"])
@virtual_time
async def test_a_creation_tells_its_own_events_and_the_tree_right_after_them(executor: str) -> None:
    """Whatever has happened by the time when they are stored: `pure` runs at once."""
    bench = Bench()
    bench.add("pure", bench.work, has_effects=False)
    async with bench.session() as session:
        plan = session.plan(rooted(item("a", executor)))
        started = await session.create(plan, Submission(message=said("1"), by="operator"), execute=True)
        assert names(started.events) == ["TreeCreated", "MessageReceived", "RunStarted"]
        assert (started.before, started.head.version, started.head.is_live) == (0, 3, True)
        assert list(await session.storage.events(EventQuery(tree_id=started.head.id, limit=3))) == list(started.events)
        bench.gate("a").set()
        await session.wait(started.head.id, has_ended)


@virtual_time
async def test_a_run_tells_where_it_begins_in_the_log() -> None:
    bench = Bench()
    async with bench.session() as session:
        created = await session.create(session.plan(rooted(item("a"))))
        assert (names(created.events), created.head.is_live) == (["TreeCreated"], False)
        started = await session.execute(created.head.id)
        assert names(started.events) == ["RunStarted"]
        assert (started.before, started.head.version, started.head.run) == (1, 2, 1)
        await session.wait(created.head.id, has_ended)
