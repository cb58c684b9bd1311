"""The outcome of a cancel, and the answer that its caller gets."""

from typing import Literal, NotRequired, TypedDict

from msgspec import Struct

from core.model.task import Task, TreeHead


class CancelObject(TypedDict):
    """What a cancel did to one task. "failed": it had ended before, or cannot be interrupted."""

    task_id: str
    status: Literal["cancelled", "failed"]
    message: str
    not_cancelable: NotRequired[list[str]]
    still_running: NotRequired[list[str]]


class CancelResult(Struct, frozen=True, kw_only=True):
    """What a cancel came to: the tree and the task as they are now, and what did not stop."""

    head: TreeHead
    task: Task
    has_effect: bool = True  # something was cancelled, or had been before
    still_running: tuple[str, ...] = ()  # stopped, but still at work after 5 seconds
    not_cancelable: tuple[str, ...] = ()  # their executors cannot be interrupted; they run to their end

    def told(self, task_id: str) -> CancelObject:
        """The answer for this task to a caller of `tasks.cancel` and of the guide's `cancel_task` (semantics §5)."""
        left, slow = list(self.not_cancelable), list(self.still_running)
        answer: CancelObject = {"task_id": task_id, "status": "cancelled", "message": f"Task {task_id} was cancelled"}
        if task_id in left:
            answer["status"] = "failed"
            answer["message"] = f"Task {task_id} cannot be interrupted and runs to its end; force drops its result"
        elif left:
            answer["message"] += f"; {len(left)} of its tasks cannot be interrupted and run to their end"
        elif slow:
            answer["message"] += f"; {len(slow)} of its tasks have not stopped yet"
        elif not self.has_effect:
            answer["status"] = "failed"
            answer["message"] = f"Task {task_id} was asked to stop, and ended as {self.task.status}"
        if left:
            answer["not_cancelable"] = left
        if slow:
            answer["still_running"] = slow
        return answer
