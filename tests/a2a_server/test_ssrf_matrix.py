"""R20 for what the server adds to the sinks of the core: webhooks, files of messages, keys of an issuer."""

import pytest
from msgspec.structs import replace

from a2a_server.auth import jwks
from a2a_server.push.configs import PushConfig, SecretBox
from a2a_server.push.sender import Failed, Sender
from core.executors.files import FileUnreadable, read_file
from core.outside.clock import SystemClock
from core.outside.egress import Egress
from core.outside.fetched import EgressError
from tests.core.test_ssrf_matrix import Sink, Way, arrive_unguarded, cells, try_every_form

CONFIG = PushConfig(id="c", task_id="t", tree_id="t", owner="o", url="", created_at=0.0)


async def pushed(url: str, guard: Egress) -> None:
    sender = Sender(guard, SecretBox(()), SystemClock(), timeout=5.0, secret=None)
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
    await try_every_form(sink, way)


@pytest.mark.parametrize(("sink", "way"), cells(SINKS))
@pytest.mark.asyncio
async def test_every_form_reaches_a_canary_without_the_check(
    sink: Sink, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    await arrive_unguarded(sink, way, monkeypatch)
