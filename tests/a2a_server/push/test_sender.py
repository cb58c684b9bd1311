"""One attempt (`a2a_server.push.sender`), and its signature as a receiver checks it."""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from cryptography.fernet import Fernet
from msgspec.structs import replace

from a2a_server.push.configs import PushConfig, SecretBox, Secrets
from a2a_server.push.sender import Failed, Sender
from a2a_server.push.signature import signature
from core.outside.egress import DestinationNotAllowed, Outgoing
from core.outside.fetched import EgressError, Incoming

SECRET = "whsec_" + b64encode(b"k" * 32).decode()
CONFIG = PushConfig(id="c", task_id="t", tree_id="t", owner="o", url="https://example.com/hook", created_at=1.0)


class FakeEgress:
    """Answers as the test wants it, and keeps what was asked."""

    def __init__(self, status: int = 200, error: Exception | None = None, **headers: str) -> None:
        self.status = status
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.calls: list[Outgoing] = []

    async def fetch(self, call: Outgoing) -> Incoming:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return Incoming(status_code=self.status, headers=self.headers, body=b"", url=call.url, elapsed=0.0)


class StillClock:
    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_700_000_000.9

    def new_id(self) -> str:
        return "n"

    def chance(self) -> float:
        return 0.0


def sender(egress: FakeEgress, *, box: SecretBox | None = None, secret: str | None = None) -> Sender:
    return Sender(egress, box or SecretBox(()), StillClock(), timeout=10.0, secret=secret)  # type: ignore[arg-type]


def sealed(box: SecretBox, **given: Any) -> PushConfig:
    scheme = given.pop("scheme", "")
    return replace(CONFIG, scheme=scheme, sealed=box.seal(Secrets(**given)), is_encrypted=box.encrypts)


async def headers_of(config: PushConfig, box: SecretBox | None = None, secret: str | None = None) -> Mapping[str, str]:
    egress = FakeEgress()
    assert await sender(egress, box=box, secret=secret).send(config, "c/1.0", b'{"a":1}') is None
    return egress.calls[0].headers


@pytest.mark.asyncio
async def test_an_attempt_is_one_post_without_redirects_that_reads_no_answer() -> None:
    egress = FakeEgress(204)

    assert await sender(egress).send(CONFIG, "c/1.0", b"{}") is None

    (call,) = egress.calls
    assert (call.method, call.url, call.body) == ("POST", CONFIG.url, b"{}")
    assert (call.follow_redirects, call.reads_body, call.timeout) == (False, False, 10.0)


@pytest.mark.asyncio
async def test_the_scheme_and_the_token_are_sent_as_they_were_given() -> None:
    box = SecretBox(())
    headers = await headers_of(sealed(box, scheme="Bearer", credentials="abc", token="tok"), box)

    assert headers["Authorization"] == "Bearer abc"
    assert headers["X-A2A-Notification-Token"] == "tok"
    assert headers["Content-Type"] == "application/a2a+json"
    assert headers["A2A-Version"] == "1.0"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("c/1.0", "1700000000")
    assert "webhook-signature" not in headers


@pytest.mark.parametrize(("version", "told"), [("0.3", "0.3"), ("tasks", None)])
@pytest.mark.asyncio
async def test_other_versions_are_plain_json(version: str, told: str | None) -> None:
    headers = await headers_of(replace(CONFIG, wire_version=version))

    assert headers["Content-Type"] == "application/json"
    assert headers.get("A2A-Version") == told


@pytest.mark.asyncio
async def test_a_receiver_can_check_the_signature_and_every_changed_byte_breaks_it() -> None:
    """As Standard Webhooks says it: HMAC-SHA256 over id, timestamp and body."""
    box = SecretBox(())
    config = sealed(box, scheme="HMAC", credentials=SECRET)
    headers = await headers_of(config, box)

    def accepts(message_id: str, timestamp: str, body: bytes) -> bool:
        key = b64decode(SECRET.removeprefix("whsec_"))
        expected = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, sha256)
        version, _, given = headers["webhook-signature"].partition(",")
        return version == "v1" and hmac.compare_digest(expected, b64decode(given))

    body = b'{"a":1}'
    assert accepts(headers["webhook-id"], headers["webhook-timestamp"], body)
    assert not any(accepts("c/1.0", "1700000000", body[:n] + b"~" + body[n + 1 :]) for n in range(len(body)))
    assert not accepts("c/1.1", "1700000000", body)
    assert not accepts("c/1.0", "1700000001", body)
    assert "Authorization" not in headers and SECRET not in str(headers)


@pytest.mark.asyncio
async def test_the_servers_own_secret_signs_for_those_without_one() -> None:
    headers = await headers_of(CONFIG, secret=SECRET)

    assert headers["webhook-signature"] == signature(SECRET, "c/1.0", 1_700_000_000, b'{"a":1}')


@pytest.mark.parametrize(
    ("egress", "failed"),
    [
        (FakeEgress(500), Failed(error="the receiver answered with status 500")),
        (FakeEgress(302), Failed(error="the receiver answered with status 302")),
        (FakeEgress(410), Failed(error="the receiver answered with status 410", is_gone=True)),
        (FakeEgress(429, retry_after="7"), Failed(error="the receiver answered with status 429", retry_after=7.0)),
        (
            FakeEgress(503, retry_after="9" * 30),
            Failed(error="the receiver answered with status 503", retry_after=3600.0),
        ),
        (FakeEgress(503, retry_after="Fri, 31 Dec 1999"), Failed(error="the receiver answered with status 503")),
        (FakeEgress(error=DestinationNotAllowed()), Failed(error="destination not allowed", is_final=True)),
        (FakeEgress(error=EgressError("could not connect")), Failed(error="could not connect")),
    ],
)
@pytest.mark.asyncio
async def test_outcomes(egress: FakeEgress, failed: Failed) -> None:
    assert await sender(egress).send(CONFIG, "c/1.0", b"{}") == failed


@pytest.mark.asyncio
async def test_sealed_secrets_are_read_with_any_key_and_nothing_is_sent_without_one() -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    config = sealed(SecretBox((old,)), scheme="Bearer", credentials="abc")
    assert "abc" not in config.sealed

    assert (await headers_of(config, SecretBox((new, old))))["Authorization"] == "Bearer abc"

    for box in (SecretBox((new,)), SecretBox(())):
        egress = FakeEgress()
        failed = await sender(egress, box=box).send(config, "c/1.0", b"{}")
        assert failed is not None and "secret_keys" in failed.error
        assert egress.calls == []
