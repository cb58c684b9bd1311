"""A server's application with executors that tests steer, called through its endpoint or over real HTTP."""

import asyncio
import json
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest_asyncio

from a2a_server.app import Application, build
from a2a_server.auth.principal import Principal
from a2a_server.bindings.context import RequestContext
from a2a_server.config import Config
from a2a_server.server import Server, listen
from core.executors.base import ExecutorSpec, Parts, Rejected, TaskContext
from core.executors.registry import ExecutorRegistry
from core.storage.base import Storage
from core.storage.memory import MemoryStorage

Run = Callable[[dict[str, Any], TaskContext], Awaitable[Any]]


class RpcError(Exception):
    """The error member of a response."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: list[dict[str, Any]] = error.get("data", [])
        super().__init__(f"{self.code} {self.message}")

    @property
    def fields(self) -> set[str]:
        """The fields that the error names."""
        return {v["field"] for detail in self.data for v in detail.get("fieldViolations", [])}


@dataclass
class Frame:
    """One event of a stream."""

    seq: int | None
    data: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        return self.data["result"]


class _Executor:
    def __init__(self, run: Run) -> None:
        self._run = run

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return await self._run(inputs, context)


class Lab:
    """Executors for tests, and the levers to hold them."""

    def __init__(self) -> None:
        self.registry = ExecutorRegistry()
        self.started: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.released: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.requests: list[dict[str, Any]] = []
        for run in (self.echo, self.hold, self.ask, self.login, self.reply, self.boom, self.decline, self.chunks):
            self._register(run)
        for run in (self.say, self.steps, self.parts, self.nothing, self.late_reply, self.number):
            self._register(run)
        self._register(self.stubborn, cancelable=False)
        self._register(self.internal, is_skill=False)
        self._register(self.images, input_modes=("image/*",), output_modes=("image/png",))

    def _register(self, run: Run, **options: Any) -> None:
        self.registry.register(ExecutorSpec(id=run.__name__, make=lambda: _Executor(run), **options))

    async def echo(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        self.requests.append(dict(context.request))
        return inputs

    async def hold(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        """Runs until the test releases its key."""
        key = inputs.get("key", "hold")
        self.started[key].set()
        await self.released[key].wait()
        return key

    async def stubborn(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return await self.hold(inputs, context)

    async def ask(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        first = await context.ask("first?")
        second = await context.ask("second?")
        return [first, second]

    async def login(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("log in", auth=True)

    async def reply(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.reply("direct")

    async def late_reply(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await self.hold({"key": "late"}, context)
        await context.reply("late")

    async def boom(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        raise ValueError("boom")

    async def decline(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        raise Rejected("not me")

    async def chunks(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.artifact("one ")
        await context.artifact("two", last_chunk=True)

    async def say(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.message("hello")
        return None

    async def steps(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.progress(0.5, "half")
        return "done"

    async def parts(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return Parts([{"raw": "aGk=", "filename": "output.txt", "mediaType": "text/plain"}])

    async def nothing(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return None

    async def number(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return 2**60 + 1

    async def internal(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return "internal"

    async def images(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return None


class Caller:
    """Calls the endpoint of an application, as one owner."""

    def __init__(self, application: Application, lab: Lab) -> None:
        self.application = application
        self.session = application.session
        self.lab = lab

    async def __call__(self, method: str, params: Any = None, **context: Any) -> Any:
        """The result. Raises RpcError."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await self.application.json_rpc.handle(json.dumps(request).encode(), RequestContext(**context))
        assert reply.events is None, f"{method} answered with a stream"
        return unwrapped(json.loads(reply.body))

    async def stream(self, method: str, params: Any = None, **context: Any) -> AsyncIterator[Frame]:
        """The frames. Raises RpcError for an error before the first."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await self.application.json_rpc.handle(json.dumps(request).encode(), RequestContext(**context))
        if reply.events is None:
            unwrapped(json.loads(reply.body))
            raise AssertionError(f"{method} answered without a stream")
        try:
            async for event in reply.events:
                yield Frame(event.seq, json.loads(event.data))
        finally:
            await reply.events.aclose()

    async def frames(self, method: str, params: Any = None, **context: Any) -> list[Frame]:
        """The whole stream."""
        return [frame async for frame in self.stream(method, params, **context)]

    async def send(self, skill: str, **given: Any) -> Any:
        """SendMessage to a skill; the task."""
        return (await self("SendMessage", message(skill, **given)))["task"]

    async def begin(self, skill: str, **given: Any) -> str:
        """SendMessage that does not wait; the task's id."""
        params = message(skill, **given) | {"configuration": {"returnImmediately": True}}
        return str((await self("SendMessage", params))["task"]["id"])

    async def tree(self, *tasks: dict[str, Any]) -> str:
        """The id of a stored tree that has not been run."""
        return str((await self("tasks.create", list(tasks)))["root_task_id"])


def message(skill: str | None = None, *parts: Any, text: str = "hi", task: str = "", context: str = "") -> Any:
    """Params of SendMessage."""
    said: dict[str, Any] = {"messageId": "m1", "role": "ROLE_USER", "parts": list(parts) or [{"text": text}]}
    said |= {"taskId": task} if task else {}
    said |= {"contextId": context} if context else {}
    return {"message": said, "metadata": {"skillId": skill} if skill else {}}


def tree_message(*tasks: dict[str, Any]) -> Any:
    """Params of SendMessage that bring a tree."""
    return message(None, {"data": {"tasks": list(tasks)}})


def somebody(name: str) -> Principal:
    """A caller who is not everybody."""
    return Principal(id=name, owner=name, is_operator=True)


def unwrapped(response: dict[str, Any]) -> Any:
    if "error" in response:
        raise RpcError(response["error"])
    return response["result"]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something holds that nobody announces."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


@asynccontextmanager
async def calling(**settings: Any) -> AsyncIterator[Caller]:
    """An application over memory, called without HTTP."""
    lab = Lab()
    config = Config(**({"max_tree_tasks": 50, "max_depth": 5} | settings))
    application = build(config, registry=lab.registry, storage=MemoryStorage())
    await application.start()
    await application.resume()
    yield Caller(application, lab)
    await application.stop(1.0)


@pytest_asyncio.fixture
async def call() -> AsyncIterator[Caller]:
    async with calling() as caller:
        yield caller


class RunningServer:
    """A real server on a free port of the loopback, in this very loop."""

    def __init__(self, application: Application, lab: Lab, server: Server, port: int) -> None:
        self.application = application
        self.lab = lab
        self.server = server
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}"

    def client(self) -> httpx2.AsyncClient:
        return self.client_of(self.base_url)

    @staticmethod
    def client_of(url: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20)


@asynccontextmanager
async def running(*, storage: Storage | None = None, **settings: Any) -> AsyncIterator[RunningServer]:
    """A server, over memory unless a storage is given."""
    lab = Lab()
    with listen("127.0.0.1", 0, 65_536) as listener:
        port = listener.getsockname()[1]
        config = Config(**{"port": port, "drain": 0.1, **settings})
        application = build(config, port=port, registry=lab.registry, storage=storage or MemoryStorage())
        server = _Announcing(application)
        serving = asyncio.create_task(server.serve([listener]))
        await server.is_up.wait()
        yield RunningServer(application, lab, server, port)
        server.should_exit = True
        await serving


class _Announcing(Server):
    """Lets a test wait until it is up."""

    def __init__(self, application: Application) -> None:
        super().__init__(application)
        self.is_up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RunningServer]:
    async with running() as it:
        yield it
