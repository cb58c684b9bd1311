"""Signatures as Standard Webhooks has them (standardwebhooks.com, version 1.0.0). Pure.

A receiver computes HMAC-SHA256 over `id.timestamp.body` with the secret that both know, compares it with one of the
signatures of the header, and refuses a timestamp that is minutes away from its own clock.

The library standardwebhooks would save three lines of HMAC and gives no headers for what is not signed, so it is used
by the tests only: it verifies what is signed here.
"""

import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256

PREFIX = "whsec_"
FEWEST_BYTES, MOST_BYTES = 24, 64


def secret_bytes(secret: str) -> bytes:
    """The key that `whsec_…` stands for. Raises ValueError, without the secret in it."""
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not secret.startswith(PREFIX) or not FEWEST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(f"must be {PREFIX} and {FEWEST_BYTES} to {MOST_BYTES} bytes in base64")
    return key


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, of version 1."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.digest(secret_bytes(secret), signed, sha256)).decode()


def signature_headers(secret: str | None, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """The headers of a delivery; the id and the timestamp (seconds since 1970) also where nothing is signed."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    return (
        headers if secret is None else headers | {"webhook-signature": signature(secret, message_id, timestamp, body)}
    )
