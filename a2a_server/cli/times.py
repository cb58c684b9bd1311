"""Times as a user writes and reads them."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

_AGO = re.compile(r"(\d{1,9})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def moment(given: str, now: datetime | None = None) -> datetime:
    """The moment that `2h` (ago), `2026-01-31`, `2026-01-31T12:00` (here) or RFC 3339 means.

    Raises BadParameter, which names --since.
    """
    try:
        if (ago := _AGO.fullmatch(given)) is not None:
            return (now or datetime.now(UTC)) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        return datetime.fromisoformat(given).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{given} is not a time; use 90s, 15m, 2h or 7d (ago), 2026-01-31 or 2026-01-31T12:00:00Z",
            param_hint="--since",
        ) from None


def duration_of(task: Mapping[str, Any], now: datetime | None = None) -> str:
    """How long a task took from its first start to its end, or has run until now; empty before its start."""
    if not task.get("started_at"):
        return ""
    ended = task.get("completed_at")
    end = datetime.fromisoformat(ended) if ended else now or datetime.now(UTC)
    seconds = max(0.0, (end - datetime.fromisoformat(task["started_at"])).total_seconds())
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{int(seconds * 10) / 10:.1f}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
