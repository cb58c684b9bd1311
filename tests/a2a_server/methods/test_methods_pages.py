"""Page tokens: good for their owner and query, and for nothing else (reliability T29)."""

import asyncio

import pytest

from a2a_server.methods.pages import PageTokens
from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams
from core.storage.memory import MemoryStorage
from tests.a2a_server.views.test_translate import head


async def storage() -> MemoryStorage:
    opened = MemoryStorage()
    await opened.open()
    return opened


LAST = head(id="t", updated_at=17.25)
QUERY = wire.ListTasksRequest(context_id="c")


@pytest.mark.asyncio
async def test_a_token_says_where_its_page_ended_also_to_the_next_process() -> None:
    kept = await storage()
    token = (await PageTokens(kept).of("ann", QUERY)).token(LAST)

    assert (await PageTokens(kept).of("ann", QUERY)).read(token) == (17.25, "t")


@pytest.mark.asyncio
async def test_processes_that_start_at_the_same_time_have_one_key() -> None:
    """Found by reading: two that found no key each made one, and the second one's took the first one's place."""
    kept = await storage()

    one, other = await asyncio.gather(*[PageTokens(kept).of("ann", QUERY) for _ in range(2)])

    assert other.read(one.token(LAST)) == one.read(other.token(LAST)) == (17.25, "t")
    assert (await PageTokens(kept).of("ann", QUERY)).read(one.token(LAST)) == (17.25, "t")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("owner", "query"),
    [
        ("bob", QUERY),
        ("ann", wire.ListTasksRequest()),
        ("ann", wire.ListTasksRequest(context_id="d")),
        ("ann", wire.ListTasksRequest(context_id="c", status=wire.TaskState.WORKING)),
    ],
)
async def test_a_token_of_another_owner_or_query_is_refused(owner: str, query: wire.ListTasksRequest) -> None:
    tokens = PageTokens(await storage())
    token = (await tokens.of("ann", QUERY)).token(LAST)

    with pytest.raises(InvalidParams):
        (await tokens.of(owner, query)).read(token)


@pytest.mark.asyncio
async def test_what_a_page_shows_is_free_to_change() -> None:
    tokens = PageTokens(await storage())
    token = (await tokens.of("ann", QUERY)).token(LAST)
    other = wire.ListTasksRequest(context_id="c", page_size=7, include_artifacts=True, history_length=0)

    assert (await tokens.of("ann", other)).read(token) == (17.25, "t")


@pytest.mark.asyncio
async def test_any_changed_character_spoils_a_token() -> None:
    pages = await PageTokens(await storage()).of("ann", QUERY)
    token = pages.token(LAST)
    # The last character has bits that base64 does not use.
    for i in range(len(token) - 1):
        changed = token[:i] + ("A" if token[i] != "A" else "B") + token[i + 1 :]
        with pytest.raises(InvalidParams):
            pages.read(changed)
    for bad in ("", "é", "a", "AAAA", token[:-4], token + "AAAA", "x" * 10_000):
        with pytest.raises(InvalidParams) as refused:
            pages.read(bad)
        assert [violation.field for violation in refused.value.violations] == ["pageToken"]


@pytest.mark.asyncio
async def test_another_server_has_another_key() -> None:
    token = (await PageTokens(await storage()).of("ann", QUERY)).token(LAST)
    with pytest.raises(InvalidParams):
        (await PageTokens(await storage()).of("ann", QUERY)).read(token)
