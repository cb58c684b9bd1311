"""Functions that run before and after every task and every tree of a process (semantics §6)."""

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any

from core.model.task import Task, TreeHead

logger = logging.getLogger(__name__)

BeforeTask = Callable[[Task, dict[str, Any]], Awaitable[dict[str, Any] | None] | dict[str, Any] | None]
AfterTask = Callable[[Task, dict[str, Any], Any], Awaitable[None] | None]
TreeHook = Callable[[TreeHead], Awaitable[None] | None]


class Hooks:
    """The registered functions, plain or async, in order of registration."""

    def __init__(self) -> None:
        self._before_task: list[BeforeTask] = []
        self._after_task: list[AfterTask] = []
        self._before_tree: list[TreeHook] = []
        self._after_tree: list[TreeHook] = []
        self._look()

    def _look(self) -> None:
        """Work out what there are any of."""
        self.wants_results = bool(self._after_task)
        self.sees_tasks = self.wants_results or bool(self._before_task)
        self.wants_tree_ends = bool(self._after_tree)

    def pre_task(self, hook: BeforeTask) -> BeforeTask:
        """Call `hook(task, inputs)` before each attempt. It may return other inputs; if it raises, that fails."""
        self._before_task.append(hook)
        self._look()
        return hook

    def post_task(self, hook: AfterTask) -> AfterTask:
        """Call `hook(task, inputs, result)` after each attempt that returned; what it raises is logged only."""
        self._after_task.append(hook)
        self._look()
        return hook

    def pre_tree(self, hook: TreeHook) -> TreeHook:
        """Call `hook(head)` before a run is asked for; if it raises, the run is refused with that exception."""
        self._before_tree.append(hook)
        return hook

    def post_tree(self, hook: TreeHook) -> TreeHook:
        """Call `hook(head)` when a run has ended; what it raises is logged only."""
        self._after_tree.append(hook)
        self._look()
        return hook

    def clear(self) -> None:
        """Forget every hook."""
        for hooks in (self._before_task, self._after_task, self._before_tree, self._after_tree):
            hooks.clear()
        self._look()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._before_task) + len(self._after_task) + len(self._before_tree) + len(self._after_tree)

    async def before_task(self, task: Task, inputs: dict[str, Any]) -> dict[str, Any]:
        for hook in self._before_task:
            answer = hook(task, inputs)
            if isawaitable(answer):
                answer = await answer
            if answer is not None:
                inputs = answer
        return inputs

    async def after_task(self, task: Task, inputs: dict[str, Any], result: Any) -> None:
        for hook in self._after_task:
            await _call_safely(hook, task, inputs, result)

    async def before_tree(self, head: TreeHead) -> None:
        for hook in self._before_tree:
            answer = hook(head)
            if isawaitable(answer):
                await answer

    async def after_tree(self, head: TreeHead) -> None:
        for hook in self._after_tree:
            await _call_safely(hook, head)


async def _call_safely(hook: Callable[..., Any], *arguments: Any) -> None:
    try:
        answer = hook(*arguments)
        if isawaitable(answer):
            await answer
    except (
        Exception,
        SystemExit,
        KeyboardInterrupt,
    ):  # a foreign function, whose failure must not change what has already happened
        logger.exception("a post hook failed")
