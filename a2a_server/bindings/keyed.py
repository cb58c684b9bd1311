"""What each method does with the header `Idempotency-Key`. Pure.

No method that makes or changes something ignores it: a caller that sends it relies on it.
"""

from typing import Final

from a2a_server.protocol.errors import InvalidParams
from core.model.errors import Problem

HEADER: Final = "Idempotency-Key"

# The same request under the same key is done once. A message is one operation, however it is sent.
TAKES: Final = frozenset(
    {"SendMessage", "SendStreamingMessage", "message/send", "message/stream", "tasks.create", "tasks.execute"}
)
# These change nothing: a key says nothing to them. Every other method refuses it.
READS: Final = frozenset(
    {
        *("GetTask", "ListTasks", "SubscribeToTask", "GetExtendedAgentCard"),
        *("GetTaskPushNotificationConfig", "ListTaskPushNotificationConfigs"),
        *("tasks/get", "tasks/list", "tasks/resubscribe", "agent/getAuthenticatedExtendedCard"),
        *("tasks/pushNotificationConfig/get", "tasks/pushNotificationConfig/list"),
        *("tasks.get", "tasks.detail", "tasks.tree", "tasks.children", "tasks.list", "tasks.events"),
        *("tasks.running.list", "tasks.running.status", "tasks.running.count"),
        *("system.health", "system.limits", "system.executors", "rpc.discover", "push.deliveries", "keys.list"),
    }
)


def refuse_key(method: str) -> None:
    """Raise InvalidParams for a method that cannot keep what its caller expects of a key."""
    if method not in TAKES and method not in READS:
        raise no_key(f"{method} does not accept it: omit the header")


def no_key(text: str) -> InvalidParams:
    """The error for a key that is not taken; the text says why."""
    return InvalidParams.of([Problem(HEADER, text)])
