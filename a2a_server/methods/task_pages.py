"""The pages of `tasks.list` and `tasks.running.list`: each row says where the page after it begins. Pure.

A page begins behind a row, whatever was added or removed since: no row comes twice, and none that stays is left out.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec

from a2a_server.protocol.errors import InvalidParams
from core.errors import Problem
from core.task import Task

FIELD = "page_token"


def token_of(task: Task) -> str:
    """The token of the page behind this task, the newest first."""
    return urlsafe_b64encode(msgspec.json.encode((task.created_at, task.id))).decode().rstrip("=")


def place_of(token: str | None) -> tuple[float, str] | None:
    """Behind which task, by (created_at, id), the page begins. Raises InvalidParams for what is no row's token."""
    if token is None:
        return None
    try:
        data = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        return msgspec.json.decode(data, type=tuple[float, str])
    except ValueError:  # not ASCII, not base64, not what it holds
        raise InvalidParams.of([Problem(FIELD, f"must be the {FIELD} of the last task of a page")]) from None
