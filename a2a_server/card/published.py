"""What anybody may read about this server: its card in both forms, its public keys and its catalog, byte for byte."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from a2a_server.card.keys import Key, public_set
from a2a_server.card.signing import SIGNATURES, sign, signatures
from a2a_server.protocol import types
from a2a_server.protocol.codec import encode
from core.model.errors import ConfigurationError, StorageUnavailable
from core.storage.base import Document as Stored
from core.storage.base import Storage

CARD_PATH = "/.well-known/agent-card.json"
CATALOG_PATH = "/.well-known/ai-catalog.json"
KEYS_PATH = "/.well-known/jwks.json"
VERSION_HEADER = "A2A-Version"
KIND = "published"  # of the stored document that says since when the published ones are as they are
MAX_AGE = 300  # seconds that a client may keep a document

JSON = "application/json"
KEY_SET_TYPE = "application/jwk-set+json"  # RFC 7517 §8.5.2
CATALOG_TYPE = "application/ai-catalog+json"
CARD_TYPE = "application/a2a-agent-card+json"  # how catalogs call a card; the card itself goes as application/json

_TAG = re.compile(r'\*|(?:W/)?"[^"]*"')
_NO_URN = re.compile(r"[^A-Za-z0-9._-]+")

CardMode = Literal["auto", "strict", "hybrid"]
Hybrid = Callable[[types.AgentCard], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms in which a card is served, and to whom. `hybrid` adds to a card what v0.3 clients look for."""

    hybrid: Hybrid | None = None
    mode: CardMode = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document as it is served."""

    body: bytes
    etag: str
    last_modified: str
    media_type: str = JSON
    vary: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer 200, and of 304 as well (RFC 9110 §15.4.5)."""
        headers = {
            "ETag": self.etag,
            "Last-Modified": self.last_modified,
            "Cache-Control": f"public, max-age={MAX_AGE}",
        }
        return headers | {"Vary": self.vary} if self.vary else headers


class _Since(Struct, frozen=True, array_like=True):
    """What a document is, by its tag, and since when."""

    etag: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The documents of one server. Without `hybrid` everybody reads the strict card."""

    card: types.AgentCard  # what they were made of, without signatures
    strict: Document
    hybrid: Document | None
    catalog: Document
    keys: Document | None  # None: nothing is signed
    mode: CardMode = "auto"

    def documents(self) -> list[tuple[str, Document]]:
        """Those there are, by the names of their fields."""
        given = ("strict", self.strict), ("hybrid", self.hybrid), ("catalog", self.catalog), ("keys", self.keys)
        return [(name, document) for name, document in given if document is not None]

    def card_for(self, version: str | None) -> Document:
        """The card for a client that asks for this version of A2A, or for none.

        A client without a version may speak v0.3 and gets the hybrid (A2A §3.6.2); with version 1 it gets v1.0.
        """
        if self.hybrid is None or self.mode == "strict":
            return self.strict
        is_v1 = version is not None and version.strip().split(".")[0] == "1"
        return self.strict if self.mode == "auto" and is_v1 else self.hybrid


def publish(
    card: types.AgentCard, url: str, *, now: float, keys: Sequence[Key] = (), forms: Forms | None = None
) -> Published:
    """The documents of a server at `url` (absolute, with a slash at its end) from `now` on (seconds since 1970, UTC).

    Without `forms` everybody gets the strict card. Raises ConfigurationError for a card that cannot be signed.
    """
    forms = forms or Forms()
    hybrid, mode = forms.hybrid, forms.mode
    jku = url.rstrip("/") + KEYS_PATH
    vary = VERSION_HEADER if hybrid is not None and mode == "auto" else ""
    try:
        strict = replace(card, signatures=signatures(card, keys, jku=jku))
        both = None if hybrid is None else _hybrid(hybrid(replace(card, signatures=[])), strict, keys, jku)
    except ValueError as error:
        raise ConfigurationError(f"the agent card cannot be signed: {error}") from None
    return Published(
        card=card,
        strict=_document(encode(strict), now, vary=vary),
        hybrid=None if both is None else _document(encode(both), now, vary=vary),
        catalog=_document(encode(_catalog(card, url)), now, media_type=CATALOG_TYPE),
        keys=_document(encode(public_set(keys)), now, media_type=KEY_SET_TYPE) if keys else None,
        mode=mode,
    )


async def dated(published: Published, storage: Storage, now: float) -> Published:
    """The documents, each with the time since which it is as it is: the storage's, so that all processes say the same.

    Where nothing can be stored at present, they have the times that they were made with.
    """
    try:
        since = await _since({name: document.etag for name, document in published.documents()}, storage, now)
    except StorageUnavailable:
        return published
    changed = {name: with_fields(it, last_modified=_date(since[name].at)) for name, it in published.documents()}
    return with_fields(published, **changed)  # type: ignore[arg-type]  # the names are of fields that are documents


async def _since(tags: Mapping[str, str], storage: Storage, now: float) -> Mapping[str, _Since]:
    """Since when each document has its tag. Another one than before has another date, whatever the clock says."""
    while True:
        stored = await storage.document(KIND, KIND)
        known = {} if stored is None else msgspec.json.decode(stored.body, type=dict[str, _Since])
        before = {name: known.get(name, _Since("", now - 1.0)) for name in tags}
        since = {
            name: before[name] if before[name].etag == tag else _Since(tag, max(now, before[name].at + 1.0))
            for name, tag in tags.items()
        }
        written = Stored(kind=KIND, id=KIND, body=msgspec.json.encode(known | since))
        if since == before or await storage.swap(written, stored):
            return since


def _date(moment: float) -> str:
    return formatdate(moment, usegmt=True)


def precondition(document: Document, request: Mapping[str, str]) -> Literal[200, 304, 412]:
    """The status for a GET or HEAD with these headers (lower-case names), by what it says of the document it knows.

    In the order of RFC 9110 §13.2.2. A date that is none, and a list of dates, do not count.
    """
    if (wanted := request.get("if-match")) is not None:
        if not {"*", document.etag} & set(_TAG.findall(wanted)):
            return 412
    elif _is_since(document, request.get("if-unmodified-since")) is False:
        return 412
    if (known := request.get("if-none-match")) is not None:
        tags = {tag.removeprefix("W/") for tag in _TAG.findall(known)}
        return 304 if tags & {"*", document.etag} else 200
    return 304 if _is_since(document, request.get("if-modified-since")) else 200


def _is_since(document: Document, date: str | None) -> bool | None:
    """Whether the document is not newer than that date; None where there is no date."""
    if date is None:
        return None
    try:
        found = parsedate_to_datetime(date)
    except (ValueError, TypeError):
        return None
    if found.tzinfo is None:
        if "," in date:
            return None
        found = found.replace(tzinfo=UTC)  # the form of asctime (RFC 9110 §5.6.7)
    return parsedate_to_datetime(document.last_modified) <= found


def _hybrid(document: dict[str, Any], strict: types.AgentCard, keys: Sequence[Key], jku: str) -> dict[str, Any]:
    """The hybrid with signatures for both kinds of verifier.

    Those over all of it hold for the JSON as it comes; the strict card's hold for who drops what v1.0 does not know.
    """
    over_all = [sign(document, key, jku=jku) for key in keys]
    return document | {SIGNATURES: [*strict.signatures, *over_all]} if keys else document


def _document(body: bytes, now: float, *, media_type: str = JSON, vary: str = "") -> Document:
    return Document(
        body=body,
        etag=f'"{sha256(body).hexdigest()[:32]}"',
        last_modified=_date(now),
        media_type=media_type,
        vary=vary,
    )


def _catalog(card: types.AgentCard, url: str) -> dict[str, Any]:
    """The one agent here as an AI Catalog (github.com/Agent-Card/ai-catalog, specification 1.0, a draft of 2026-04).

    Its offspring ARD (github.com/ards-project/ard-spec, 2026-07) says `type` for `mediaType` and has a form for
    identifiers. The entry has both names, which either allows.
    """
    host, name = (_NO_URN.sub("-", text).strip("-") or "agent" for text in (urlsplit(url).hostname or "", card.name))
    entry = {
        "identifier": f"urn:air:{host}:agent:{name}",
        "displayName": card.name,
        "type": CARD_TYPE,
        "mediaType": CARD_TYPE,
        "url": url.rstrip("/") + CARD_PATH,
        "description": card.description,
        "version": card.version,
    }
    publisher = card.provider.organization if card.provider else card.name
    return {"specVersion": "1.0", "host": {"displayName": publisher}, "entries": [entry]}
