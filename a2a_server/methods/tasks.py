"""The `tasks.*` methods (semantics §7). They see every tree of their caller, whichever endpoint it came in through."""

from a2a_server.bindings.jsonrpc import Method
from a2a_server.methods.idempotency import Acceptance
from a2a_server.methods.task_changes import TaskChanges
from a2a_server.methods.task_reads import TaskReads
from a2a_server.methods.task_runs import TaskRuns
from a2a_server.push.webhooks import Webhooks
from a2a_server.views.streams import Streams
from core.model.plan import Limits
from core.session import Session


def table(
    session: Session, streams: Streams, acceptance: Acceptance, limits: Limits, webhooks: Webhooks | None
) -> list[Method]:
    """The methods, for the bindings."""
    runs = TaskRuns(session, streams, acceptance, limits, webhooks)
    return [*runs.table(), *TaskChanges(session, acceptance.open_tasks).table(), *TaskReads(session).table()]
