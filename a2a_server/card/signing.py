"""Signatures of agent cards (A2A v1.0 §8.4): detached JWS (RFC 7515) over the canonical card without `signatures`.

Verifiers read "the card" in three ways:

1. the JSON as it came;
2. the v1.0 card in it: without what v1.0 does not know, such as a hybrid's v0.3 fields, and without unset fields
   (§8.4.3);
3. that without everything that is empty, although the specification keeps required fields: the official SDKs
   (a2a-sdk 1.3.0 for Python, @a2a-js/sdk 1.3.0).

We sign so that each of them finds a signature that holds, verify all three, and say what a signature does not cover.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from a2a_server.card.document import canonical, read_document
from a2a_server.card.keys import NAMES, Key
from a2a_server.protocol import types
from a2a_server.protocol.base64url import decoded, encoded
from a2a_server.protocol.codec import decode, encode
from a2a_server.protocol.errors import InvalidParams

SIGNATURES = "signatures"
MOST_SIGNATURES = 32  # of one card that are looked at
MOST_UNCOVERED = 20  # fields that are named
LONGEST_NAME = 80  # characters of a stranger's text that are repeated

Reading = tuple[bytes, tuple[str, ...]]  # a payload that may have been signed; the fields that are not in it

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Verdict(Struct, frozen=True, kw_only=True):
    """What a signature is worth: valid if there is no `problem`. `uncovered` are the fields it says nothing of."""

    kid: str = ""
    alg: str = ""
    problem: str = ""
    uncovered: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        return not self.problem


def sign(document: Mapping[str, Any], key: Key, *, jku: str | None = None) -> types.AgentCardSignature:
    """This key's signature over all of the document but its signatures. `jku`: where the public key is published.

    Raises ValueError when the document has no canonical form.
    """
    content = {name: value for name, value in document.items() if name != SIGNATURES}
    header = {"alg": key.alg, "kid": key.kid, "typ": "JOSE"} | ({"jku": jku} if jku else {})
    protected = encoded(msgspec.json.encode(header))
    signature = key.sign(_signing_input(protected, canonical(content)))
    return types.AgentCardSignature(protected=protected, signature=encoded(signature))


def signatures(card: types.AgentCard, keys: Sequence[Key], *, jku: str | None = None) -> list[types.AgentCardSignature]:
    """Of every key over the v1.0 card, and over its form without what is empty where that is another one.

    Raises ValueError.
    """
    document = to_document(card)
    forms = [document, bare] if (bare := _without_empty(document)) != document else [document]
    return [sign(form, key, jku=jku) for form in forms for key in keys]


def to_document(card: types.AgentCard) -> dict[str, Any]:
    """The card as the JSON value that is served."""
    document: dict[str, Any] = msgspec.json.decode(encode(card))
    return document


def verify(document: Mapping[str, Any], keys: Sequence[Key]) -> list[Verdict]:
    """A verdict on each signature of a card that came from anywhere. Never raises."""
    given = document.get(SIGNATURES)
    readings = _readings(document)
    return [_verdict(each, readings, keys) for each in (given if isinstance(given, list) else [])[:MOST_SIGNATURES]]


def protected_header(signature: Any) -> dict[str, Any]:
    """The protected header of one member of `signatures`. Raises ValueError, whose text says what is wrong with it.

    The unprotected header decides nothing: it is not signed.
    """
    if not isinstance(signature, dict):
        raise ValueError("the signature is not an object")
    try:
        header = read_document(_decoded(signature.get("protected")))
    except ValueError as error:
        raise ValueError(f"the protected header {error}") from None
    unprotected = signature.get("header")
    if not (unprotected is None or isinstance(unprotected, dict)):
        raise ValueError("the unprotected header is not an object")
    if "crit" in header or "crit" in (unprotected or {}):
        raise ValueError("it requires extensions (crit), which are not supported")
    if header.keys() & (unprotected or {}).keys():
        raise ValueError("the protected and the unprotected header share a parameter")
    return header


def _verdict(signature: Any, readings: Sequence[Reading], keys: Sequence[Key]) -> Verdict:
    try:
        header = protected_header(signature)
    except ValueError as error:
        return Verdict(problem=str(error))
    kid, alg = header.get("kid"), header.get("alg")
    told = Verdict(kid=_shown(kid), alg=_shown(alg))
    known = [key for key in keys if key.kid == kid]
    fitting = [key for key in known if key.is_for(alg)]
    if not isinstance(alg, str) or alg not in NAMES:
        problem = f"its algorithm is not one of {', '.join(NAMES)}"
    elif not isinstance(kid, str) or not kid:
        problem = "it has no key id (kid)"
    elif not known:
        problem = "its key is not trusted"
    elif not fitting:
        problem = "its key is for another algorithm"
    else:
        try:
            made = _decoded(signature.get("signature"))
        except ValueError as error:
            return msgspec.structs.replace(told, problem=f"the signature {error}")
        for payload, uncovered in readings:
            message = _signing_input(signature["protected"], payload)
            if any(key.has_signed(message, made) for key in fitting):
                return msgspec.structs.replace(told, uncovered=uncovered)
        problem = "it was not made by this key over this card"
    return msgspec.structs.replace(told, problem=problem)


def _readings(document: Mapping[str, Any]) -> list[Reading]:
    """What a signature may be over; what covers the most comes first. Nothing, if it has no canonical form."""
    content = {name: value for name, value in document.items() if name != SIGNATURES}
    try:
        readings: list[Reading] = [(canonical(content), ())]
    except ValueError:
        return []
    try:
        card = to_document(decode(content, types.AgentCard))
    except InvalidParams:  # no v1.0 card; it may be one that lost its empty fields
        forms = [_without_empty(content)]
    else:
        forms = [card, _without_empty(card)]
    return [*readings, *((canonical(form), _uncovered(content, form)) for form in forms)]


def _without_empty(value: Any) -> Any:
    """The value without texts, lists, objects and nulls that hold nothing, innermost first."""
    if isinstance(value, dict):
        return {name: kept for name, item in value.items() if not _is_empty(kept := _without_empty(item))}
    if isinstance(value, list):
        return [kept for item in value if not _is_empty(kept := _without_empty(item))]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _uncovered(content: Any, form: Any) -> tuple[str, ...]:
    return tuple(islice(_beyond(content, form, ""), MOST_UNCOVERED))


def _beyond(value: Any, covered: Any, path: str) -> Iterator[str]:
    """The fields of `value` that `covered` lacks, except empty ones."""
    if isinstance(value, dict) and isinstance(covered, dict):
        for name, item in value.items():
            field = f"{path}.{name[:LONGEST_NAME]}" if path else name[:LONGEST_NAME]
            if name in covered:
                yield from _beyond(item, covered[name], field)
            elif not _is_empty(item) and item is not False:
                yield field
    elif isinstance(value, list) and isinstance(covered, list):
        for index, (item, other) in enumerate(zip(value, covered, strict=False)):
            yield from _beyond(item, other, f"{path}[{index}]")


def _signing_input(protected: str, payload: bytes) -> bytes:
    """RFC 7515 §5.1, step 8."""
    return f"{protected}.{encoded(payload)}".encode("ascii")


def _decoded(text: Any) -> bytes:
    """The bytes of a base64url text, which has one spelling only. Raises ValueError."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text):
        raise ValueError("is not base64url")
    data = decoded(text) if len(text) % 4 != 1 else b""
    if encoded(data) != text:
        raise ValueError("is not base64url")
    return data


def _shown(value: Any) -> str:
    return value[:LONGEST_NAME] if isinstance(value, str) else ""
