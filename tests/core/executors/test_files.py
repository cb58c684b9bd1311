"""Files in parts: read under the egress guard, given as bytes."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.executors.base import OutputRefused, Parts
from core.executors.files import FileUnreadable, read_file
from core.executors.function import executor, register_executor
from core.executors.registry import ExecutorRegistry
from core.model.commands import AddArtifact
from core.model.errors import CallerError
from core.model.jsonvalue import NotJson
from core.model.task import TaskStatus
from core.outside.egress import Egress, EgressPolicy
from core.session import Session
from core.storage.memory import MemoryStorage
from tests.core.executors import functions
from tests.core.executors.context import Said, make_context

PRIVATE = Egress(EgressPolicy())
OPEN = Egress(EgressPolicy(allowed=("127.0.0.1",), max_bytes=1_000))
BYTES = bytes(range(256))


@asynccontextmanager
async def served(answer: bytes) -> AsyncIterator[str]:
    """The address of a server that gives one answer; it counts nothing and knows nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/file"


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.asyncio
async def test_raw_is_decoded() -> None:
    assert await read_file({"raw": base64.b64encode(BYTES).decode()}, PRIVATE) == BYTES


@pytest.mark.asyncio
async def test_a_url_is_fetched() -> None:
    async with served(ok(BYTES)) as url:
        assert await read_file({"url": url}, OPEN) == BYTES


@pytest.mark.asyncio
async def test_a_private_address_is_refused_with_a_safe_text() -> None:
    async with served(ok(BYTES)) as url:
        with pytest.raises(FileUnreadable, match=r"^the file cannot be read: destination not allowed$"):
            await read_file({"url": url}, PRIVATE)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "its server answered with status 404"),
        (ok(b"x" * 1_001), "the answer is longer than 1000 bytes"),
        (b"nonsense\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n", "destination not allowed"),
    ],
)
@pytest.mark.asyncio
async def test_a_file_that_cannot_be_had_says_why(answer: bytes, text: str) -> None:
    async with served(answer) as url:
        with pytest.raises(FileUnreadable, match=f"^the file cannot be read: {text}$"):
            await read_file({"url": url}, OPEN)


@pytest.mark.parametrize("part", [{}, {"text": "x"}, {"raw": 5}, {"raw": "?"}, {"raw": "YQ"}, {"raw": "é"}, {"url": 1}])
@pytest.mark.asyncio
async def test_a_part_that_is_no_file_is_refused(part: Any) -> None:
    with pytest.raises(FileUnreadable):
        await read_file(part, PRIVATE)


@pytest.mark.asyncio
async def test_bytes_of_a_part_become_base64() -> None:
    part = {"raw": BYTES, "filename": "a.bin", "mediaType": "application/octet-stream"}
    said = Said()
    await make_context(said).message(Parts([part, {"url": "https://example.com/"}]))
    assert said.parts == [
        part | {"raw": base64.b64encode(BYTES).decode()},
        {"url": "https://example.com/"},
    ]
    assert part["raw"] == BYTES


async def copy_file_async(inputs: dict[str, Any], context: Any) -> Any:
    content = await context.read_file(inputs["files"][0])
    await context.artifact(Parts([{"raw": content[:1]}]), artifact_id="first")
    return Parts([{"raw": content, "filename": "copy"}])


async def outcome(registry: ExecutorRegistry, inputs: dict[str, Any]) -> tuple[TaskStatus, Any, str | None]:
    async with Session(MemoryStorage(), registry=registry) as session:
        head = (await session.create(session.plan([{"name": "copy", "inputs": inputs}]), execute=True)).head
        await session.wait(head.id, lambda each: each.status.is_terminal)
        task = await session.storage.task(head.id)
    assert task is not None
    return task.status, task.result, task.error


@pytest.mark.parametrize("kind", ["task", "thread", "process"])
@pytest.mark.asyncio
async def test_executors_of_every_kind_read_and_give_files(kind: str) -> None:
    registry = ExecutorRegistry()
    target: Callable[..., Any] = copy_file_async if kind == "task" else functions.copy_file
    isolate(registry, target, kind)
    given = {"files": [{"raw": base64.b64encode(BYTES).decode()}]}
    status, result, error = await outcome(registry, given)
    assert (status, error) == (TaskStatus.COMPLETED, None)
    assert result == {"$parts": [given["files"][0] | {"filename": "copy"}]}


@pytest.mark.parametrize("kind", ["task", "thread", "process"])
@pytest.mark.asyncio
async def test_a_refused_file_fails_the_task_with_a_safe_text(kind: str) -> None:
    registry = ExecutorRegistry()
    isolate(registry, copy_file_async if kind == "task" else functions.copy_file, kind)
    status, _, error = await outcome(registry, {"files": [{"url": "http://169.254.169.254/"}]})
    assert (status, error) == (TaskStatus.FAILED, "the file cannot be read: destination not allowed")


def isolate(registry: ExecutorRegistry, target: Callable[..., Any], kind: str) -> None:
    if kind == "process":
        executor("copy", isolation="process", registry=registry)(target)
    else:
        register_executor("copy", target, registry=registry)


# What an executor may give


@pytest.mark.asyncio
async def test_nothing_is_appended_to_an_artifact_that_is_not_there() -> None:
    said = Said()
    context = make_context(said)
    with pytest.raises(OutputRefused, match="there is no artifact 'a' to append to"):
        await context.artifact("x", append=True, artifact_id="a")
    await context.artifact("x", artifact_id="a")
    await context.artifact("y", append=True, artifact_id="a")
    assert [c.append for c in said.commands if isinstance(c, AddArtifact)] == [False, True]


@pytest.mark.asyncio
async def test_a_later_attempt_may_go_on_with_what_an_earlier_one_gave() -> None:
    said = Said()
    context = make_context(said, attempt=2)
    await context.artifact("y", append=True, artifact_id="a")
    assert len(said.commands) == 1


@pytest.mark.asyncio
async def test_the_artifacts_of_an_attempt_are_bounded_together() -> None:
    said = Said()
    context = make_context(said)
    context.max_output = 300
    await context.artifact("x" * 100)
    with pytest.raises(CallerError, match="have more than 300 bytes"):
        await context.artifact("x" * 200)
    await context.artifact("x" * 10)
    assert len(said.commands) == 2


@pytest.mark.asyncio
async def test_whatever_an_executor_says_is_bounded() -> None:
    """Found later: progress, names and descriptions that an executor gives had no limit."""
    said = Said()
    context = make_context(said)
    context.max_artifact = 100
    await context.message("x" * 98)
    for give in (context.message, context.reply, context.artifact, context.ask):
        with pytest.raises((NotJson, CallerError)):
            await give("x" * 99)
    for name in ("artifact_id", "name", "description"):
        with pytest.raises(NotJson, match=f"the {name} has 101 bytes"):
            await context.artifact("y", **{name: "x" * 99})
    with pytest.raises(NotJson, match="the message has 101 bytes"):
        await context.progress(0.5, "x" * 99)
    with pytest.raises(NotJson, match="the metadata has"):
        await context.artifact("y", metadata={"a": "x" * 99})
    assert len(said.commands) == 1
