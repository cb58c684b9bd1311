"""Signatures of cards: what holds, what does not, and that no garbage is more than "not valid"."""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from a2a.types import AgentCard as OfficialCard
from a2a.utils.signing import ProtectedHeader, create_agent_card_signer, create_signature_verifier
from google.protobuf.json_format import MessageToDict, ParseDict
from hypothesis import given
from hypothesis import strategies as st
from jwt.api_jwk import PyJWK
from msgspec.structs import replace

from a2a_server.card.document import canonical
from a2a_server.card.keys import ALGORITHMS, EDDSA, ES256, Key, read_key_set
from a2a_server.card.signing import Verdict, protected_header, sign, signatures, to_document, verify
from tests.a2a_server.card.cards import CARD, as_v0_3, card, key_file, keys


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).decode().rstrip("=")


def with_signature(signature: Any, **fields: Any) -> dict[str, Any]:
    return CARD | fields | {"signatures": [signature]}


def signed(key: Key, **fields: Any) -> dict[str, Any]:
    """A card and this key's signature over all of it."""
    document = CARD | fields
    made = sign(document, key)
    return document | {"signatures": [{"protected": made.protected, "signature": made.signature}]}


def crafted(key: Key, header: Any, document: dict[str, Any] = CARD) -> dict[str, Any]:
    """A card with a signature that is made correctly, under any protected header."""
    protected = header if isinstance(header, str) else encoded(header)
    made = key.sign(f"{protected}.{encoded(canonical(document))}".encode())
    return document | {"signatures": [{"protected": protected, "signature": encoded(made)}]}


def only(document: dict[str, Any], *trusted: Key) -> Verdict:
    (verdict,) = verify(document, trusted)
    return verdict


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_holds_and_says_what_the_specification_asks(tmp_path: Path, alg: str) -> None:
    """A2A §8.4.2: `alg`, `kid` and `typ` are there, `jku` may be."""
    (key,) = keys(tmp_path, alg)
    document = signed(key)
    assert only(document, key) == Verdict(kid=key.kid, alg=alg)
    assert protected_header(document["signatures"][0]) == {"alg": alg, "kid": key.kid, "typ": "JOSE"}
    made = sign(CARD, key, jku="https://a.example/keys")
    assert json.loads(urlsafe_b64decode(made.protected + "=="))["jku"] == "https://a.example/keys"


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_order_spacing_escapes_and_number_forms_do_not_matter(tmp_path: Path, alg: str) -> None:
    (key,) = keys(tmp_path, alg)
    document = signed(key)
    turned = dict(reversed(json.loads(json.dumps(document, ensure_ascii=True)).items()))
    turned["capabilities"]["extensions"][0]["params"] |= {"n": 1.0, "half": 5e-1}
    assert only(turned, key).is_valid


def test_the_rfc_7515_es256_example_verifies() -> None:
    """RFC 7515, appendix A.3: header, payload and signature of somebody else."""
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    (key,) = read_key_set(json.dumps(jwk).encode())
    payload = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
    message = f"eyJhbGciOiJFUzI1NiJ9.{encoded(payload)}".encode()
    signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    assert key.has_signed(message, urlsafe_b64decode(signature + "=="))


# Hostile vectors (reliability T26)

Craft = Callable[[Key], dict[str, Any]]


def _header(key: Key, **changed: Any) -> dict[str, Any]:
    header = {"alg": key.alg, "kid": key.kid, "typ": "JOSE"} | changed
    return {name: value for name, value in header.items() if value is not ...}


def _hmac(key: Key) -> dict[str, Any]:
    """HS256 whose secret is the public key, for verifiers that let the header choose."""
    protected = encoded(_header(key, alg="HS256"))
    secret = json.dumps(key.public()).encode()
    made = hmac.digest(secret, f"{protected}.{encoded(canonical(CARD))}".encode(), "sha256")
    return with_signature({"protected": protected, "signature": encoded(made)})


def _signature(key: Key, **changed: Any) -> dict[str, Any]:
    good = signed(key)["signatures"][0]
    return with_signature({name: value for name, value in (good | changed).items() if value is not ...})


HOSTILE: dict[str, tuple[Craft, str]] = {
    "alg none": (lambda key: crafted(key, _header(key, alg="none")), "its algorithm is not one of"),
    "alg none, no signature": (
        lambda key: with_signature({"protected": encoded(_header(key, alg="none")), "signature": ""}),
        "its algorithm is not one of",
    ),
    "alg None": (lambda key: crafted(key, _header(key, alg=None)), "its algorithm is not one of"),
    "alg missing": (lambda key: crafted(key, _header(key, alg=...)), "its algorithm is not one of"),
    "alg a list": (lambda key: crafted(key, _header(key, alg=[key.alg])), "its algorithm is not one of"),
    "alg in lower case": (lambda key: crafted(key, _header(key, alg=key.alg.lower())), "its algorithm is not one of"),
    "alg RS256": (lambda key: crafted(key, _header(key, alg="RS256")), "its algorithm is not one of"),
    "HS256 with the public key": (_hmac, "its algorithm is not one of"),
    "the other algorithm": (
        lambda key: crafted(key, _header(key, alg=EDDSA if key.alg == ES256 else ES256)),
        "another algorithm",
    ),
    "kid missing": (lambda key: crafted(key, _header(key, kid=...)), "no key"),
    "kid null": (lambda key: crafted(key, _header(key, kid=None)), "no key"),
    "kid a number": (lambda key: crafted(key, _header(key, kid=5)), "no key"),
    "kid a list": (lambda key: crafted(key, _header(key, kid=[key.kid])), "no key"),
    "kid empty": (lambda key: crafted(key, _header(key, kid="")), "no key"),
    "kid unknown": (lambda key: crafted(key, _header(key, kid="x")), "its key is not trusted"),
    "kid a path": (lambda key: crafted(key, _header(key, kid="../../dev/null")), "its key is not trusted"),
    "its own key in the header": (
        lambda key: crafted(key, _header(key, kid="x", jwk=key.public())),
        "its key is not trusted",
    ),
    "crit": (lambda key: crafted(key, _header(key, crit=["exp"], exp=1)), "crit"),
    "crit empty": (lambda key: crafted(key, _header(key, crit=[])), "crit"),
    "crit b64": (lambda key: crafted(key, _header(key, crit=["b64"], b64=False)), "crit"),
    "crit unprotected": (lambda key: _signature(key, header={"crit": ["x"]}), "crit"),
    "header null": (lambda key: _signature(key, protected=encoded(b"null")), "protected header"),
    "header a list": (lambda key: _signature(key, protected=encoded([])), "protected header"),
    "header no JSON": (lambda key: _signature(key, protected=encoded(b"{")), "protected header"),
    "header no UTF-8": (lambda key: _signature(key, protected=encoded(b"\xff")), "protected header"),
    "header nested": (lambda key: _signature(key, protected=encoded(b'{"a":' * 50_000)), "protected header"),
    "header with alg twice": (
        lambda key: crafted(key, encoded(b'{"alg":"none","alg":"ES256","kid":"k"}')),
        "twice",
    ),
    "header padded": (lambda key: _signature(key, protected=encoded(_header(key)) + "="), "base64url"),
    "header in the standard alphabet": (lambda key: _signature(key, protected="a+/b"), "base64url"),
    "header with spaces": (lambda key: _signature(key, protected=" " + encoded(_header(key))), "base64url"),
    "protected empty": (lambda key: _signature(key, protected=""), "base64url"),
    "protected missing": (lambda key: _signature(key, protected=...), "base64url"),
    "protected a number": (lambda key: _signature(key, protected=5), "base64url"),
    "protected an object": (lambda key: _signature(key, protected=_header(key)), "base64url"),
    "unprotected a text": (lambda key: _signature(key, header="x"), "unprotected"),
    "unprotected repeats alg": (lambda key: _signature(key, header={"alg": "none"}), "share"),
    "signature missing": (lambda key: _signature(key, signature=...), "base64url"),
    "signature null": (lambda key: _signature(key, signature=None), "base64url"),
    "signature empty": (lambda key: _signature(key, signature=""), "base64url"),
    "signature of one character": (lambda key: _signature(key, signature="A"), "base64url"),
    "signature of zeros": (lambda key: _signature(key, signature=encoded(bytes(64))), "not made by this key"),
    "signature too short": (lambda key: _signature(key, signature=encoded(b"x")), "not made by this key"),
    "signature in DER": (lambda key: _signature(key, signature=encoded(b"0E\x02!" + bytes(67))), "not made by"),
    "signature astral": (lambda key: _signature(key, signature="\U0001f600"), "base64url"),
    "null": (lambda key: with_signature(None), "not an object"),
    "a text": (lambda key: with_signature("x"), "not an object"),
    "a list": (lambda key: with_signature([]), "not an object"),
    "of another card": (lambda key: signed(key) | {"name": "Other"}, "not made by this key"),
    "with a field more": (lambda key: signed(key) | {"iconUrl": "https://a.example/i"}, "not made by this key"),
    "with a field less": (
        lambda key: {name: value for name, value in signed(key).items() if name != "description"},
        "not made by this key",
    ),
    "null for a field": (lambda key: signed(key) | {"skills": None}, "not made by this key"),
    "text for a number": (lambda key: signed(key) | {"version": 1.0}, "not made by this key"),
    "a composed character": (lambda key: signed(key, name="\u00e9") | {"name": "e\u0301"}, "not made by this key"),
    "a lone surrogate": (lambda key: signed(key) | {"name": "\ud800"}, "not made by this key"),
    "a number beyond a double": (lambda key: signed(key) | {"x": 2**60}, "not made by this key"),
    "endless nesting": (lambda key: signed(key) | {"x": _deep()}, "not made by this key"),
}


def _deep() -> Any:
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("name", HOSTILE)
def test_garbage_and_attacks_are_not_valid_and_say_why(tmp_path: Path, alg: str, name: str) -> None:
    craft, why = HOSTILE[name]
    (key,) = keys(tmp_path, alg)
    verdict = only(craft(key), key)
    assert not verdict.is_valid
    assert why in verdict.problem


@pytest.mark.parametrize("value", [None, 5, "x", {}, {"protected": "x"}, []])
def test_a_card_whose_signatures_are_no_list_bears_none(tmp_path: Path, value: Any) -> None:
    assert verify(CARD | {"signatures": value}, keys(tmp_path)) == []
    assert verify(CARD, keys(tmp_path)) == []


def test_only_so_many_signatures_are_looked_at(tmp_path: Path) -> None:
    assert len(verify(CARD | {"signatures": [None] * 10_000}, keys(tmp_path))) == 32


def test_a_foreign_jku_changes_nothing(tmp_path: Path) -> None:
    """The signer says where a key is; the verifier decides whether to trust it."""
    (mine, theirs) = keys(tmp_path, ES256, ES256)
    document = crafted(theirs, _header(theirs, jku="https://evil.example/keys"))
    assert not only(document, mine).is_valid
    assert only(document, theirs).is_valid


def test_an_unprotected_header_that_says_nothing_new_is_ignored(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, EDDSA)
    for header in (None, {}, {"note": "x", "jwk": {}}):
        assert only(_signature(key, header=header), key).is_valid


# Rotation


def test_each_key_signs_the_newest_first_and_either_is_enough(tmp_path: Path) -> None:
    new, old = keys(tmp_path, EDDSA, ES256)
    own = card()
    document = to_document(replace(own, signatures=signatures(own, (new, old))))
    by_key = [new.kid, old.kid]
    assert [protected_header(each)["kid"] for each in document["signatures"]] == [*by_key, *by_key]
    for trusted in (new, old):
        valid = [verdict.kid for verdict in verify(document, [trusted]) if verdict.is_valid]
        assert valid == [trusted.kid, trusted.kid]


def test_one_signature_of_each_key_is_enough_where_nothing_is_empty(tmp_path: Path) -> None:
    new, old = keys(tmp_path, EDDSA, ES256)
    own = card(securitySchemes={}, securityRequirements=[], skills=[SKILL], capabilities={"streaming": True})
    assert len(signatures(own, (new, old))) == 2


def test_a_retired_key_vouches_for_nothing(tmp_path: Path) -> None:
    new, old = keys(tmp_path, ES256, ES256)
    assert not only(signed(old), new).is_valid


# What a signature is over

SKILL = {"id": "a", "name": "A", "description": "d", "tags": ["t"]}


def test_a_hybrid_verifies_as_it_came_and_without_its_v0_3_fields(tmp_path: Path) -> None:
    (key,) = keys(tmp_path, ES256)
    own = card()
    hybrid = as_v0_3(own)
    over_all, over_v1 = sign(hybrid, key), sign(to_document(own), key)
    both = hybrid | {"signatures": [to_wire(over_all), to_wire(over_v1)]}
    first, second = verify(both, [key])
    assert (first.is_valid, first.uncovered) == (True, ())
    assert second.is_valid
    assert set(second.uncovered) == {
        *("url", "protocolVersion", "preferredTransport"),
        *("securitySchemes.bearer.type", "securitySchemes.tls.type"),
    }
    moved = both | {"url": "https://evil.example"}
    first, second = verify(moved, [key])
    assert not first.is_valid
    assert "url" in second.uncovered, "it holds, and does not vouch for that field"


def test_fields_that_say_nothing_may_be_written_out(tmp_path: Path) -> None:
    """A2A §8.4.3: properties with default values are removed before verifying."""
    (key,) = keys(tmp_path, ES256)
    own = card()
    document = to_document(own) | {"signatures": [to_wire(sign(to_document(own), key))], "provider": None}
    document["capabilities"] |= {"extensions": [document["capabilities"]["extensions"][0] | {"required": False}]}
    assert only(document, key) == Verdict(kid=key.kid, alg=ES256)


def test_what_is_left_out_as_empty_is_not_covered(tmp_path: Path) -> None:
    """The SDKs' reading: a requirement without scopes is nothing to them, so it is not signed."""
    (key,) = keys(tmp_path, ES256)
    own = card()
    _, bare = signatures(own, [key])
    verdict = only(to_document(own) | {"signatures": [to_wire(bare)]}, key)
    assert verdict.is_valid
    assert {"securityRequirements", "securitySchemes.tls"} <= set(verdict.uncovered)


def to_wire(signature: Any) -> dict[str, Any]:
    return {"protected": signature.protected, "signature": signature.signature}


# The official SDK


def official_verifier(*trusted: Key) -> Callable[[OfficialCard], None]:
    known = {key.kid: PyJWK(key.public()) for key in trusted}
    return create_signature_verifier(lambda kid, jku: known[str(kid)], list(ALGORITHMS))


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("fields", [{}, {"skills": [SKILL], "securitySchemes": {}, "securityRequirements": []}])
@pytest.mark.parametrize("is_hybrid", [False, True])
def test_the_official_sdk_verifies_what_we_sign(
    tmp_path: Path, alg: str, fields: dict[str, Any], is_hybrid: bool
) -> None:
    (key,) = keys(tmp_path, alg)
    own = card(**fields)
    document = to_document(replace(own, signatures=signatures(own, [key])))
    if is_hybrid:
        document = as_v0_3(own) | {"signatures": document["signatures"]}
    official_verifier(key)(ParseDict(document, OfficialCard(), ignore_unknown_fields=True))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_we_verify_what_the_official_sdk_signs(tmp_path: Path, alg: str) -> None:
    file = key_file(tmp_path, alg)
    jwk = json.loads(Path(file).read_text())
    public = {name: value for name, value in jwk.items() if name != "d"}
    header = ProtectedHeader(kid=jwk["kid"], alg=alg, jku=None, typ="JOSE")
    official = create_agent_card_signer(PyJWK(jwk), header)(ParseDict(CARD, OfficialCard()))
    assert only(MessageToDict(official), *read_key_set(json.dumps({"keys": [public]}).encode())).is_valid


# Any card

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NUMBER = st.integers(1 - 2**53, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(st.none() | st.booleans() | NUMBER | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
PARAMS = st.dictionaries(TEXT, JSON | st.dictionaries(TEXT, JSON, max_size=3), max_size=4)


@pytest.fixture(scope="module")
def signers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, ...]:
    return keys(tmp_path_factory.mktemp("keys"))


@given(name=TEXT, description=TEXT, params=PARAMS, other=JSON, where=st.data())
def test_any_card_s_signature_holds_until_a_covered_field_changes(
    signers: tuple[Key, ...], name: str, description: str, params: dict[str, Any], other: Any, where: st.DataObject
) -> None:
    for key in signers:
        document = signed(key, name=name, description=description, x=params)
        again = json.loads(json.dumps(document))
        assert only(again, key).is_valid
        field = where.draw(st.sampled_from([field for field in document if field != "signatures"]))
        changed = again | {field: other}
        if canonical({"v": changed[field]}) != canonical({"v": document[field]}):
            verdict = only(changed, key)
            assert not verdict.is_valid


HEADERS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("typ", "jku", "crit", "x5u", "b64", "zip"), JSON | TEXT) | {"alg": TEXT, "kid": TEXT},
)


@given(
    fields=st.dictionaries(TEXT, JSON), signature=JSON, header=JSON | HEADERS, made=st.binary() | TEXT, data=st.data()
)
def test_nothing_that_is_verified_raises(
    signers: tuple[Key, ...],
    fields: dict[str, Any],
    signature: Any,
    header: Any,
    made: bytes | str,
    data: st.DataObject,
) -> None:
    if isinstance(header, dict) and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(signers))
        header |= {"alg": key.alg, "kid": key.kid}
    crafted = {"protected": encoded(header), "signature": encoded(made) if isinstance(made, bytes) else made}
    document = CARD | fields | {"signatures": [signature, crafted, crafted | {"header": signature}]}
    assert not any(verdict.is_valid for verdict in verify(document, signers))
