"""The `keys.*` methods, and what they do to open streams."""

import asyncio
import json
import logging
from typing import Any

import pytest

from a2a_server.auth.principal import Principal
from a2a_server.auth.stored_keys import Grant
from tests.a2a_server.conftest import Caller, Frame, RpcError, RunningServer, calling, message, running


async def error_of(call: Caller, method: str, params: Any = None, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as refused:
        await call(method, params, **context)
    return refused.value


@pytest.mark.asyncio
async def test_a_key_is_made_listed_rotated_and_revoked() -> None:
    async with calling(auth=("keys",)) as call:
        made = await call("keys.create", {"principal": "ann", "tenant": "t", "skills": ["echo"], "expires_in": 60})
        text = made.pop("key")
        assert await call("keys.list") == [made]
        assert (made["principal"], made["tenant"], made["skills"]) == ("ann", "t", ["echo"])
        assert made["last_characters"] == text[-4:]

        rotated = await call("keys.rotate", {"id": made["id"], "grace": 5})
        assert rotated["key"] != text
        assert rotated["replaced_until"] is not None

        assert (await call("keys.revoke", {"id": made["id"]}))["revoked_at"] is not None
        (listed,) = await call("keys.list")
        assert listed["revoked_at"] is not None
        assert not {"key", "digest", "replaced"} & set(listed)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("keys.create", {}, "principal"),
        ("keys.create", {"principal": ""}, "principal"),
        ("keys.create", {"principal": "x" * 301}, "principal"),
        ("keys.create", {"principal": "a", "expires_in": 0}, "expires_in"),
        ("keys.create", {"principal": "a", "expires_in": 1e300}, "expires_in"),
        ("keys.create", {"principal": "a", "skills": [""]}, "skills[0]"),
        ("keys.create", {"principal": "a", "owner": "b"}, "owner"),
        ("keys.rotate", {"id": "x", "grace": -1}, "grace"),
        ("keys.rotate", {}, "id"),
        ("keys.revoke", {"id": 1}, "id"),
    ],
)
async def test_wrong_params_name_their_field(method: str, params: Any, field: str) -> None:
    async with calling(auth=("keys",)) as call:
        error = await error_of(call, method, params)
        assert (error.code, error.fields) == (-32602, {field})


@pytest.mark.asyncio
async def test_the_log_says_who_changed_which_key_and_no_secrets(caplog: pytest.LogCaptureFixture) -> None:
    operator = Principal(id="ro\not", tenant="t", is_operator=True)
    async with calling(auth=("keys",)) as call:
        with caplog.at_level(logging.INFO, "a2a_server.methods.keys"):
            made = await call("keys.create", {"principal": "an\nn"}, principal=operator)
            new = await call("keys.rotate", {"id": made["id"]}, principal=operator)
            await call("keys.revoke", {"id": made["id"]}, principal=operator)

    told = [record.getMessage() for record in caplog.records if record.name == "a2a_server.methods.keys"]
    assert [line.split()[:2] for line in told] == [["key", made["id"]]] * 3
    assert all(line.endswith(r"by 'ro\not' of tenant 't'") and "\n" not in line for line in told)
    assert not any(secret["key"][-64:] in caplog.text for secret in (made, new))


@pytest.mark.asyncio
async def test_an_unknown_key_is_named() -> None:
    async with calling(auth=("keys",)) as call:
        for method in ("keys.rotate", "keys.revoke"):
            error = await error_of(call, method, {"id": "nobody"})
            assert (error.code, "nobody" in error.message) == (-32602, True)


@pytest.mark.asyncio
async def test_without_auth_no_caller_can_create_a_key(call: Caller) -> None:
    """It would outlive the day on which callers are identified."""
    assert (await error_of(call, "keys.create", {"principal": "me", "is_operator": True})).code == -32601


# Open streams


async def subscribed(server: RunningServer, key: str, first: asyncio.Event) -> list[Frame]:
    """The events of a task that does not end, until the server ends the stream."""
    begin = message("hold", {"data": {"key": "open"}})
    request = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": begin}
    headers = {"A2A-Version": "1.0", "X-API-Key": key}
    frames: list[Frame] = []
    async with server.client() as client, client.stream("POST", "/", json=request, headers=headers) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                frames.append(Frame(None, json.loads(line[6:])))
                first.set()
    return frames


@pytest.mark.asyncio
@pytest.mark.parametrize("change", ["keys.revoke", "keys.rotate"])
async def test_a_change_of_a_key_ends_its_open_streams_at_once_and_a_fresh_one_resumes(change: str) -> None:
    async with running(auth=("keys",)) as server, server.client() as client:
        keys, first = server.application.keys, asyncio.Event()
        mine, text = await keys.create(Grant(principal="ann"))
        _, operator = await keys.create(Grant(principal="root", is_operator=True))
        reading = asyncio.create_task(subscribed(server, text, first))
        await first.wait()
        await server.lab.started["open"].wait()

        call = {"jsonrpc": "2.0", "id": 1, "method": change, "params": {"id": mine.id}}
        assert (await client.post("/", json=call, headers={"X-API-Key": operator})).status_code == 200

        async with asyncio.timeout(10):
            frames = await reading
        assert all("error" not in frame.data for frame in frames)
        old = await client.post("/", json=call, headers={"X-API-Key": text})
        assert old.status_code == 401
        task_id = frames[0].result["task"]["id"]
        _, fresh = await keys.create(Grant(principal="ann"))
        server.lab.released["open"].set()
        get = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": task_id}}
        headers = {"A2A-Version": "1.0", "X-API-Key": fresh, "Last-Event-ID": "3"}
        resumed = await client.post("/", json=get, headers=headers)
        assert "TASK_STATE_COMPLETED" in resumed.text


@pytest.mark.asyncio
async def test_expiry_ends_an_open_stream() -> None:
    async with running(auth=("keys",)) as server:
        clock = server.application.session.clock
        _, text = await server.application.keys.create(Grant(principal="ann", expires_at=clock.now() + 0.5))

        async with asyncio.timeout(10):
            frames = await subscribed(server, text, asyncio.Event())

        assert frames[0].result["task"]["id"]
        server.lab.released["open"].set()
