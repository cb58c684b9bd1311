"""What a request's headers prove; and that everything that proves nothing looks the same."""

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.datastructures import Headers

from a2a_server.auth.apikeys import ApiKeys
from a2a_server.auth.authenticator import CHALLENGE, INVALID_TOKEN, Authenticator, make_authenticator
from a2a_server.auth.jwks import FRESH, PublicKeys
from a2a_server.auth.jwt import JwtVerifier
from a2a_server.auth.principal import NOBODY
from a2a_server.auth.stored_keys import Grant
from a2a_server.protocol.errors import Overloaded, Unauthenticated
from core.model.errors import ConfigurationError, StorageUnavailable
from core.outside.egress import EgressPolicy
from core.storage.base import Document
from core.storage.memory import MemoryStorage
from tests.a2a_server.auth.clocks import SetClock
from tests.a2a_server.auth.tokens import RSA, SETTINGS, claims, jwks, token


async def read() -> bytes:
    return jwks(RSA)


async def make(*kinds: str) -> tuple[Authenticator, str]:
    storage = MemoryStorage()
    await storage.open()
    keys = ApiKeys(storage, SetClock())
    _, text = await keys.create(Grant(principal="bob"))
    tokens = JwtVerifier(SETTINGS, PublicKeys(read, lambda: 0.0), SetClock())
    authenticator = Authenticator(keys=keys if "keys" in kinds else None, tokens=tokens if "jwt" in kinds else None)
    return authenticator, text


def headers(*given: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.lower().encode(), value.encode("latin-1")) for name, value in given])


async def refusal(authenticator: Authenticator, *given: tuple[str, str]) -> Any:
    with pytest.raises(Unauthenticated) as refused:
        await authenticator.principal(headers(*given), "192.0.2.1")
    return refused.value.headers["WWW-Authenticate"]


@pytest.mark.asyncio
async def test_a_key_comes_as_bearer_or_in_its_own_header() -> None:
    authenticator, key = await make("keys")
    for given in (("Authorization", f"Bearer {key}"), ("authorization", f"bearer  {key}"), ("X-API-Key", key)):
        assert (await authenticator.principal(headers(given), "")).id == "bob"


@pytest.mark.asyncio
async def test_keys_and_tokens_are_taken_side_by_side() -> None:
    authenticator, key = await make("keys", "jwt")
    for credential, name in ((key, "bob"), (token(), "ann")):
        assert (await authenticator.principal(headers(("Authorization", f"Bearer {credential}")), "")).id == name


@pytest.mark.asyncio
async def test_without_authentication_everybody_is_nobody() -> None:
    authenticator, key = await make()
    assert await authenticator.principal(headers(), "") is NOBODY
    assert await authenticator.principal(headers(("X-API-Key", key)), "") is NOBODY


@pytest.mark.asyncio
async def test_who_shows_nothing_is_told_how_and_no_error() -> None:
    """RFC 6750 §3: no error code for a request without a credential."""
    for kinds in (("keys",), ("jwt",), ("keys", "jwt")):
        authenticator, _ = await make(*kinds)
        assert await refusal(authenticator) == CHALLENGE


@pytest.mark.asyncio
async def test_whatever_proves_nothing_gets_the_same_answer() -> None:
    authenticator, key = await make("keys", "jwt")
    bad = (
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Basic {key}")],
        [("Authorization", key)],
        [("Authorization", f"Bearer {key[:-1]}x")],
        [("Authorization", f"Bearer {key} {key}")],
        [("Authorization", f"Bearer {token(claims(exp=1))}")],
        [("Authorization", f"Bearer {token()}x")],
        [("X-API-Key", "")],
        [("X-API-Key", "\xe9")],
        [("X-API-Key", token())],
        [("X-API-Key", key), ("X-API-Key", key)],
        [("Authorization", f"Bearer {key}"), ("X-API-Key", key)],
        [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")],
    )
    assert {await refusal(authenticator, *given) for given in bad} == {INVALID_TOKEN}


@pytest.mark.asyncio
async def test_a_kind_that_is_not_configured_is_not_taken() -> None:
    only_keys, key = await make("keys")
    assert await refusal(only_keys, ("Authorization", f"Bearer {token()}")) == INVALID_TOKEN
    only_tokens, key = await make("jwt")
    assert await refusal(only_tokens, ("X-API-Key", key)) == INVALID_TOKEN


@pytest.mark.asyncio
async def test_refused_credentials_are_in_the_log_without_themselves(caplog: pytest.LogCaptureFixture) -> None:
    authenticator, key = await make("keys", "jwt")
    forged = key[:-4] + "\r\nx"
    with caplog.at_level(logging.WARNING):
        for credential in (forged, token() + "x", "secret\r\n2026 INFO all is well"):
            await refusal(authenticator, ("Authorization", f"Bearer {credential}"))

    assert len(caplog.records) == 3
    assert all("rejected a credential from 192.0.2.1" in record.getMessage() for record in caplog.records)
    assert not any(text in caplog.text for text in (key[-40:-4], token()[-40:], "all is well"))


class Broken(MemoryStorage):
    """Cannot be read."""

    async def document(self, kind: str, document_id: str) -> Document | None:
        raise StorageUnavailable("the disk is gone")


@pytest.mark.asyncio
async def test_a_storage_that_cannot_be_read_is_no_fault_of_the_caller() -> None:
    authenticator = Authenticator(keys=ApiKeys(Broken(), SetClock()))
    with pytest.raises(Overloaded):
        await authenticator.principal(headers(("X-API-Key", f"a2a_{'0' * 16}_{'0' * 64}")), "")


@pytest.mark.asyncio
async def test_closing_ends_what_goes_on_beside_requests() -> None:
    """A reading of keys that went on would hold the loop of a server that has ended."""
    time, hangs = [0.0], asyncio.Event()

    async def slow() -> bytes:
        if time[0]:
            hangs.set()
            await asyncio.Event().wait()
        return jwks(RSA)

    authenticator = Authenticator(tokens=JwtVerifier(SETTINGS, PublicKeys(slow, lambda: time[0]), SetClock()))
    before = asyncio.all_tasks()
    for time[0] in (0.0, FRESH + 1):
        await authenticator.principal(headers(("Authorization", f"Bearer {token()}")), "")
    await hangs.wait()
    assert len(asyncio.all_tasks() - before) == 1

    await authenticator.close()
    await authenticator.close()

    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_without_tokens_there_is_nothing_to_close() -> None:
    for kinds in ((), ("keys",)):
        authenticator, key = await make(*kinds)
        await authenticator.close()
        if kinds:
            assert (await authenticator.principal(headers(("X-API-Key", key)), "")).id == "bob"


@pytest.mark.asyncio
@pytest.mark.parametrize("kinds", [(), ("keys",), ("jwt",), ("keys", "jwt")])
async def test_what_is_taken_is_what_the_settings_say(kinds: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(RSA))
    storage = MemoryStorage()
    await storage.open()
    keys = ApiKeys(storage, SetClock())
    _, key = await keys.create(Grant(principal="bob"))
    settings = msgspec.structs.replace(SETTINGS, auth=kinds, jwt_keys=str(tmp_path / "keys.json"))

    authenticator = make_authenticator(settings, keys, EgressPolicy(), SetClock())

    for kind, credential, who in (("keys", key, "bob"), ("jwt", token(claims()), "ann")):
        given = headers(("Authorization", f"Bearer {credential}"))
        if not kinds:
            assert await authenticator.principal(given, "") is NOBODY
        elif kind in kinds:
            assert (await authenticator.principal(given, "")).id == who
        else:
            with pytest.raises(Unauthenticated):
                await authenticator.principal(given, "")
    await authenticator.close()


def test_an_issuers_file_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, auth=("jwt",), jwt_keys=str(tmp_path / "none.json"))
    with pytest.raises(ConfigurationError, match=r"none\.json cannot be used"):
        make_authenticator(settings, ApiKeys(MemoryStorage(), SetClock()), EgressPolicy(), SetClock())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kinds", "given", "reason"),
    [
        (("keys",), [("Authorization", "Bearer x.y.z")], "it does not look like a key"),
        (("jwt",), [("Authorization", "Bearer a2a_x")], "API keys are not accepted here"),
        (("keys", "jwt"), [("X-API-Key", "x")], "it does not look like a key"),
        (("keys", "jwt"), [("Authorization", "Basic x")], "the scheme is not Bearer"),
        (("keys", "jwt"), [("Authorization", "Bearer x"), ("X-API-Key", "x")], "more than one was sent"),
    ],
)
async def test_the_log_says_whose_credential_was_refused_and_why(
    kinds: tuple[str, ...], given: list[tuple[str, str]], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    authenticator, _ = await make(*kinds)
    await refusal(authenticator, *given)
    assert caplog.messages == [f"rejected a credential from 192.0.2.1: {reason}"]


def test_the_issuers_keys_are_fetched_in_small_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the operator's own rules about where calls may go."""
    made: list[EgressPolicy] = []
    monkeypatch.setattr("a2a_server.auth.authenticator.Egress", made.append)
    policy = EgressPolicy(max_bytes=1 << 30, timeout=1000.0)
    make_authenticator(SETTINGS, ApiKeys(MemoryStorage(), SetClock()), policy, SetClock())
    assert made == [dataclasses.replace(policy, max_bytes=256 * 1024, timeout=10.0)]
