"""`error_texts`: how much of an executor's exceptions callers are told, at every place where they are told anything."""

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from a2a_server.auth.stored_keys import Grant
from a2a_server.config import Config
from a2a_server.extensions import load_executors
from a2a_server.shares import runner_limits
from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import default_registry
from core.model.errors import ConfigurationError
from tests.a2a_server.conftest import Lab, RunningServer, _Executor, running, tree_message, until
from tests.a2a_server.push.receivers import Receiver

SECRET = "s3cr3t"
SAID = f"LookupError: no row with {SECRET} (test_error_texts.py:"
TREE = [
    {"id": "r", "name": "r"},
    {"id": "g", "name": "g", "parent_id": "r"},
    {"id": "a", "name": "leak", "parent_id": "g", "max_attempts": 2, "retry": {"initial": 0.01, "jitter": 0}},
    {"id": "b", "name": "echo", "parent_id": "r", "dependencies": ["a"]},
    {"id": "c", "name": "leak_aside", "parent_id": "r"},
]
WEBHOOK = {"id": "w", "url": "https://example.com/hook"}


async def leak(inputs: dict[str, Any], context: TaskContext) -> Any:
    raise LookupError(f"no row with {SECRET}")


async def leak_aside(inputs: dict[str, Any], context: TaskContext) -> Any:
    raise SystemExit(SECRET)


def with_leaks(lab: Lab) -> None:
    for run in (leak, leak_aside):
        lab.registry.register(ExecutorSpec(id=run.__name__, make=lambda run=run: _Executor(run)))  # type: ignore[misc]


@dataclass
class Endpoints:
    """Asks a server in every way that tells errors."""

    server: RunningServer
    key: str | None = None

    async def ask(self, path: str, body: Any = None, version: str = "1.0") -> str:
        headers = {"A2A-Version": version} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        async with self.server.client() as client:
            if body is None:
                return (await client.get(path, headers=headers)).text
            return (await client.post(path, json=body, headers=headers)).text

    async def rpc(self, method: str, params: Any, version: str = "1.0") -> str:
        return await self.ask("/", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, version)

    async def sent(self) -> str:
        """The id of a task whose tree has failed."""
        return str(json.loads(await self.rpc("SendMessage", with_webhook()))["result"]["task"]["id"])

    async def executed(self) -> str:
        answer = await self.rpc("tasks.execute", {"tasks": TREE, "wait": True})
        return str(json.loads(answer)["result"]["id"])

    async def node(self) -> str:
        tree = json.loads(await self.rpc("tasks.tree", {"task_id": await self.executed()}))["result"]
        return str(tree["children"][0]["children"][0]["id"])


def with_webhook() -> Any:
    return tree_message(*TREE) | {"configuration": {"taskPushNotificationConfig": WEBHOOK}}


def old_message() -> Any:
    parts = [{"kind": "data", "data": {"tasks": TREE}}]
    return {"message": {"kind": "message", "messageId": "m", "role": "user", "parts": parts}}


async def webhooks(endpoints: Endpoints) -> str:
    """What both kinds of webhooks are told."""
    assert endpoints.server.application.webhooks is not None
    receiver = Receiver()
    endpoints.server.application.webhooks.outbox.deliveries.sender = receiver  # type: ignore[assignment]
    await endpoints.sent()
    hook = {"url": "https://example.com/hook"}
    await endpoints.rpc("tasks.execute", {"tasks": TREE, "wait": True, "webhook_config": hook})
    outbox = endpoints.server.application.webhooks.outbox
    await until(lambda: len(outbox.readers) == 0)
    return json.dumps(receiver.attempts)


Endpoint = Callable[[Endpoints], Awaitable[str]]


ENDPOINTS: dict[str, Endpoint] = {
    "SendMessage": lambda it: it.rpc("SendMessage", tree_message(*TREE)),
    "SendStreamingMessage": lambda it: it.rpc("SendStreamingMessage", tree_message(*TREE)),
    "message:send": lambda it: it.ask("/message:send", tree_message(*TREE)),
    "message:stream": lambda it: it.ask("/message:stream", tree_message(*TREE)),
    "message/send": lambda it: it.rpc("message/send", old_message(), "0.3"),
    "message/stream": lambda it: it.rpc("message/stream", old_message(), "0.3"),
    "tasks.execute": lambda it: it.rpc("tasks.execute", {"tasks": TREE, "wait": True}),
    "tasks.execute, streaming": lambda it: it.rpc("tasks.execute", {"tasks": TREE, "use_streaming": True}),
}
OF_A_SENT_TASK: dict[str, Callable[[Endpoints, str], Awaitable[str]]] = {
    "GetTask": lambda it, task: it.rpc("GetTask", {"id": task}),
    "ListTasks": lambda it, task: it.rpc("ListTasks", {"includeArtifacts": True}),
    "GET /tasks/id": lambda it, task: it.ask(f"/tasks/{task}"),
    "tasks/get": lambda it, task: it.rpc("tasks/get", {"id": task}, "0.3"),
    "tasks.tree": lambda it, task: it.rpc("tasks.tree", {"task_id": task}),
    "tasks.events": lambda it, task: it.rpc("tasks.events", {"task_id": task}),
    "tasks.list": lambda it, task: it.rpc("tasks.list", {"root_only": False}),
    "GET /tasks/id/events": lambda it, task: it.ask(f"/tasks/{task}/events"),
}


async def everything(endpoints: Endpoints) -> dict[str, str]:
    told = {name: await endpoint(endpoints) for name, endpoint in ENDPOINTS.items()}
    task = await endpoints.sent()
    told |= {name: await endpoint(endpoints, task) for name, endpoint in OF_A_SENT_TASK.items()}
    node = await endpoints.node()
    told["tasks.get"] = await endpoints.rpc("tasks.get", {"task_id": node})
    told["webhooks"] = await webhooks(endpoints)
    told["tasks.running.status"] = await endpoints.rpc("tasks.running.status", {"task_ids": [node]})
    return told


@pytest.mark.asyncio
@pytest.mark.parametrize(("texts", "said"), [("full", SAID), ("type", "LookupError"), ("none", "the executor failed")])
async def test_callers_are_told_as_much_as_the_setting_says(
    texts: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Found from outside: callers read the full texts of executors' exceptions."""
    caplog.set_level(logging.WARNING)
    async with running(error_texts=texts) as server:
        with_leaks(server.lab)
        told = await everything(Endpoints(server))
    for endpoint, text in told.items():
        assert said in text, (endpoint, text)
        assert (SECRET in text) is (texts == "full"), (endpoint, text)
    assert f"(leak) failed: {SAID}" in caplog.text, "the operator's log has all"


@pytest.mark.asyncio
async def test_an_operator_reads_the_whole_error_of_a_task() -> None:
    async with running(auth=("keys",)) as server:
        with_leaks(server.lab)
        assert server.application.keys is not None
        _, key = await server.application.keys.create(Grant(principal="ann", tenant="t", is_operator=True))
        endpoints = Endpoints(server, key)
        task = json.loads(await endpoints.rpc("tasks.get", {"task_id": await endpoints.node()}))["result"]
        assert task["error"] == "LookupError" and task["error_detail"].startswith(SAID)
        told = await everything(endpoints)
        shown_to_operators = {endpoint for endpoint, text in told.items() if SECRET in text}
        assert {"tasks.get", "tasks.tree", "tasks.list"} <= shown_to_operators
        assert all(endpoint.startswith("tasks.") for endpoint in shown_to_operators), shown_to_operators


@pytest.mark.parametrize(
    ("settings", "texts"),
    [({}, "full"), ({"auth": ("keys",)}, "type"), ({"error_texts": "none"}, "none"),
     ({"auth": ("keys",), "error_texts": "full"}, "full")],
)  # fmt: skip
def test_types_are_told_where_callers_are_identified(settings: Any, texts: str) -> None:
    assert runner_limits(Config(**settings)).error_texts == texts


# Files of executors

BROKEN = [
    ("raises.py", "def f():\n    {}['pgae']\nf()\n", "KeyError: 'pgae' (raises.py:2)"),
    ("imports.py", "\n\nimport no_such_module_of_ours\n", "'no_such_module_of_ours' (imports.py:3)"),
    ("syntax.py", "x = 1\n1 +\n", "line 2"),
    ("empty.py", "", "it has no executor; put @executor above a function"),
    ("plain.py", "def f(inputs, context): ...\n", "it has no executor"),
    (
        "wrong.py",
        "from core import executor\n@executor\ndef f(a: object(), b: 'Nope'): ...\n",
        "executor 'f': parameter 'a': no JSON value",
    ),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_file_that_cannot_be_used_is_named_with_the_reason_in_one_line(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    """Found from outside: a file without executors started a server without skills."""
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigurationError) as refusal:
        load_executors([str(tmp_path / name)])
    text = str(refusal.value)
    assert text.startswith(f"executors {tmp_path / name}: ") and said in text and "\n" not in text


@pytest.mark.parametrize(
    ("content", "executors"),
    [
        (
            "from core import executor\n@executor\nasync def of_the_file(a: int) -> int:\n    return a\n",
            ["of_the_file"],
        ),
        ("from core import default_registry\n@default_registry.hooks.post_tree\ndef hook(head): ...\n", []),
    ],
)
def test_a_file_that_registers_something_is_taken(tmp_path: Path, content: str, executors: list[str]) -> None:
    hooks = default_registry.hooks
    name = f"good_{len(executors)}.py"  # a module of its own: what was imported stays
    (tmp_path / name).write_text(content)
    try:
        load_executors([str(tmp_path / name)])
        assert all(each in default_registry for each in executors)
    finally:
        hooks.clear()
        for each in executors:
            default_registry.unregister(each)
