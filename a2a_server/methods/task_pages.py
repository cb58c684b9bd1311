"""The pages of `tasks.list` and `tasks.running.list`: each row says where the page after it begins. Pure.

A page begins behind a row, whatever was added or removed since: no row comes twice, and none that stays is left out.
"""

import msgspec

from a2a_server.protocol import base64url
from a2a_server.protocol.errors import InvalidParams
from core.model.errors import Problem
from core.model.task import Task

FIELD = "page_token"


def token_of(task: Task) -> str:
    """The token of the page behind this task, the newest first."""
    return to_token((task.created_at, task.id))


def place_of(token: str | None) -> tuple[float, str] | None:
    """Behind which task, by (created_at, id), the page begins. Raises InvalidParams for what is no row's token."""
    if token is None:
        return None
    try:
        return from_token(token)
    except ValueError:
        raise InvalidParams.of([Problem(FIELD, f"must be the {FIELD} of the last task of a page")]) from None


def to_token(place: tuple[float, str]) -> str:
    """The place behind a row, by a time and an id, as text."""
    return base64url.encoded(msgspec.json.encode(place))


def from_token(token: str) -> tuple[float, str]:
    """The place that the text stands for. Raises ValueError: not ASCII, not base64, not what it holds."""
    return msgspec.json.decode(base64url.decoded(token), type=tuple[float, str])
