"""The addresses under /.well-known/, over HTTP."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from a2a_server.card.keys import Key, read_key_set
from a2a_server.card.published import Forms, Published, publish
from a2a_server.card.signing import verify
from a2a_server.card.well_known import CARD_PATHS, WellKnown
from tests.a2a_server.card.cards import as_v0_3, card, key_file, keys
from tests.a2a_server.conftest import running

CARD, KEYS, CATALOG = (f"/.well-known/{name}.json" for name in ("agent-card", "jwks", "ai-catalog"))
V1 = {"A2A-Version": "1.0"}


def published(*signers: Key) -> Published:
    return publish(card(), "http://test/", now=0.0, keys=signers, forms=Forms(as_v0_3))


async def ask(
    documents: Published, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> httpx2.Response:
    app = Starlette(routes=WellKnown(documents).routes())
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize("path", CARD_PATHS)
@pytest.mark.asyncio
async def test_the_form_of_the_card_goes_by_header_or_query(path: str) -> None:
    documents = published()
    strict = await ask(documents, path, V1)
    by_query = await ask(documents, f"{path}?A2A-Version=1.0")
    hybrid = await ask(documents, path)
    assert strict.content == by_query.content == documents.strict.body
    assert documents.hybrid is not None
    assert hybrid.content == documents.hybrid.body
    for response in (strict, hybrid):
        assert (response.headers["vary"], response.headers["content-type"]) == ("A2A-Version", "application/json")


@pytest.mark.parametrize("path", [CARD, KEYS, CATALOG])
@pytest.mark.asyncio
async def test_documents_can_be_revalidated_and_asked_for_by_head(tmp_path: Path, path: str) -> None:
    documents = published(*keys(tmp_path))
    whole, head = await ask(documents, path, V1), await ask(documents, path, V1, "HEAD")
    same = await ask(documents, path, V1 | {"If-None-Match": whole.headers["etag"]})
    by_date = await ask(documents, path, V1 | {"If-Modified-Since": whole.headers["last-modified"]})
    assert (whole.status_code, head.status_code, same.status_code, by_date.status_code) == (200, 200, 304, 304)
    assert head.content == same.content == by_date.content == b""
    assert head.headers == whole.headers
    for name in ("etag", "last-modified", "cache-control"):
        assert same.headers[name] == whole.headers[name]
    assert "max-age" in whole.headers["cache-control"]


@pytest.mark.asyncio
async def test_one_form_s_etag_is_not_the_other_s() -> None:
    documents = published()
    etag = (await ask(documents, CARD, V1)).headers["etag"]
    assert (await ask(documents, CARD, {"If-None-Match": etag})).status_code == 200


@pytest.mark.asyncio
async def test_types_are_those_of_the_documents(tmp_path: Path) -> None:
    documents = published(*keys(tmp_path))
    assert (await ask(documents, KEYS)).headers["content-type"] == "application/jwk-set+json"
    assert (await ask(documents, CATALOG)).headers["content-type"] == "application/ai-catalog+json"


@pytest.mark.asyncio
async def test_without_keys_there_is_no_key_set() -> None:
    assert (await ask(published(), KEYS)).status_code == 404


@pytest.mark.asyncio
async def test_a_server_publishes_its_signed_card_its_keys_and_itself(tmp_path: Path) -> None:
    """All of it together, over a socket."""
    async with running(card_keys=(key_file(tmp_path, "ES256"),)) as server, server.client() as client:
        own: Any = (await client.get(CARD, headers=V1)).json()
        (entry,) = json.loads((await client.get(CATALOG)).content)["entries"]
        trusted = read_key_set((await client.get(KEYS)).content)
        named = await client.get(entry["url"], headers=V1)
    assert verify(own, trusted)[0].is_valid
    assert named.json() == own
