"""Who can do what to whose task (A2A §13.1): every operation, caller and state of a task, in every protocol version.

Somebody else's task and one that never existed must be answered in the same bytes, and nothing may happen to it.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import pytest_asyncio

from a2a_server.auth.stored_keys import Grant
from core.model.owners import owner_of
from core.model.task import TreeHead
from tests.a2a_server.conftest import RunningServer, message, running
from tests.a2a_server.push.receivers import Receiver

NEVER = "01900000-0000-7000-8000-000000000000"
STATES = ("live", "finished", "deleted", "never existed")
TO_OTHERS = ("same tenant", "other tenant")
TO_NOBODY = ("anonymous", "expired", "revoked", "unknown")


@dataclass(frozen=True)
class Request:
    """An HTTP request, as a binding writes an operation."""

    path: str
    body: Any = None
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


def said(task_id: str) -> dict[str, Any]:
    return message(task=task_id, text="more") | {"configuration": {"returnImmediately": True}}


# Operation -> its params for a task.
OPERATIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "SendMessage": said,
    "SendStreamingMessage": said,
    "GetTask": lambda task_id: {"id": task_id},
    "ListTasks": lambda task_id: {"contextId": "matrix"},
    "CancelTask": lambda task_id: {"id": task_id},
    "SubscribeToTask": lambda task_id: {"id": task_id},
    "GetExtendedAgentCard": lambda task_id: {},
    "CreateTaskPushNotificationConfig": lambda task_id: {"taskId": task_id, "url": "https://example.com/hook"},
    "GetTaskPushNotificationConfig": lambda task_id: {"taskId": task_id, "id": "c"},
    "ListTaskPushNotificationConfigs": lambda task_id: {"taskId": task_id},
    "DeleteTaskPushNotificationConfig": lambda task_id: {"taskId": task_id, "id": "c"},
}
WITHOUT_A_TASK = ("ListTasks", "GetExtendedAgentCard")
NOT_FOUND = "Task not found"


def json_rpc(operation: str, params: dict[str, Any]) -> Request:
    body = {"jsonrpc": "2.0", "id": 1, "method": operation, "params": params}
    return Request("/", body, headers={"A2A-Version": "1.0"})


# Operation -> how the HTTP+JSON binding writes it (A2A §11.3).
PATHS = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "ListTasks": ("GET", "/tasks"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("GET", "/tasks/{id}:subscribe"),
    "GetExtendedAgentCard": ("GET", "/extendedAgentCard"),
    "CreateTaskPushNotificationConfig": ("POST", "/tasks/{taskId}/pushNotificationConfigs"),
    "GetTaskPushNotificationConfig": ("GET", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "ListTaskPushNotificationConfigs": ("GET", "/tasks/{taskId}/pushNotificationConfigs"),
    "DeleteTaskPushNotificationConfig": ("DELETE", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
}


def rest(operation: str, params: dict[str, Any]) -> Request:
    """A tenant stands in the path, other params that the path does not have in the query or the body."""
    verb, template = PATHS[operation]
    path = f"/{params['tenant']}{template}" if "tenant" in params else template
    left = {name: value for name, value in params.items() if name != "tenant" and f"{{{name}}}" not in template}
    path = path.format(**params)
    if verb == "POST":
        return Request(path, left, headers={"A2A-Version": "1.0"})
    query = f"?{urlencode(left)}" if left else ""
    return Request(path + query, method=verb, headers={"A2A-Version": "1.0"})


# Operation -> how v0.3 calls it, and how it writes the params; it has no ListTasks.
OLD_METHODS: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "SendMessage": ("message/send", lambda params: old_message(params)),
    "SendStreamingMessage": ("message/stream", lambda params: old_message(params)),
    "GetTask": ("tasks/get", lambda params: params),
    "CancelTask": ("tasks/cancel", lambda params: params),
    "SubscribeToTask": ("tasks/resubscribe", lambda params: params),
    "GetExtendedAgentCard": ("agent/getAuthenticatedExtendedCard", lambda params: params),
    "CreateTaskPushNotificationConfig": (
        "tasks/pushNotificationConfig/set",
        lambda params: {"taskId": params["taskId"], "pushNotificationConfig": {"url": params["url"]}},
    ),
    "GetTaskPushNotificationConfig": (
        "tasks/pushNotificationConfig/get",
        lambda params: {"id": params["taskId"], "pushNotificationConfigId": params["id"]},
    ),
    "ListTaskPushNotificationConfigs": ("tasks/pushNotificationConfig/list", lambda params: {"id": params["taskId"]}),
    "DeleteTaskPushNotificationConfig": (
        "tasks/pushNotificationConfig/delete",
        lambda params: {"id": params["taskId"], "pushNotificationConfigId": params["id"]},
    ),
}


def old_message(params: dict[str, Any]) -> dict[str, Any]:
    said = params["message"]
    parts = [{"kind": "text", **part} for part in said["parts"]]
    return {
        "message": {**said, "kind": "message", "role": "user", "parts": parts},
        "configuration": {"blocking": False},
    }


def v0_3(operation: str, params: dict[str, Any]) -> Request:
    method, write = OLD_METHODS[operation]
    return Request("/", {"jsonrpc": "2.0", "id": 1, "method": method, "params": write(params)})


def v0_3_rest(operation: str, params: dict[str, Any]) -> Request:
    verb, template = PATHS[operation]
    path = "/v1" + template.replace("/extendedAgentCard", "/card").format(**params)
    if verb == "POST" and path.endswith("pushNotificationConfigs"):
        return Request(path, {"pushNotificationConfig": {"url": params["url"]}})
    if verb == "POST":
        return Request(path, old_message(params) if "message" in params else {})
    return Request(path, method=verb)


# Every way in which an operation can be asked for: version and binding -> how its request is written.
BINDINGS: dict[str, Callable[[str, dict[str, Any]], Request]] = {
    "v1.0 JSON-RPC": json_rpc,
    "v1.0 HTTP+JSON": rest,
    "v0.3 JSON-RPC": v0_3,
    "v0.3 HTTP+JSON": v0_3_rest,
}
CELLS = [
    (binding, operation)
    for binding in BINDINGS
    for operation in OPERATIONS
    if not binding.startswith("v0.3") or operation in OLD_METHODS
]


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    challenge: str | None

    def without(self, task_id: str) -> "Answer":
        """The same for any task."""
        return Answer(self.status, self.text.replace(task_id, "ID"), self.challenge)


class Matrix:
    """A server, its callers, and the owner's tasks by state."""

    def __init__(self, server: RunningServer, credentials: dict[str, str | None], tasks: dict[str, str]) -> None:
        self.server = server
        self.credentials = credentials
        self.tasks = tasks

    async def ask(self, request: Request, caller: str) -> Answer:
        """The answer; of a stream its first event."""
        credential = self.credentials[caller]
        headers = dict(request.headers) | ({"Authorization": f"Bearer {credential}"} if credential else {})
        async with (
            self.server.client() as client,
            client.stream(request.method, request.path, json=request.body, headers=headers) as response,
        ):
            return Answer(response.status_code, await _first(response), response.headers.get("www-authenticate"))

    async def head(self, state: str) -> TreeHead | None:
        return await self.server.application.session.storage.head(self.tasks[state])


async def _first(response: httpx2.Response) -> str:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        return (await response.aread()).decode()
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            return line
    return ""


@pytest_asyncio.fixture
async def matrix() -> AsyncIterator[Matrix]:
    async with running(auth=("keys",)) as server:
        keys = server.application.keys
        assert server.application.webhooks is not None
        server.application.webhooks.outbox.deliveries.sender = Receiver()  # type: ignore[assignment]
        grants = {
            "owner": Grant(principal="ann", tenant="t"),
            "same tenant": Grant(principal="bob", tenant="t"),
            "other tenant": Grant(principal="ann", tenant="u"),
            "expired": Grant(principal="ann", tenant="t", expires_at=1.0),
            "revoked": Grant(principal="ann", tenant="t"),
        }
        credentials: dict[str, str | None] = {"anonymous": None, "unknown": f"a2a_{'0' * 16}_{'0' * 64}"}
        for caller, grant in grants.items():
            key, credentials[caller] = await keys.create(grant)
            if caller == "revoked":
                await keys.revoke(key.id)
        tasks = {"never existed": NEVER}
        matrix = Matrix(server, credentials, tasks)
        for state, skill in (("live", "hold"), ("finished", "echo"), ("deleted", "echo")):
            sent = message(skill, {"data": {"key": "matrix"}}, context="matrix")
            webhook = {"id": "c", "url": "https://example.com/hook"}
            is_held = skill == "hold"
            sent |= {"configuration": {"returnImmediately": is_held, "taskPushNotificationConfig": webhook}}
            answer = await matrix.ask(json_rpc("SendMessage", sent), "owner")
            assert answer.status == 200, answer
            tasks[state] = httpx2.Response(200, text=answer.text).json()["result"]["task"]["id"]
        await server.lab.started["matrix"].wait()
        await server.application.session.delete(tasks["deleted"])
        yield matrix
        server.lab.released["matrix"].set()


@pytest.mark.asyncio
@pytest.mark.parametrize(("binding", "operation"), CELLS)
async def test_a_task_is_its_owners_and_to_others_it_does_not_exist(
    matrix: Matrix, binding: str, operation: str
) -> None:
    def request(task_id: str) -> Request:
        return BINDINGS[binding](operation, OPERATIONS[operation](task_id))

    before = {state: await matrix.head(state) for state in STATES}
    missing = (await matrix.ask(request(NEVER), "owner")).without(NEVER)
    for state, task_id in matrix.tasks.items():
        refused = {(await matrix.ask(request(task_id), caller)).without(task_id) for caller in TO_NOBODY[1:]}
        assert len(refused) == 1, "expired, revoked and unknown are told apart"
        assert refused.pop().status == 401
        nobody = await matrix.ask(request(task_id), "anonymous")
        assert (nobody.status, nobody.challenge) == (401, 'Bearer realm="a2a-server"')
        for caller in TO_OTHERS:
            answer = await matrix.ask(request(task_id), caller)
            assert answer.without(task_id) == (await matrix.ask(request(NEVER), caller)).without(NEVER), (caller, state)
            assert task_id not in answer.text or answer.without(task_id) == missing
    after = {state: await matrix.head(state) for state in STATES}
    assert after == before, "somebody else changed something"

    for state, task_id in matrix.tasks.items():
        answer = await matrix.ask(request(task_id), "owner")
        if operation in WITHOUT_A_TASK:
            assert answer.status not in (401, 403)
        elif state in ("live", "finished"):
            assert NOT_FOUND not in answer.text, state
        else:
            assert answer.without(task_id) == missing
    for state in ("live", "finished"):
        head = await matrix.head(state)
        assert head is not None and head.owner == owner_of("t", "ann")


@pytest.mark.asyncio
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("binding", [each for each in BINDINGS if "v0.3" not in each])  # v0.3 has no tenants
async def test_a_tenant_that_is_not_the_callers_holds_nothing(matrix: Matrix, binding: str, operation: str) -> None:
    """The credential says whose tasks a caller sees, whatever the caller writes: four forms of it."""
    live = matrix.tasks["live"]
    params = OPERATIONS[operation](live)
    write = BINDINGS[binding]

    own = await matrix.ask(write(operation, params | {"tenant": "t"}), "owner")
    assert NOT_FOUND not in own.text
    for tenant, caller in (("u", "owner"), ("t", "other tenant"), ("T", "owner")):
        other = await matrix.ask(write(operation, params | {"tenant": tenant}), caller)
        assert NOT_FOUND in other.text, (tenant, caller)
        never = await matrix.ask(write(operation, OPERATIONS[operation](NEVER) | {"tenant": tenant}), caller)
        assert other.without(live) == never.without(NEVER)


@pytest.mark.asyncio
async def test_a_list_has_the_callers_own_tasks_only(matrix: Matrix) -> None:
    """A context is the caller's own too: the same name means another one to everybody else."""
    listing = json_rpc("ListTasks", {"contextId": "matrix"})
    assert matrix.tasks["live"] in (await matrix.ask(listing, "owner")).text
    joined = json_rpc("SendMessage", message("echo", context="matrix"))

    assert (await matrix.ask(joined, "same tenant")).status == 200

    others = (await matrix.ask(listing, "same tenant")).text
    assert '"totalSize":1' in others
    assert matrix.tasks["live"] not in others
