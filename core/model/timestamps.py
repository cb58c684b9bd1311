"""Seconds since 1970, as the core counts, and RFC 3339 in UTC, as the world writes it. Pure."""

from datetime import UTC, datetime


def to_timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds: 2026-01-31T12:00:00.000Z (A2A v1.0 §5.6.1)."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def from_timestamp(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 timestamp. Raises ValueError when it is none or has no time zone,
    OverflowError when it lies outside the years 1 to 9999.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the timestamp has no time zone; write it in UTC, with a Z at its end")
    seconds = moment.astimezone(UTC).timestamp()
    to_timestamp(seconds)  # what cannot be told again must not be kept
    return seconds
