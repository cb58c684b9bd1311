"""An issuer's public keys: which are taken, when they are read again, and from where."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from msgspec.structs import replace

from a2a_server.auth.jwks import BETWEEN, FRESH, MOST_KEYS, STALE, PublicKeys, make_public_keys, parse_keys
from a2a_server.protocol.errors import Overloaded
from core.model.errors import ConfigurationError
from core.outside.egress import DestinationNotAllowed, Egress, EgressPolicy, Outgoing
from core.outside.fetched import EgressError, Incoming
from tests.a2a_server.auth.tokens import EC, ED, ISSUER, RSA, SETTINGS, jwks


class Issuer:
    """An issuer whose keys, moods and time a test sets."""

    def __init__(self) -> None:
        self.keys = jwks(RSA)
        self.error: Exception | None = None
        self.reads = 0
        self.time = 0.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def read(self) -> bytes:
        self.reads += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return self.keys

    def public_keys(self) -> PublicKeys:
        return PublicKeys(self.read, lambda: self.time)


async def turns() -> None:
    """Let what goes on in the background come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_keys_are_read_once_for_all_who_wait() -> None:
    issuer = Issuer()
    keys = issuer.public_keys()

    found = await asyncio.gather(*(keys.find("rsa", "RS256") for _ in range(50)))

    assert issuer.reads == 1
    assert all(key is not None and key.kid == "rsa" for key in found)


@pytest.mark.asyncio
async def test_a_waiting_request_that_goes_away_does_not_take_the_keys_with_it() -> None:
    issuer = Issuer()
    issuer.may_answer.clear()
    keys = issuer.public_keys()
    gone, stays = (asyncio.create_task(keys.find("rsa", "RS256")) for _ in range(2))
    await turns()

    gone.cancel()
    issuer.may_answer.set()

    assert await stays is not None
    assert issuer.reads == 1


@pytest.mark.asyncio
async def test_an_unknown_key_asks_the_issuer_at_most_once_a_minute() -> None:
    issuer = Issuer()
    keys = issuer.public_keys()
    await keys.find("rsa", "RS256")
    issuer.keys = jwks(RSA, EC)

    for _ in range(100):
        assert await keys.find("ec", "ES256") is None
    assert issuer.reads == 1
    issuer.time = BETWEEN
    assert await keys.find("ec", "ES256") is not None
    for _ in range(100):
        assert await keys.find("other", "ES256") is None
    assert issuer.reads == 2


@pytest.mark.asyncio
async def test_old_keys_are_used_while_they_are_read_again() -> None:
    issuer = Issuer()
    keys = issuer.public_keys()
    await keys.find("rsa", "RS256")
    issuer.time = FRESH + 1
    issuer.keys = jwks(EC)
    issuer.may_answer.clear()

    assert await keys.find("rsa", "RS256") is not None
    assert await keys.find("rsa", "RS256") is not None
    issuer.may_answer.set()
    await turns()

    assert issuer.reads == 2
    assert await keys.find("rsa", "RS256") is None
    assert await keys.find("ec", "ES256") is not None


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [EgressError("could not connect"), OSError("gone"), ValueError("no JWKS")])
async def test_an_issuer_that_does_not_answer_keeps_its_old_keys_for_a_day(error: Exception) -> None:
    issuer = Issuer()
    keys = issuer.public_keys()
    await keys.find("rsa", "RS256")
    issuer.error = error

    for issuer.time in (FRESH + 1, STALE):
        assert await keys.find("rsa", "RS256") is not None
        await turns()
    issuer.time = STALE + 1
    with pytest.raises(Overloaded):
        await keys.find("rsa", "RS256")


@pytest.mark.asyncio
async def test_without_any_keys_callers_are_refused_and_the_issuer_is_not_flooded() -> None:
    issuer = Issuer()
    issuer.error = EgressError("could not connect")
    keys = issuer.public_keys()

    for _ in range(20):
        with pytest.raises(Overloaded):
            await keys.find("rsa", "RS256")
    assert issuer.reads == 1
    issuer.error, issuer.time = None, 5.0
    assert await keys.find("rsa", "RS256") is not None


@pytest.mark.asyncio
async def test_closing_stops_what_is_being_read() -> None:
    issuer = Issuer()
    keys = issuer.public_keys()
    await keys.find("rsa", "RS256")
    issuer.time = FRESH + 1
    issuer.may_answer.clear()
    before = asyncio.all_tasks()
    await keys.find("rsa", "RS256")
    await turns()
    assert issuer.reads == 2 and len(asyncio.all_tasks() - before) == 1

    await keys.close()
    await keys.close()

    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_a_token_without_a_key_id_has_the_only_key_there_is() -> None:
    issuer = Issuer()
    issuer.keys = jwks(EC, RSAKey.generate_key(2048, {"kid": "a"}), RSAKey.generate_key(2048, {"kid": "b"}))
    keys = issuer.public_keys()

    assert await keys.find(None, "ES256") is not None
    assert await keys.find(None, "RS256") is None
    assert await keys.find("a", "RS256") is not None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kid", "algorithm"),
    [
        ("rsa", "ES256"),
        ("ec", "RS256"),
        ("ec", "ES384"),
        ("ed", "ES256"),
        ("ec", "EdDSA"),
        ("ec", "Ed25519"),
        ("rsa", "Ed25519"),
    ],
)
async def test_a_key_is_for_its_own_kind_of_algorithm(kid: str, algorithm: str) -> None:
    issuer = Issuer()
    issuer.keys = jwks(RSA, EC, ED)
    assert await issuer.public_keys().find(kid, algorithm) is None


@pytest.mark.asyncio
async def test_a_key_that_names_its_algorithm_is_for_no_other() -> None:
    issuer = Issuer()
    issuer.keys = json.dumps({"keys": [RSA.as_dict(private=False) | {"alg": "RS512"}]}).encode()
    keys = issuer.public_keys()
    assert await keys.find("rsa", "RS256") is None
    assert await keys.find("rsa", "RS512") is not None


GOOD = RSA.as_dict(private=False)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        json.dumps({"keys": [GOOD] * (MOST_KEYS + 1)}).encode(),
        *(
            json.dumps({"keys": [key]}).encode()
            for key in (
                1,
                {},
                {"kty": "RSA"},
                {"kty": ["RSA"]},
                GOOD | {"n": "é"},
                GOOD | {"n": 7},
                GOOD | {"use": "enc"},
                {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
                {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
                {"kty": "EC", "crv": "P-0", "x": "AA", "y": "AA"},
                OctKey.import_key("no key for signatures, 32 bytes..").as_dict(private=True),
            )
        ),
    ],
)
def test_what_is_no_usable_key_set_is_refused(given: bytes) -> None:
    with pytest.raises(ValueError):
        parse_keys(given)


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
def test_a_short_key_is_left_out() -> None:
    short = RSAKey.generate_key(1024, {"kid": "short"})
    assert [key.kid for key in parse_keys(jwks(short, RSA))] == ["rsa"]


def test_a_bad_key_does_not_hide_the_good_ones() -> None:
    listed = {"keys": [{"kty": "EC"}, GOOD, {"kty": "new"}, ECKey.generate_key("P-256").as_dict(private=False)]}
    assert [key.kid for key in parse_keys(json.dumps(listed).encode())[:1]] == ["rsa"]


def test_a_private_key_is_kept_as_the_public_one() -> None:
    (key,) = parse_keys(json.dumps({"keys": [EC.as_dict(private=True)]}).encode())
    assert not key.is_private


# Where they come from


class Web(Egress):
    """Answers from a table."""

    def __init__(self, pages: Mapping[str, Any], status: int = 200) -> None:
        super().__init__(EgressPolicy())
        self.pages = pages
        self.status = status
        self.asked: list[Outgoing] = []

    async def fetch(self, call: Outgoing) -> Incoming:
        self.asked.append(call)
        page = self.pages[call.url]
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        return Incoming(status_code=self.status, headers={}, body=body, url=call.url, elapsed=0.0)


DESCRIPTION = f"{ISSUER}/.well-known/openid-configuration"
JWKS = "https://keys.example/jwks"


@pytest.mark.asyncio
async def test_the_issuer_says_where_its_keys_are() -> None:
    web = Web({DESCRIPTION: {"issuer": ISSUER, "jwks_uri": JWKS}, JWKS: jwks(RSA)})

    assert await make_public_keys(SETTINGS, web).find("rsa", "RS256") is not None
    assert [call.url for call in web.asked] == [DESCRIPTION, JWKS]
    assert not any(call.follow_redirects for call in web.asked)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "description",
    [
        {"issuer": "https://other.example", "jwks_uri": JWKS},
        {"jwks_uri": JWKS},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": 1},
        {"issuer": ISSUER, "jwks_uri": "http://keys.example/jwks"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER, "jwks_uri": "https://[x"},
        [],
        b"<html>",
    ],
)
async def test_a_description_that_is_not_the_issuers_own_is_not_followed(description: Any) -> None:
    web = Web({DESCRIPTION: description, JWKS: jwks(RSA)})

    with pytest.raises(Overloaded):
        await make_public_keys(SETTINGS, web).find("rsa", "RS256")
    assert len(web.asked) == 1


@pytest.mark.asyncio
async def test_keys_at_an_address() -> None:
    settings = replace(SETTINGS, jwt_keys=JWKS)
    assert await make_public_keys(settings, Web({JWKS: jwks(RSA)})).find("rsa", "RS256") is not None
    with pytest.raises(Overloaded):
        await make_public_keys(settings, Web({JWKS: jwks(RSA)}, status=404)).find("rsa", "RS256")


@pytest.mark.asyncio
async def test_keys_are_fetched_through_the_one_guard() -> None:
    """A name that leads into the private network gets no connection."""

    async def private(host: str, port: int) -> list[str]:
        return ["169.254.169.254"]

    egress = Egress(EgressPolicy(), resolve=private)
    with pytest.raises(DestinationNotAllowed):
        await egress.fetch(Outgoing(url=JWKS))
    with pytest.raises(Overloaded):
        await make_public_keys(replace(SETTINGS, jwt_keys=JWKS), egress).find("rsa", "RS256")


@pytest.mark.asyncio
async def test_keys_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    settings = replace(SETTINGS, jwt_keys=str(file))
    web = Web({})
    with pytest.raises(ConfigurationError, match="jwt_keys"):
        make_public_keys(settings, web)
    file.write_bytes(b"{}")
    with pytest.raises(ConfigurationError, match="jwt_keys"):
        make_public_keys(settings, web)
    file.write_bytes(jwks(RSA))

    assert await make_public_keys(settings, web).find("rsa", "RS256") is not None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("pages", "reason"),
    [
        (
            {DESCRIPTION: {"issuer": "https://other.example", "jwks_uri": JWKS}},
            "the issuer's metadata names another issuer",
        ),
        ({DESCRIPTION: {"issuer": ISSUER}}, "the issuer's metadata has no jwks_uri"),
        ({DESCRIPTION: {"issuer": ISSUER, "jwks_uri": "http://keys.example/jwks"}}, "jwks_uri: must be"),
        ({DESCRIPTION: {"issuer": ISSUER, "jwks_uri": JWKS}, JWKS: b"{"}, "they are not JSON"),
        ({DESCRIPTION: {"issuer": ISSUER, "jwks_uri": JWKS}, JWKS: b"{}"}, "they are not a JWKS with at most 100 keys"),
        ({DESCRIPTION: {"issuer": ISSUER, "jwks_uri": JWKS}, JWKS: b'{"keys": [1]}'}, "none of them can verify"),
    ],
)
async def test_the_log_says_why_there_are_no_keys(
    pages: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Overloaded):
        await make_public_keys(SETTINGS, Web(pages)).find("rsa", "RS256")
    (message,) = [text for text in caplog.messages if "cannot read" in text]
    assert message.startswith(f"cannot read the public keys of the token issuer: {reason}")


@pytest.mark.asyncio
async def test_an_answer_that_is_no_success_is_told_with_its_address(caplog: pytest.LogCaptureFixture) -> None:
    web = Web({JWKS: jwks(RSA)}, status=404)
    with pytest.raises(Overloaded):
        await make_public_keys(replace(SETTINGS, jwt_keys=JWKS), web).find("rsa", "RS256")
    assert f"{JWKS} answered with status 404" in caplog.text
    assert web.asked[0].headers == {"Accept": "application/json"}


def test_what_a_key_says_it_may_be_used_for_otherwise_is_no_obstacle() -> None:
    """Issuers list the operations of their private keys too."""
    (key,) = parse_keys(json.dumps({"keys": [GOOD | {"key_ops": ["sign"]}]}).encode())
    assert key.kid == "rsa"
