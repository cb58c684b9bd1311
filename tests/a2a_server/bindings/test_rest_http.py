"""The HTTP+JSON binding of a running server: what clients see, and what the gate refuses on its paths."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from core.model.errors import StorageUnavailable
from tests.a2a_server.bindings.test_rest import SECRET, fields_of, reason_of
from tests.a2a_server.conftest import RunningServer, message, running


def events_of(text: str) -> list[tuple[int, dict[str, Any]]]:
    """Number and object of each event of a whole stream."""
    blocks = [block.split("\n") for block in text.strip().split("\n\n") if not block.startswith(":")]
    return [(int(number[4:]), json.loads(data[6:])) for number, data in blocks]


async def begin(client: httpx2.AsyncClient, skill: str) -> str:
    """The id of a task that runs."""
    body = message(skill) | {"configuration": {"returnImmediately": True}}
    return str((await client.post("/message:send", json=body)).json()["task"]["id"])


@pytest.mark.asyncio
async def test_task_is_sent_read_and_listed(server: RunningServer) -> None:
    async with server.client() as client:
        sent = await client.post("/message:send", json=message("echo"))
        task = sent.json()["task"]
        read = await client.get(f"/tasks/{task['id']}?historyLength=0")
        page = await client.get("/tasks", params={"contextId": task["contextId"], "includeArtifacts": "true"})
        endpoint = await client.post("/tasks", json={"jsonrpc": "2.0", "id": 1, "method": "system.health"})
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert (sent.status_code, sent.headers["content-type"]) == (200, "application/json")
    assert (read.status_code, read.headers["content-type"]) == (200, "application/a2a+json")
    assert read.json() == {key: value for key, value in task.items() if key != "history"}
    assert (page.json()["totalSize"], page.json()["nextPageToken"]) == (1, "")
    assert [each["id"] for each in page.json()["tasks"]] == [task["id"]]
    assert endpoint.json()["result"]["status"] == "healthy"


@pytest.mark.asyncio
async def test_message_is_streamed_and_a_broken_stream_resumes(server: RunningServer) -> None:
    async with server.client() as client:
        whole = await client.post("/message:stream", json=message("chunks"))
        events = events_of(whole.text)
        task_id = events[0][1]["task"]["id"]
        rest = await client.get(f"/tasks/{task_id}:subscribe", headers={"Last-Event-ID": str(events[1][0])})
        wrong = await client.get(f"/tasks/{task_id}:subscribe", headers={"Last-Event-ID": "abc"})
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert events[-1][1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert events_of(rest.text) == events[2:]
    assert (wrong.status_code, fields_of(wrong.json()["error"])) == (400, {"Last-Event-ID"})


@pytest.mark.parametrize("verb", ["GET", "POST"])
@pytest.mark.asyncio
async def test_task_is_followed_until_it_is_cancelled_without_a_body(server: RunningServer, verb: str) -> None:
    """Neither POST has a body, nor then a Content-Type."""
    async with server.client() as client:
        task_id = await begin(client, "hold")
        await server.lab.started["hold"].wait()
        async with client.stream(verb, f"/tasks/{task_id}:subscribe") as response:
            lines = response.aiter_lines()
            first = [await anext(lines), await anext(lines)]
            cancelled = await client.post(f"/tasks/{task_id}:cancel")
            rest = [line async for line in lines if line.startswith("data: ")]
        again = await client.post(f"/tasks/{task_id}:subscribe")
    assert json.loads(first[1][6:])["task"]["id"] == task_id
    assert (cancelled.status_code, cancelled.json()["status"]["state"]) == (200, "TASK_STATE_CANCELED")
    assert json.loads(rest[-1][6:])["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert (again.status_code, reason_of(again.json()["error"])) == (400, "UNSUPPORTED_OPERATION")


@pytest.mark.asyncio
async def test_stream_that_cannot_begin_is_a_plain_error(server: RunningServer) -> None:
    async with server.client() as client:
        for response in (await client.get("/tasks/nope:subscribe"), await client.post("/message:stream", json={})):
            assert response.headers["content-type"].startswith("application/")
            assert response.json()["error"]["code"] == response.status_code >= 400


@pytest.mark.asyncio
async def test_what_is_not_offered_says_so() -> None:
    async with running(push=False) as server, server.client() as client:
        configs = "/tasks/t/pushNotificationConfigs"
        answers = [
            await client.post(configs, json={"url": "https://x.example"}),
            await client.get(configs),
            await client.get(f"{configs}/c"),
            await client.delete(f"{configs}/c"),
        ]
        card = await client.get("/extendedAgentCard")
    assert {(each.status_code, reason_of(each.json()["error"])) for each in answers} == {
        (400, "PUSH_NOTIFICATION_NOT_SUPPORTED")
    }
    assert (card.status_code, reason_of(card.json()["error"])) == (400, "UNSUPPORTED_OPERATION")


@pytest.mark.asyncio
async def test_id_with_a_slash_reaches_the_method(server: RunningServer) -> None:
    async with server.client() as client:
        for encoded, task_id in (("a%2Fevents", "a/events"), ("a%2Fb%00", "a/b\0"), ("%C3%A4", "ä")):
            error = (await client.get(f"/tasks/{encoded}")).json()["error"]
            assert (error["code"], error["details"][0]["metadata"]) == (404, {"taskId": task_id})


@pytest.mark.asyncio
async def test_version_comes_from_header_or_query(server: RunningServer) -> None:
    async with server.client() as client:
        for response in (
            await client.get("/tasks", headers={"A2A-Version": "0.3"}),
            await client.get("/tasks?A2A-Version=99.0"),
        ):
            assert reason_of(response.json()["error"]) == "VERSION_NOT_SUPPORTED"
        assert (await client.get("/tasks", headers={"A2A-Version": "1.0"})).status_code == 200


@pytest.mark.asyncio
async def test_database_out_of_reach_is_told_to_come_back(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise StorageUnavailable(f"disk I/O error on {SECRET}")

    monkeypatch.setattr(server.application.session.storage, "head", broken)
    async with server.client() as client:
        response = await client.get("/tasks/t")
    assert (response.status_code, response.json()["error"]["status"]) == (503, "UNAVAILABLE")
    assert "retry-after" in response.headers
    assert SECRET not in response.text


# The gate, on these paths


@pytest.mark.parametrize(
    ("headers", "status", "name"),
    [
        ({"Host": "evil.example"}, 421, "INVALID_ARGUMENT"),
        ({"Origin": "https://evil.example"}, 403, "PERMISSION_DENIED"),
        ({"Origin": "null", "Content-Type": ""}, 403, "PERMISSION_DENIED"),
        ({"Content-Type": "text/plain"}, 415, "INVALID_ARGUMENT"),
        ({"Content-Type": ""}, 415, "INVALID_ARGUMENT"),
        ({"Content-Encoding": "gzip"}, 415, "INVALID_ARGUMENT"),
    ],
)
@pytest.mark.asyncio
async def test_gate_refuses_in_the_binding_s_shape(
    server: RunningServer, headers: dict[str, str], status: int, name: str
) -> None:
    async with server.client() as client:
        response = await client.post("/message:send", json=message("echo"), headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["status"]) == (status, status, name)
    assert reason_of(error)


@pytest.mark.parametrize("given", [{"content": b"x"}, {"headers": {"Content-Type": "text/plain"}}])
@pytest.mark.asyncio
async def test_type_may_be_missing_only_with_the_body(server: RunningServer, given: dict[str, Any]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    async with server.client() as client:
        assert (await client.post("/tasks/nope:cancel")).status_code == 404
        assert (await client.post("/tasks/nope:cancel", **given)).status_code == 415
        assert (await client.post("/tasks/nope:cancel", content=chunks())).status_code == 415
        crossed = await client.post("/tasks/nope:cancel", headers={"Origin": "https://evil.example"})
        assert crossed.status_code == 403


@pytest.mark.asyncio
async def test_body_over_the_limit_is_refused_in_the_binding_s_shape() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"[" * 600
        yield b"[" * 600

    async with running(max_body=1000) as server, server.client() as client:
        for body in (chunks(), b"[" * 1200):
            response = await client.post("/message:send", content=body, headers={"Content-Type": "application/json"})
            assert (response.status_code, response.json()["error"]["code"]) == (413, 413)


@pytest.mark.asyncio
async def test_server_that_stops_refuses_in_the_binding_s_shape(server: RunningServer) -> None:
    server.application.drain()
    async with server.client() as client:
        response = await client.get("/tasks/t")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json()["error"]["status"] == "UNAVAILABLE"


@pytest.mark.asyncio
async def test_unknown_path_and_wrong_http_method_are_json_everywhere(server: RunningServer) -> None:
    async with server.client() as client:
        unknown = await client.post("/no/such/path", json={})
        wrong = await client.delete("/readyz")
    assert (unknown.status_code, unknown.json()["error"]["status"]) == (404, "NOT_FOUND")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, 405)
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}
