"""`tasks.cancel`: many tasks in one call, so many of one caller at a time."""

from typing import Final

from a2a_server.bindings.context import RequestContext
from a2a_server.methods.access import seen_head
from a2a_server.methods.task_params import CancelParams
from a2a_server.methods.task_reads import ids_of
from core.cancel_result import CancelObject
from core.loop.pieces import some_at_a_time
from core.loop.turns import Turns
from core.model.errors import TaskNotFound
from core.session import Session

# Of one caller: the usual share of slots, as each may wait for 5 seconds until its work has stopped.
CANCELS_AT_A_TIME: Final = 50
CANCELS: Final = 4 * CANCELS_AT_A_TIME
_LEFT: Final = "not cancelled: the client closed the connection, or its side of it, before this task had its turn"


class Cancels:
    """The cancels of one server's callers, who take turns."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turns = Turns(CANCELS, CANCELS_AT_A_TIME)

    async def cancel(self, context: RequestContext, params: CancelParams) -> list[CancelObject]:
        """One answer for each id, in their order. A caller that leaves stops those that still wait for their turn."""
        ids = ids_of(params.task_ids)
        # A client that closes its side of the connection behind its call still gets what it asked for, if not much.
        first = frozenset(ids[:CANCELS_AT_A_TIME])

        async def cancel(task_id: str) -> CancelObject:
            async with self._turns.of(context.owner):
                if context.permit.has_left and task_id not in first:
                    return {"task_id": task_id, "status": "failed", "message": _LEFT}
                return await self._cancel(context, params, task_id)

        return await some_at_a_time(CANCELS_AT_A_TIME, ids, cancel)

    async def _cancel(self, context: RequestContext, params: CancelParams, task_id: str) -> CancelObject:
        try:
            head = await seen_head(self._session, context.principal.scope, task_id)
        except TaskNotFound as error:
            return {"task_id": task_id, "status": "failed", "message": str(error)}
        by = context.acts_for(head.owner)
        return await self._session.cancel_answer(task_id, params.error_message, force=params.force, by=by)
