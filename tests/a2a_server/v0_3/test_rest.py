"""The HTTP+JSON binding of v0.3: its paths lead to the same handlers, and official types read what it answers."""

import json
from typing import Any

import httpx2
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2 as official
from google.protobuf import json_format

from core.executors.base import ExecutorSpec, Parts, TaskContext
from tests.a2a_server.conftest import RunningServer, _Executor, running

TEXT = {"text": "hi"}


def said(skill: str = "", *parts: Any, task: str = "", **configuration: Any) -> dict[str, Any]:
    """The body of message:send, as v0.3's proto has it."""
    message: dict[str, Any] = {"messageId": "m", "role": "ROLE_USER", "content": list(parts) or [TEXT]}
    message |= {"taskId": task} if task else {}
    wanted = {"configuration": configuration} if configuration else {}
    return {"message": message, "metadata": {"skillId": skill} if skill else {}} | wanted


def as_json_rpc(skill: str, *parts: Any) -> dict[str, Any]:
    """The same in the shapes of JSON-RPC, which the specification's text shows."""
    message = {"kind": "message", "messageId": "m", "role": "user", "parts": list(parts)}
    return {"message": message, "metadata": {"skillId": skill}}


def read(type_: Any, answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return json_format.ParseDict(answer.json(), type_())


def events(answer: httpx2.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json_format.Parse(line, official.StreamResponse()) for line in lines]


async def sent(client: httpx2.AsyncClient, body: Any) -> Any:
    return read(official.SendMessageResponse, await client.post("/v1/message:send", json=body)).task


@pytest.mark.asyncio
async def test_a_message_becomes_a_task_that_official_types_read(server: RunningServer) -> None:
    """Found from outside: a v0.3 client over HTTP+JSON found no path at all."""
    async with server.client() as client:
        task = await sent(client, said("echo", TEXT, {"data": {"data": {"n": 1}}}))
        again = read(official.Task, await client.get(f"/v1/tasks/{task.id}"))
    assert official.TaskState.Name(task.status.state) == "TASK_STATE_COMPLETED"
    assert dict(task.artifacts[0].parts[0].data.data) == {"text": "hi", "n": 1}
    assert [part.WhichOneof("part") for part in task.history[0].content] == ["text", "data"]
    assert again == task


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": "x"}, {"text": "x"}),
        ({"file": {"fileWithBytes": "aGk=", "mimeType": "text/plain", "name": "a"}}, None),
        ({"file": {"file_with_uri": "https://example.com/a"}}, {"file": {"fileWithUri": "https://example.com/a"}}),
        ({"data": {"data": {"a": [None, 1]}}}, None),
        ({"text": "x", "metadata": {"k": 1}}, None),
    ],
)
@pytest.mark.asyncio
async def test_parts_come_back_as_they_were(server: RunningServer, given: Any, told: Any) -> None:
    async with server.client() as client:
        answer = await client.post("/v1/message:send", json=said("echo", given))
    assert answer.json()["task"]["history"][0]["content"] == [told or given]


@pytest.mark.parametrize(
    "parts",
    [
        (
            {"kind": "text", "text": "x"},
            {"kind": "data", "data": {"a": 1}},
            {"kind": "file", "file": {"bytes": "aGk="}},
        ),
        ({"text": "x"}, {"data": {"a": 1}}, {"file": {"bytes": "aGk="}}),
    ],
    ids=["with kind", "without"],
)
@pytest.mark.asyncio
async def test_the_shapes_of_json_rpc_are_taken_too(server: RunningServer, parts: Any) -> None:
    async with server.client() as client:
        task = await sent(client, as_json_rpc("echo", *parts))
    assert [part.WhichOneof("part") for part in task.history[0].content] == ["text", "data", "file"]


@pytest.mark.asyncio
async def test_output_that_v0_3_cannot_say_is_wrapped(server: RunningServer) -> None:
    async def all_kinds(inputs: dict[str, Any], context: TaskContext) -> Any:
        parts = [
            {"data": [1]},
            {"raw": b"hi", "filename": "f"},
            {"url": "https://x/", "mediaType": "a/b"},
            {"text": "t"},
        ]
        return Parts(parts)

    server.lab.registry.register(ExecutorSpec(id="all_kinds", make=lambda: _Executor(all_kinds)))
    async with server.client() as client:
        task = await sent(client, said("all_kinds"))
    data, raw, url, text = task.artifacts[0].parts
    assert json_format.MessageToDict(data) == {
        "data": {"data": {"value": [1.0]}},
        "metadata": {"data_part_compat": True},
    }
    assert (raw.file.file_with_bytes, raw.file.name) == (b"hi", "f")
    assert (url.file.file_with_uri, url.file.mime_type, text.text) == ("https://x/", "a/b", "t")


@pytest.mark.asyncio
async def test_a_stream_is_told_in_official_events_and_ends_with_final(server: RunningServer) -> None:
    async with server.client() as client:
        told = events(await client.post("/v1/message:stream", json=said("chunks")))
    assert [each.WhichOneof("payload") for each in told] == [
        *("task", "status_update", "artifact_update", "artifact_update", "status_update", "status_update"),
    ]
    assert [each.status_update.final for each in told if each.HasField("status_update")] == [False, False, True]
    assert [each.artifact_update.append for each in told if each.HasField("artifact_update")] == [False, True]


@pytest.mark.asyncio
async def test_a_direct_message_is_one(server: RunningServer) -> None:
    async with server.client() as client:
        answer = read(official.SendMessageResponse, await client.post("/v1/message:send", json=said("reply")))
        (event,) = events(await client.post("/v1/message:stream", json=said("reply")))
    assert answer.msg.content[0].text == event.msg.content[0].text == "direct"


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.asyncio
async def test_a_task_is_followed_answered_and_cancelled(server: RunningServer, verb: str) -> None:
    async with server.client() as client:
        asked = await sent(client, said("ask"))
        assert (official.TaskState.Name(asked.status.state), asked.status.update.content[0].text) == (
            "TASK_STATE_INPUT_REQUIRED",
            "first?",
        )
        again = await sent(client, said(task=asked.id, blocking=True, historyLength=1))
        assert (again.status.update.content[0].text, len(again.history)) == ("second?", 1)
        async with client.stream(verb, f"/v1/tasks/{asked.id}:subscribe") as stream:
            lines = stream.aiter_lines()
            assert "task" in await anext(line async for line in lines if line.startswith("data: "))
            cancelled = read(official.Task, await client.post(f"/v1/tasks/{asked.id}:cancel", json={"name": "x"}))
            told = [json.loads(line[6:]) async for line in lines if line.startswith("data: ")]
        assert official.TaskState.Name(cancelled.status.state) == "TASK_STATE_CANCELLED"
        assert told[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELLED"
        assert told[-1]["statusUpdate"]["final"] is True


@pytest.mark.parametrize("is_whole", [True, False], ids=["python", "node"])
@pytest.mark.asyncio
async def test_webhooks_are_made_read_listed_and_deleted(server: RunningServer, is_whole: bool) -> None:
    bare = {"pushNotificationConfig": {"id": "c", "url": "https://example.com/", "token": "t"}}
    async with server.client() as client:
        task = await sent(client, said("echo"))
        path = f"/v1/tasks/{task.id}/pushNotificationConfigs"
        body = {"parent": "tasks/x", "configId": "c", "config": bare} if is_whole else bare
        made = read(official.TaskPushNotificationConfig, await client.post(path, json=body))
        got = read(official.TaskPushNotificationConfig, await client.get(f"{path}/c"))
        listed = read(official.ListTaskPushNotificationConfigResponse, await client.get(path))
        gone = await client.delete(f"{path}/c")
        after = await client.get(f"{path}/c")
        missing = await client.post(path, json={})
    assert made.name == f"tasks/{task.id}/pushNotificationConfigs/c"
    assert (got, list(listed.configs)) == (made, [made])
    assert (gone.status_code, gone.json(), after.status_code) == (200, {}, 404)
    assert (missing.status_code, "pushNotificationConfig" in missing.text) == (400, True)


@pytest.mark.parametrize(
    ("beside", "within", "made"),
    [("c", "c", "c"), ("c", None, "c"), ("c", "", "c"), ("", "c", "c"), (None, "c", "c")],
)
@pytest.mark.parametrize("name", ["configId", "config_id"])
@pytest.mark.asyncio
async def test_a_webhook_has_the_id_that_stands_beside_it(
    server: RunningServer, name: str, beside: str | None, within: str | None, made: str
) -> None:
    """Python's client says it twice; the proto has it beside the webhook (v0.3, a2a.proto)."""
    webhook = {"url": "https://example.com/"} | ({} if within is None else {"id": within})
    for body in ({"config": {"pushNotificationConfig": webhook}}, {"pushNotificationConfig": webhook}):
        async with server.client() as client:
            task = await sent(client, said("echo"))
            path = f"/v1/tasks/{task.id}/pushNotificationConfigs"
            body |= {} if beside is None else {name: beside}  # type: ignore[dict-item]
            told = read(official.TaskPushNotificationConfig, await client.post(path, json=body))
            assert told.push_notification_config.id == made
            assert (await client.get(f"{path}/{made}")).status_code == 200


AUTHENTICATIONS: list[tuple[Any, Any]] = [
    ({}, None),
    (None, None),
    ({"schemes": []}, None),
    ({"schemes": [], "credentials": ""}, None),
    ({"schemes": ["Bearer"], "credentials": "x"}, ["Bearer"]),
    ({"schemes": ["Bearer"]}, ["Bearer"]),
]


@pytest.mark.parametrize(("given", "schemes"), AUTHENTICATIONS)
@pytest.mark.asyncio
async def test_what_is_empty_in_a_webhook_is_not_there(server: RunningServer, given: Any, schemes: Any) -> None:
    """In ProtoJSON; v0.3's own kit sends `authentication: {}` with every webhook."""
    webhook = {"url": "https://example.com/", "id": "", "token": "", "authentication": given}
    async with server.client() as client:
        task = await sent(client, said("echo"))
        path = f"/v1/tasks/{task.id}/pushNotificationConfigs"
        for body in ({"config": {"push_notification_config": webhook}}, {"pushNotificationConfig": webhook}):
            made = read(official.TaskPushNotificationConfig, await client.post(path, json=body))
        along = await client.post("/v1/message:send", json=said("echo", pushNotification=webhook))
    assert list(made.push_notification_config.authentication.schemes) == (schemes or [])
    assert made.push_notification_config.HasField("authentication") is (schemes is not None)
    assert along.status_code == 200, along.text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"authentication": {"credentials": "x"}}, "schemes is required beside credentials"),
        ({"authentication": {"schemes": [""]}}, "authentication.schemes[0]"),
        ({"authentication": "Bearer"}, "authentication"),
        ({"url": ""}, "pushNotificationConfig.url"),
    ],
)
@pytest.mark.asyncio
async def test_a_webhook_that_cannot_be_meant_is_refused_by_name(server: RunningServer, wrong: Any, field: str) -> None:
    async with server.client() as client:
        task = await sent(client, said("echo"))
        body = {"pushNotificationConfig": {"url": "https://example.com/"} | wrong}
        refused = await client.post(f"/v1/tasks/{task.id}/pushNotificationConfigs", json=body)
    assert (refused.status_code, refused.json()["code"], field in refused.text) == (400, -32602, True), refused.text


@pytest.mark.asyncio
async def test_two_ids_of_one_webhook_are_refused_by_name(server: RunningServer) -> None:
    async with server.client() as client:
        task = await sent(client, said("echo"))
        body = {"configId": "a", "config": {"pushNotificationConfig": {"id": "b", "url": "https://example.com/"}}}
        refused = await client.post(f"/v1/tasks/{task.id}/pushNotificationConfigs", json=body)
        listed = await client.get(f"/v1/tasks/{task.id}/pushNotificationConfigs")
    assert (refused.status_code, refused.json()["code"], "configId" in refused.text) == (400, -32602, True)
    assert listed.json() == {}


@pytest.mark.asyncio
async def test_tasks_are_listed_as_an_array_latest_first(server: RunningServer) -> None:
    """v0.3 §3.5.6 and after §7.3: no params, and `[Task]`."""
    async with server.client() as client:
        assert (await client.get("/v1/tasks")).json() == []
        one, two = await sent(client, said("echo")), await sent(client, said("ask"))
        answer = await client.get("/v1/tasks")
        tasks = [json_format.ParseDict(each, official.Task()) for each in answer.json()]
        read_alone = (await client.get("/tasks", headers={"A2A-Version": "1.0"})).json()["tasks"]
    assert [task.id for task in tasks] == [two.id, one.id] == [task["id"] for task in read_alone]
    assert tasks[0].status == two.status
    assert not any(task.history or task.artifacts or "nextPageToken" in task.metadata for task in tasks)


@pytest.mark.asyncio
async def test_a_list_goes_on_with_the_token_of_its_last_task(server: RunningServer) -> None:
    async with server.client() as client:
        made = [(await sent(client, said("echo"))).id for _ in range(3)]
        found, token = [], ""
        for size in (2, 1):
            page = (await client.get("/v1/tasks", params={"pageSize": size, "pageToken": token})).json()
            found += [task["id"] for task in page]
            token = page[-1]["metadata"].get("nextPageToken", "")
            assert not any("nextPageToken" in task["metadata"] for task in page[:-1])
        wrong = [await client.get("/v1/tasks", params=each) for each in ({"pageSize": 101}, {"pageToken": "x"})]
    assert (found, token) == (made[::-1], "")
    assert [(each.status_code, each.json()["code"]) for each in wrong] == [(400, -32602)] * 2
    assert "pageSize" in wrong[0].text and "pageToken" in wrong[1].text


@pytest.mark.parametrize("path", ["/v1/extendedAgentCard", "/v1/tasks/t/nothing", "/v1/nothing", "/v1/v1/tasks"])
@pytest.mark.parametrize("version", [None, "0.3", "1.0"])
@pytest.mark.asyncio
async def test_what_v0_3_does_not_have_is_not_read_as_of_a_tenant(
    server: RunningServer, path: str, version: str | None
) -> None:
    """`v1` is v0.3's root, so no tenant of v1.0's paths; such a one is named in `tenant`."""
    async with server.client() as client:
        answer = await client.get(path, headers={} if version is None else {"A2A-Version": version})
        nothing = await client.get("/nothing")
        other = await client.get("/acme/extendedAgentCard", headers={"A2A-Version": "1.0"})
    assert (answer.status_code, answer.content) == (404, nothing.content), answer.text
    assert other.content != nothing.content, "where a tenant may stand it is looked for"


@pytest.mark.asyncio
async def test_a_list_of_a_version_that_the_path_does_not_speak_is_refused(server: RunningServer) -> None:
    async with server.client() as client:
        answer = await client.get("/v1/tasks", headers={"A2A-Version": "1.0"})
        posted = await client.post("/v1/tasks", json={})
    assert (answer.status_code, answer.json()["code"]) == (400, -32004)
    assert posted.status_code == 405


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "code"),
    [
        ("GET", "/v1/tasks/nope", None, 404, -32001),
        ("POST", "/v1/tasks/nope:cancel", {}, 404, -32001),
        ("GET", "/v1/tasks/nope:subscribe", None, 404, -32001),
        ("POST", "/v1/message:send", {}, 400, -32602),
        ("POST", "/v1/message:stream", said("no-such-skill"), 400, -32602),
        ("POST", "/v1/message:stream", said(task="nope"), 404, -32001),
        ("POST", "/v1/message:send", as_json_rpc("echo", {"text": "a", "data": {}}), 400, -32602),
        ("POST", "/v1/message:send", as_json_rpc("echo", {}), 400, -32602),
        ("POST", "/v1/message:send", as_json_rpc("echo", {"type": "other", "text": "a"}), 400, -32602),
        ("GET", "/v1/card", None, 400, -32007),
        ("DELETE", "/v1/tasks/nope", None, 405, -32601),
        ("GET", "/v1/message:send", None, 405, -32601),
    ],
)
@pytest.mark.asyncio
async def test_an_error_has_its_status_and_the_code_that_v0_3_knows(
    server: RunningServer, verb: str, path: str, body: Any, status: int, code: int
) -> None:
    async with server.client() as client:
        answer = await client.request(verb, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.mark.asyncio
async def test_a_configuration_without_blocking_does_not_wait(server: RunningServer) -> None:
    """Official clients that poll leave it out: in proto3 that is false."""
    async with server.client() as client:
        body = said("hold", acceptedOutputModes=["application/json"])
        assert official.TaskState.Name((await sent(client, body)).status.state) == "TASK_STATE_SUBMITTED"
        task = await sent(client, said("echo", blocking=True))
    assert official.TaskState.Name(task.status.state) == "TASK_STATE_COMPLETED"


@pytest.mark.asyncio
async def test_a_version_that_the_paths_do_not_speak_is_refused(server: RunningServer) -> None:
    async with server.client() as client:
        assert (await client.get("/v1/tasks/nope", headers={"A2A-Version": "1.0"})).status_code == 400
        assert (await client.get("/v1/tasks/nope", headers={"A2A-Version": "0.3"})).status_code == 404


@pytest.mark.asyncio
async def test_followers_of_both_bindings_get_their_own_frames(server: RunningServer) -> None:
    """What an event looks like is worked out once for all followers of the same form."""
    async with server.client() as client:
        rest = (await client.post("/v1/message:stream", json=said("chunks"))).text
        body = {"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": as_json_rpc("chunks", TEXT)}
        rpc = (await client.post("/", json=body)).text
    assert "statusUpdate" in rest and '"kind"' not in rest
    assert '"kind":"status-update"' in rpc and "statusUpdate" not in rpc


@pytest.mark.asyncio
async def test_without_webhooks_they_are_not_supported() -> None:
    async with running(push=False) as server, server.client() as client:
        answer = await client.get("/v1/tasks/t/pushNotificationConfigs")
    assert (answer.status_code, answer.json()["code"]) == (400, -32003)
