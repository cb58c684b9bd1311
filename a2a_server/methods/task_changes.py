"""The methods `tasks.*` that change what is stored: cancel, answer, update, delete and copy."""

import logging
from typing import Any

from msgspec import UNSET

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method
from a2a_server.edge.overload import CallKind
from a2a_server.methods.access import OpenTasks, seen_head, seen_task
from a2a_server.methods.cancels import Cancels
from a2a_server.methods.large_tasks import as_told
from a2a_server.methods.task_params import (
    AnswerParams,
    CancelParams,
    CopyParams,
    TaskParams,
    UpdateParams,
)
from a2a_server.methods.task_reads import TaskReads, is_for_operator, shown_tree
from a2a_server.protocol.errors import InvalidParams
from a2a_server.views.task_objects import DeletedTask, TaskObject, TreeObject
from a2a_server.views.task_view import task_object
from core.cancel_result import CancelObject
from core.model.commands import ProvideInput
from core.model.errors import Problem
from core.model.submission import Submission
from core.session import Session

logger = logging.getLogger(__name__)


class TaskChanges:
    """They reach every tree of their caller."""

    def __init__(self, session: Session, open_tasks: OpenTasks) -> None:
        self._session = session
        self._open_tasks = open_tasks
        self._reads = TaskReads(session)
        self._cancels = Cancels(session)

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        other = CallKind.OTHER
        cancel, copy = (
            "Cancel tasks and everything below them.",
            "Copy a task and everything below it to a new pending tree.",
        )
        answer, update = "Answer the open questions of a task.", "Change fields of a pending task."
        return [
            Method("tasks.cancel", self._cancels.cancel, CallKind.EXEMPT, CancelParams, list[CancelObject], cancel),
            Method("tasks.answer", self.answer, other, AnswerParams, TaskObject, answer),
            Method("tasks.update", self.update, other, UpdateParams, TaskObject, update, is_raw=True),
            Method("tasks.delete", self.delete, other, TaskParams, DeletedTask, "Delete a tree that is not running."),
            Method("tasks.copy", self.copy, CallKind.WORK, CopyParams, TreeObject, copy),
        ]

    async def answer(self, context: RequestContext, params: AnswerParams) -> Any:
        """The task, which goes on with the answer.

        Raises IllegalCommand when it asks nothing, InvalidPlan for `answers` that are not as many as its questions.
        """
        if (params.answer is UNSET) is (params.answers is UNSET):
            raise InvalidParams.of([Problem("answer", "is required; for several questions give answers, one for each")])
        head = await seen_head(self._session, context.principal.scope, params.task_id)
        by = context.acts_for(head.owner)
        if params.answers is UNSET:
            given = ProvideInput(params.task_id, params.answer, by=by)
        else:
            each = tuple(params.answers)
            given = ProvideInput(params.task_id, params.answers, by=by, each=each, is_exact=True)
        await self._session.provide_input(given)
        return await self._reads.get(context, TaskParams(task_id=params.task_id))

    async def update(self, context: RequestContext, params: Any) -> Any:
        """Raises InvalidPlan with every field that is wrong, TreeIsRunning when the task cannot be changed any more."""
        changes = dict(params) if isinstance(params, dict) else {}
        task_id = changes.pop("task_id", None)
        if not isinstance(task_id, str) or not task_id:
            raise InvalidParams.of([Problem("task_id", "is required and must be a string")])
        if not changes:
            raise InvalidParams.of([Problem("params", "name at least one field to change")])
        head = await seen_head(self._session, context.principal.scope, task_id)
        task = await self._session.update(task_id, changes, by=context.acts_for(head.owner))
        return as_told(task_object(task, head, for_operator=is_for_operator(context.principal)), (task,))

    async def delete(self, context: RequestContext, params: TaskParams) -> DeletedTask:
        """Raises TreeIsRunning while anything in the tree runs, and for a task that is not a root."""
        task = await seen_task(self._session, context.principal.scope, params.task_id)
        await self._session.delete(params.task_id)
        if (by := context.acts_for(task.owner)) is not None:  # the log of its events is gone with it
            logger.info("tree %s of %s was deleted by %s", task.id, task.owner, by)
        return {"success": True, "task_id": params.task_id, "message": f"Task {params.task_id} was deleted"}

    async def copy(self, context: RequestContext, params: CopyParams) -> Any:
        """A pending tree; `original_task_id` says where each task comes from."""
        head = await seen_head(self._session, context.principal.scope, params.task_id)
        await self._open_tasks.admit(head.owner, head.size if params.children else 1)
        submission = Submission(context_id=head.context_id, by=context.acts_for(head.owner))
        copy = await self._session.copy(params.task_id, submission, children=params.children)
        return await shown_tree(self._session, context, copy.head.id)
