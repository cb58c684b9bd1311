"""Tests of a2a_server.push.signature: what the library of Standard Webhooks, which receivers use, accepts."""

import json
import time
from base64 import b64encode

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from a2a_server.push.signature import FEWEST_BYTES, MOST_BYTES, PREFIX, secret_bytes, signature, signature_headers

SECRET = PREFIX + b64encode(b"k" * 32).decode()
OTHER_SECRET = PREFIX + b64encode(b"l" * 32).decode()
BODY = '{"a":1,"text":"é"}'.encode()


def test_the_receivers_library_verifies_a_delivery_and_refuses_a_changed_one() -> None:
    now = int(time.time())
    headers = dict(signature_headers(SECRET, "c_1_0", now, BODY))
    receiver = Webhook(SECRET)

    assert receiver.verify(BODY, headers) == json.loads(BODY)
    for body, changed in (
        (BODY.replace(b"1", b"2"), {}),
        (BODY, {"webhook-id": "c_1_1"}),
        (BODY, {"webhook-timestamp": str(now + 1)}),
        (BODY, {"webhook-signature": signature(OTHER_SECRET, "c_1_0", now, BODY)}),
    ):
        with pytest.raises(WebhookVerificationError):
            receiver.verify(body, headers | changed)


def test_without_a_secret_a_delivery_has_its_id_and_time_only() -> None:
    assert signature_headers(None, "c_1_0", 5, BODY) == {"webhook-id": "c_1_0", "webhook-timestamp": "5"}


@pytest.mark.parametrize("size", [FEWEST_BYTES, MOST_BYTES])
def test_a_secret_of_a_legal_size_is_read(size: int) -> None:
    assert secret_bytes(PREFIX + b64encode(b"s" * size).decode()) == b"s" * size


@pytest.mark.parametrize(
    "secret",
    [
        "",
        PREFIX,
        b64encode(b"k" * 32).decode(),
        f"{PREFIX}not base64!",
        PREFIX + b64encode(b"k" * (FEWEST_BYTES - 1)).decode(),
        PREFIX + b64encode(b"k" * (MOST_BYTES + 1)).decode(),
    ],
)
def test_any_other_secret_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^must be whsec_ and 24 to 64 bytes in base64$"):
        secret_bytes(secret)
