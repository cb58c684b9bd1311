"""Bytes as text that an address or a token may hold: base64url without padding (RFC 4648 §5, RFC 7515 §2)."""

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encoded(data: bytes) -> str:
    """The bytes as text."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """The bytes of a text. Raises ValueError for what is not ASCII, or of no possible length; see the RFC's §3.3."""
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
