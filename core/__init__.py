"""Trees of tasks that run for real: durable, ordered by dependencies and priorities, cancelled for real."""

from core.executors.base import ExecutorSpec, Parts, Rejected, TaskContext
from core.executors.files import FileUnreadable
from core.executors.function import executor, register_executor
from core.executors.registry import ExecutorRegistry, default_registry
from core.manager import TaskManager, TaskRepository, TaskTreeNode, create_session
from core.model.errors import CoreError, InvalidPlan, TaskNotFound
from core.model.task import Dependency, Task, TaskStatus
from core.run.runner_limits import RunnerLimits
from core.session import Session

__all__ = [
    "CoreError",
    "Dependency",
    "ExecutorRegistry",
    "ExecutorSpec",
    "FileUnreadable",
    "InvalidPlan",
    "Parts",
    "Rejected",
    "RunnerLimits",
    "Session",
    "Task",
    "TaskContext",
    "TaskManager",
    "TaskNotFound",
    "TaskRepository",
    "TaskStatus",
    "TaskTreeNode",
    "create_session",
    "default_registry",
    "executor",
    "register_executor",
]
