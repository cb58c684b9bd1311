"""Tests of core.cluster.bus: where nobody shares the database, nothing is sent and nothing is heard."""

import pytest

from core.cluster.bus import VERSION, Bus, LocalBus


@pytest.mark.asyncio
async def test_the_local_form_does_nothing() -> None:
    bus: Bus = LocalBus()
    assert bus.is_alone
    heard: list[object] = []
    await bus.open()
    bus.on(VERSION, lambda *hint: heard.append(hint))
    bus.on_return(lambda: heard.append("returned"))
    bus.hint(VERSION, "t", 1)
    bus.changed("t", 1)
    bus.deleted("t")
    bus.abandon()
    await bus.close()
    assert heard == []
