"""A task's context without a runner: what an executor says is collected."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.executors.base import TaskContext
from core.model.commands import AddArtifact, Command, ReportProgress, SendMessage
from core.model.content_json import part_object
from core.model.task import Dependency, Task


@dataclass
class Said:
    """The commands that an executor reported, in order."""

    commands: list[Command] = field(default_factory=list)

    async def report(self, tree_id: str, command: Command) -> None:
        self.commands.append(command)

    async def submit(self, tree_id: str, command: Command) -> asyncio.Future[None]:
        self.commands.append(command)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stored.set_result(None)
        return stored

    @property
    def fractions(self) -> list[float]:
        return [command.fraction for command in self.commands if isinstance(command, ReportProgress)]

    @property
    def parts(self) -> list[Any]:
        artifacts_and_messages = [
            command.artifact if isinstance(command, AddArtifact) else command.message
            for command in self.commands
            if isinstance(command, AddArtifact | SendMessage)
        ]
        return [part_object(part) for content in artifacts_and_messages for part in content.parts]


def make_context(
    said: Said | None = None,
    *,
    inputs: dict[str, Any] | None = None,
    dependencies: Mapping[str, Any] | None = None,
    depends_on: tuple[str, ...] = (),
    answers: tuple[Any, ...] = (),
    at_most_once: bool = False,
    attempt: int = 1,
) -> TaskContext:
    said = said or Said()
    task = Task(
        id="t1",
        tree_id="t1",
        name="work",
        inputs=inputs or {},
        dependencies=tuple(Dependency(key) for key in depends_on),
        answers=answers,
        attempt=attempt,
        created_at=0.0,
    )
    return TaskContext(
        stored_task=task,
        run=1,
        stored_results=dependencies or {},
        absent=tuple(key for key in depends_on if key not in (dependencies or {})),
        stored_request={},
        context_id=None,
        report=said.report,
        submit=said.submit,
        at_most_once=at_most_once,
    )
