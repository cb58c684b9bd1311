"""A2A's states of a task, and the core's statuses that they are. Pure."""

from collections.abc import Mapping

from a2a_server.protocol.types import TaskState
from core.model.task import TaskStatus

STATES: Mapping[TaskStatus, TaskState] = {
    TaskStatus.PENDING: TaskState.SUBMITTED,
    TaskStatus.IN_PROGRESS: TaskState.WORKING,
    TaskStatus.INPUT_REQUIRED: TaskState.INPUT_REQUIRED,
    TaskStatus.AUTH_REQUIRED: TaskState.AUTH_REQUIRED,
    TaskStatus.COMPLETED: TaskState.COMPLETED,
    TaskStatus.FAILED: TaskState.FAILED,
    TaskStatus.CANCELLED: TaskState.CANCELED,
    TaskStatus.REJECTED: TaskState.REJECTED,
}
STATUSES: Mapping[TaskState, TaskStatus] = {state: status for status, state in STATES.items()}
