"""Methods that read lists take turns by caller: one caller's lists never hold what another's single reads need."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Handler, Method
from core.loop.turns import Turns

# What reads many rows, or a whole tree. Each reads from one connection at a time, of which the storage has more.
LISTS: Final = frozenset(
    {
        "ListTasks",
        "ListTaskPushNotificationConfigs",
        "tasks.list",
        "tasks.tree",
        "tasks.children",
        "tasks.events",
        "tasks.running.list",
        "tasks.running.status",
        "tasks.running.count",
        "push.deliveries",
        "keys.list",
    }
)
MOST_LISTS: Final = 2  # at a time, of the process
MOST_LISTS_PER_CALLER: Final = 1


def in_turns(methods: Iterable[Method], turns: Turns) -> list[Method]:
    """The methods; those that read lists wait for their caller's turn, however many calls it makes at once."""
    return [replace(each, handler=_waiting(each.handler, turns)) if each.name in LISTS else each for each in methods]


def _waiting(handler: Handler, turns: Turns) -> Handler:
    async def in_turn(context: RequestContext, params: Any) -> Any:
        await turns.enter(context.owner)
        try:
            return await handler(context, params)
        finally:
            turns.leave(context.owner)

    return in_turn
