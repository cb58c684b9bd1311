"""R20 for what the server adds to the sinks of the core: webhooks, files of messages, keys of an issuer."""

from typing import Any

import pytest
from msgspec.structs import replace

from a2a_server.auth import jwks
from a2a_server.push.configs import PushConfig, Vault
from a2a_server.push.sender import Failed, Sender
from core.clock import SystemClock
from core.egress import Egress, EgressError, EgressPolicy
from core.executors.files import FileUnreadable, read_file
from tests.core.test_ssrf_matrix import FORMS, Sink, Way, as_sent, cells, fields, redirected
from tests.core.test_ssrf_matrix import direct as direct_way

CONFIG = PushConfig(id="c", task_id="t", tree_id="t", owner="o", url="", created_at=0.0)


async def pushed(url: str, guard: Egress) -> None:
    sender = Sender(guard, Vault(()), SystemClock(), timeout=5.0, secret=None)
    if isinstance(failed := await sender.send(replace(CONFIG, url=url), "c/1.0", b"{}"), Failed):
        raise EgressError(failed.error)


async def read(url: str, guard: Egress) -> None:
    try:
        await read_file({"url": url}, guard)
    except FileUnreadable as refusal:
        raise EgressError(str(refusal)) from refusal


async def keys(url: str, guard: Egress) -> None:
    try:
        await jwks._fetched(url, guard)
    except ValueError as refusal:
        raise EgressError(str(refusal)) from refusal


SINKS = (
    Sink("webhook", pushed, follows=False),
    Sink("file url", read),
    Sink("issuer's keys", keys, follows=False),
)


@pytest.mark.parametrize(("sink", "way"), cells(SINKS))
@pytest.mark.asyncio
async def test_no_form_reaches_a_canary(sink: Sink, way: Way) -> None:
    async with fields() as it:
        for number, form in enumerate(FORMS):
            await way(it, sink, number, form)
            assert it.hits == 0, form


@pytest.mark.parametrize(("sink", "way"), cells(SINKS))
@pytest.mark.asyncio
async def test_every_form_reaches_a_canary_without_the_check(
    sink: Sink, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control, as in the core's matrix."""
    monkeypatch.setattr(EgressPolicy, "permits", lambda *_: True)
    async with fields() as it:
        for number, form in enumerate(FORMS):
            before = it.hits
            await way(it, sink, number, form)
            is_spelled = way in (direct_way, redirected)
            never = (is_spelled and as_sent(form[0]) is None) or (way is redirected and not sink.follows)
            assert it.hits - before == (0 if never else 1), form
