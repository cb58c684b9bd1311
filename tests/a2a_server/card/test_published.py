"""The documents that anybody may read: forms, signatures, and what a cache may ask."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from a2a_server.card.keys import Key, read_key_set
from a2a_server.card.published import CardMode, Document, Forms, Hybrid, Published, dated, precondition, publish
from a2a_server.card.rules import card_problems
from a2a_server.card.signing import protected_header, verify
from core.model.errors import ConfigurationError
from core.storage.memory import MemoryStorage
from tests.a2a_server.card.cards import as_v0_3, card, keys

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
URL = "https://a.example/agent/"


def published(
    *signers: Key, hybrid: Hybrid | None = as_v0_3, mode: CardMode = "auto", url: str = URL, **fields: Any
) -> Published:
    return publish(card(**fields), url, now=NOW, keys=signers, forms=Forms(hybrid, mode))


def value(document: Document | None) -> Any:
    assert document is not None
    return json.loads(document.body)


# Since when


async def stored_in(storage: MemoryStorage, documents: Published, now: float) -> dict[str, str]:
    return {name: it.last_modified for name, it in (await dated(documents, storage, now)).documents()}


@pytest.mark.asyncio
async def test_processes_say_the_same_of_the_same_documents(tmp_path: Path) -> None:
    """Found by reading: each had the time of its own start, and caches behind several of them asked in vain."""
    signers, storage = keys(tmp_path, "ES256", "EdDSA"), MemoryStorage()
    await storage.open()

    one, other = await asyncio.gather(*[dated(published(*signers), storage, NOW + n) for n in (7.0, 9.0)])

    assert one == other
    assert {it.last_modified for _, it in one.documents()} == {"Thu, 01 Jan 2026 00:00:07 GMT"}
    assert await dated(published(*signers), storage, NOW + 99.0) == one


@pytest.mark.asyncio
async def test_only_the_documents_that_change_have_another_date() -> None:
    storage = MemoryStorage()
    await storage.open()
    first = await stored_in(storage, published(hybrid=None), NOW)
    assert await stored_in(storage, published(), NOW + 5.0) == first | {"hybrid": "Thu, 01 Jan 2026 00:00:05 GMT"}

    for at in (NOW + 20.0, NOW):
        changed = await stored_in(storage, published(hybrid=None, description="another"), at)
        assert changed == {"strict": "Thu, 01 Jan 2026 00:00:20 GMT", "catalog": "Thu, 01 Jan 2026 00:00:20 GMT"}
    back = await stored_in(storage, published(hybrid=None), NOW)  # by a clock that is behind
    assert back == {"strict": "Thu, 01 Jan 2026 00:00:21 GMT", "catalog": "Thu, 01 Jan 2026 00:00:21 GMT"}


@pytest.mark.asyncio
async def test_where_nothing_can_be_stored_documents_have_the_time_that_they_were_made() -> None:
    assert await dated(published(), MemoryStorage(), NOW + 5.0) == published()


# Which form


@pytest.mark.parametrize(
    ("version", "is_strict"),
    [
        ("1.0", True),
        ("1", True),
        (" 1.7", True),
        ("1.0.1", True),
        (None, False),
        ("", False),
        ("0.3", False),
        ("10.0", False),
        ("x", False),
    ],
)
def test_who_names_version_1_reads_v1_0_and_others_the_hybrid(version: str | None, is_strict: bool) -> None:
    documents = published()
    assert documents.card_for(version) is (documents.strict if is_strict else documents.hybrid)


@pytest.mark.parametrize(("mode", "form"), [("strict", "strict"), ("hybrid", "hybrid")])
def test_the_operator_s_word_wins(mode: CardMode, form: str) -> None:
    documents = published(mode=mode)
    for version in ("1.0", None, "0.3"):
        assert documents.card_for(version) is getattr(documents, form)
    assert "Vary" not in documents.card_for(None).headers


def test_without_v0_3_everybody_reads_the_strict_card() -> None:
    documents = published(hybrid=None)
    assert documents.card_for(None) is documents.card_for("1.0")
    assert "Vary" not in documents.strict.headers


def test_the_strict_card_is_right_by_a_closed_schema_and_the_hybrid_only_adds(tmp_path: Path) -> None:
    documents = published(*keys(tmp_path))
    strict, hybrid = value(documents.strict), value(documents.hybrid)
    assert card_problems(strict) == []
    assert hybrid["url"]
    assert {name for name in hybrid if name not in strict} == {"url", "protocolVersion", "preferredTransport"}


# Headers


def test_each_document_has_headers_for_caches_of_its_own() -> None:
    documents = published()
    assert documents.strict.headers == {
        "ETag": documents.strict.etag,
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Cache-Control": "public, max-age=300",
        "Vary": "A2A-Version",
    }
    assert documents.hybrid is not None
    assert len({documents.strict.etag, documents.hybrid.etag, documents.catalog.etag}) == 3


def test_equal_cards_have_equal_etags_and_others_do_not() -> None:
    assert published().strict.etag == published().strict.etag != published(name="Other").strict.etag


OTHER = '"x"'
LATER, EARLIER = "Fri, 02 Jan 2026 00:00:00 GMT", "Wed, 31 Dec 2025 00:00:00 GMT"


@pytest.mark.parametrize(
    ("request_headers", "status"),
    [
        ({}, 200),
        ({"if-none-match": "ETAG"}, 304),
        ({"if-none-match": "W/ETAG"}, 304),
        ({"if-none-match": '"a,b", ETAG'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": OTHER}, 200),
        ({"if-none-match": '"*"'}, 200),
        ({"if-none-match": OTHER, "if-modified-since": LATER}, 200),
        ({"if-modified-since": "MODIFIED"}, 304),
        ({"if-modified-since": LATER}, 304),
        ({"if-modified-since": "Friday, 02-Jan-26 00:00:00 GMT"}, 304),
        ({"if-modified-since": "Fri Jan  2 00:00:00 2026"}, 304),
        ({"if-modified-since": "Wed Dec 31 00:00:00 2025"}, 200),
        ({"if-modified-since": EARLIER}, 200),
        *(
            ({"if-modified-since": nonsense}, 200)
            for nonsense in ("", "yesterday", "Fri, 02 Jan 2026 00:00:00", "Fri, 99 Jan 2026 00:00:00 GMT", "5" * 400)
        ),
        ({"if-match": "ETAG"}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": f"{OTHER}, ETAG"}, 200),
        ({"if-match": OTHER}, 412),
        ({"if-match": "W/ETAG"}, 412),
        ({"if-match": OTHER, "if-unmodified-since": LATER}, 412),
        ({"if-match": "ETAG", "if-unmodified-since": EARLIER}, 200),
        ({"if-match": "ETAG", "if-none-match": "ETAG"}, 304),
        ({"if-unmodified-since": LATER}, 200),
        ({"if-unmodified-since": EARLIER}, 412),
        ({"if-unmodified-since": "yesterday"}, 200),
    ],
)
def test_preconditions_are_judged_in_their_order(request_headers: dict[str, str], status: int) -> None:
    """RFC 9110 §13.2.2; the three forms of a date: §5.6.7."""
    document = published().strict
    said = {
        name: value.replace("ETAG", document.etag).replace("MODIFIED", document.last_modified)
        for name, value in request_headers.items()
    }
    assert precondition(document, said) == status


# Signatures


def test_without_keys_nothing_is_signed_and_no_keys_are_published() -> None:
    documents = published()
    assert documents.keys is None
    assert "signatures" not in value(documents.strict) | value(documents.hybrid)


def test_both_forms_verify_with_the_published_keys(tmp_path: Path) -> None:
    """Each key's signature holds for the JSON as it came, and for the v1.0 card in it."""
    signers = keys(tmp_path)
    documents = published(*signers)
    assert documents.keys is not None
    trusted = read_key_set(documents.keys.body)
    for form in (value(documents.strict), value(documents.hybrid)):
        verdicts = verify(form, trusted)
        assert all(verdict.is_valid for verdict in verdicts)
        assert {verdict.kid for verdict in verdicts if not verdict.uncovered} == {key.kid for key in signers}
    without_v0_3 = {name: item for name, item in value(documents.strict).items() if name != "signatures"}
    without_v0_3["signatures"] = value(documents.hybrid)["signatures"]
    verdicts = verify(without_v0_3, trusted)
    assert {verdict.kid for verdict in verdicts if verdict.is_valid and not verdict.uncovered} == {
        key.kid for key in signers
    }


def test_signatures_say_where_the_keys_are_the_newest_first(tmp_path: Path) -> None:
    signers = keys(tmp_path)
    headers = [protected_header(each) for each in value(published(*signers).strict)["signatures"]]
    assert {header["jku"] for header in headers} == {URL + ".well-known/jwks.json"}
    assert headers[0]["kid"] == signers[0].kid


def test_the_published_keys_are_public(tmp_path: Path) -> None:
    (key,) = value(published(*keys(tmp_path, "ES256")).keys)["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_card_that_cannot_be_signed_is_refused(tmp_path: Path) -> None:
    """JSON readers differ in what 2**60 is."""
    params = {"capabilities": {"extensions": [{"uri": "https://a.example/x", "params": {"n": 2**60}}]}}
    with pytest.raises(ConfigurationError, match="cannot be signed"):
        published(*keys(tmp_path), **params)
    assert published(**params).strict


# The catalog

# The entry of both forms: AI Catalog 1.0 (`mediaType`), and ARD's schema (`type`, and the identifier's pattern).
ENTRY = {
    "type": "object",
    "required": ["identifier", "displayName", "type", "mediaType", "url"],
    "properties": {"identifier": {"pattern": "^urn:air:[a-zA-Z0-9.-]+(:[a-zA-Z0-9._-]+)+$"}},
    "additionalProperties": {"type": "string"},
}


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:8000/", "http://[::1]:8000/", "http://localhost/"])
@pytest.mark.parametrize("name", ["Lab", "\U0001f9ea", "A b/c: d"])
def test_the_catalog_names_the_agent_and_its_card(url: str, name: str) -> None:
    catalog = value(published(url=url, name=name).catalog)
    (entry,) = catalog["entries"]
    assert (catalog["specVersion"], catalog["host"]) == ("1.0", {"displayName": name})
    jsonschema.validate(entry, ENTRY)
    assert entry["url"] == url + ".well-known/agent-card.json"
    assert entry["type"] == entry["mediaType"] == "application/a2a-agent-card+json"
    assert (entry["displayName"], entry["version"]) == (name, "1.0")


def test_the_catalog_s_host_is_the_provider() -> None:
    provider = {"url": "https://a.example", "organization": "A"}
    assert value(published(provider=provider).catalog)["host"] == {"displayName": "A"}
