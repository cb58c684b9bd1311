"""`command_executor`: runs a program of this machine. It exists only where the operator named the programs.

There is no shell anywhere: a task gives a list of arguments, the first of which must be one of the operator's
programs, and the kernel gets them as they are. The environment is made here, not inherited. The program leads a process
group of its own, which is killed when the task is cancelled or out of time, and when the program has ended; so is what
the program has moved into other sessions.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.process_group import GRACE, ProcessGroup, start, uninterrupted
from core.loop.large_values import encoded_text, is_small
from core.model.errors import ConfigurationError, CoreError

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DRAIN_TIME = 1.0  # seconds for the rest of the output when the program has ended
SHOWN_ERROR = 500  # characters of the error output in the task's error

OUTPUT_SCHEMA = {
    "type": "object",
    "properties": {
        "exit_code": {"type": "integer"},
        "stdout": {"type": "string"},
        "stderr": {"type": "string"},
        "truncated": {"type": "boolean", "description": "whether output beyond the limit was dropped"},
    },
    "required": ["exit_code", "stdout", "stderr", "truncated"],
}


class CommandFailed(CoreError):
    """The program did not end well."""


@dataclass(frozen=True)
class CommandPolicy:
    """Which programs tasks may run, and within which limits. Set by the operator, never by a task."""

    programs: tuple[str, ...]  # names, looked up in SEARCH_PATH, or absolute paths
    timeout: float = 60.0  # seconds; a task may ask for less
    max_output: int = 1024 * 1024  # bytes kept of the output, and of the error output
    directories: tuple[str, ...] = ()  # where a task may run its program; the first, else `/`, unless it says so
    concurrency: int | None = None
    paths: Mapping[str, str] = field(init=False, repr=False)  # what a task may call it -> absolute path

    def __post_init__(self) -> None:
        paths: dict[str, str] = {}
        for program in self.programs:
            path = shutil.which(program, path=SEARCH_PATH) if "/" not in program else program
            if path is None or not os.path.isabs(path) or not os.access(path, os.X_OK) or os.path.isdir(path):
                raise ConfigurationError(f"command: {program!r} is not a program in {SEARCH_PATH} or an absolute path")
            paths |= {program: path, path: path}
        for directory in self.directories:
            if not os.path.isabs(directory) or not os.path.isdir(directory):
                raise ConfigurationError(f"command: {directory!r} is not the absolute path of a directory")
        object.__setattr__(self, "paths", paths)


def command_executor_spec(policy: CommandPolicy) -> ExecutorSpec:
    """The executor that runs the programs of this policy."""
    return ExecutorSpec(
        id="command_executor",
        make=lambda: CommandExecutor(policy),
        name="Run a program",
        description=f"Runs one of these programs and returns its output: {', '.join(policy.programs)}",
        tags=("command", "system"),
        examples=('{"argv": ["' + next(iter(policy.programs), "") + '"]}',),
        input_schema=_input_schema(policy),
        output_schema=OUTPUT_SCHEMA,
        concurrency=policy.concurrency,
        uses_process=True,
    )


def _input_schema(policy: CommandPolicy) -> dict[str, Any]:
    # A NUL byte ends a string in the kernel's eyes, so none may be in an argument.
    argument = {"type": "string", "pattern": "^[^\\x00]*$"}
    properties = {
        "argv": {"type": "array", "items": argument, "minItems": 1, "description": "the program and its arguments"},
        "program": {"enum": sorted(policy.paths)},
        "args": {"type": "array", "items": argument},
        "stdin": {"type": "string"},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": policy.timeout, "description": "seconds"},
    }
    if policy.directories:
        properties["cwd"] = {"enum": list(policy.directories)}
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


class CommandExecutor:
    """Runs one program for one attempt."""

    def __init__(self, policy: CommandPolicy) -> None:
        self._policy = policy

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        """Run the program to its end. Raises CommandFailed when it is not allowed, ends badly or takes too long."""
        argv = self._argv(inputs)
        limit = min(inputs.get("timeout", self._policy.timeout), self._policy.timeout)
        environment = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "A2A_IDEMPOTENCY_KEY": context.idempotency_key}
        stdin = inputs.get("stdin")
        group = await start(
            argv,
            env=environment,
            mark=context.family.new_mark(),
            has_input=stdin is not None,
            max_output=self._policy.max_output,
            cwd=self._directory(inputs),
        )
        try:
            async with asyncio.timeout(limit):
                return await self._run(group, None if stdin is None else await _fed(stdin, context))
        except TimeoutError as error:
            raise CommandFailed(f"{argv[0]} did not end within {limit:g} s and was killed") from error
        finally:
            await uninterrupted(group.close(grace=GRACE))

    def _argv(self, inputs: dict[str, Any]) -> list[str]:
        if ("argv" in inputs) == ("program" in inputs):
            raise CommandFailed("inputs: give either argv, or program and args")
        argv: list[str] = inputs["argv"] if "argv" in inputs else [inputs["program"], *inputs.get("args", ())]
        if (path := self._policy.paths.get(argv[0])) is None:
            allowed = ", ".join(self._policy.programs)
            raise CommandFailed(f"the program {argv[0][:100]!r} is not allowed; these are: {allowed}")
        return [path, *argv[1:]]

    def _directory(self, inputs: dict[str, Any]) -> str:
        allowed = self._policy.directories
        directory: str = inputs.get("cwd", next(iter(allowed), "/"))
        # The schema says so too, but a task may bring a schema of its own in its place.
        if "cwd" in inputs and directory not in allowed:
            told = f"must be one of {', '.join(allowed)}" if allowed else "must be omitted: no directory is allowed"
            raise CommandFailed(f"inputs.cwd: {told}")
        return directory

    async def _run(self, group: ProcessGroup, fed: bytes | None) -> dict[str, Any]:
        if fed is not None:
            group.feed(fed)
        exit_code = await group.wait()
        # What the program left running must not outlive the task, nor hold its output open.
        await group.kill()
        await group.drain(DRAIN_TIME)
        stderr = group.stderr.text()
        if exit_code != 0:
            how = f"was ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
            raise CommandFailed(f"the program {how}" + (f": {stderr.strip()[-SHOWN_ERROR:]}" if stderr.strip() else ""))
        return {
            "exit_code": exit_code,
            "stdout": group.stdout.text(),
            "stderr": stderr,
            "truncated": group.stdout.truncated or group.stderr.truncated,
        }


async def _fed(stdin: str, context: TaskContext) -> bytes:
    if is_small(stdin):
        return encoded_text(stdin)
    return await context.beside.run(context.stored_task.owner, encoded_text, stdin)
