"""Streams: what followers share, where a broken one resumes, and readers that do not read."""

import asyncio
import json
import logging
import socket
from typing import Any

import pytest

from a2a_server.bindings.sse import EventStream
from tests.a2a_server.conftest import Frame, RunningServer, message, running, until

TREE = [
    {"id": "r", "name": "folder"},
    {"id": "a", "name": "steps", "parent_id": "r"},
    {"id": "h", "name": "hold", "parent_id": "r", "dependencies": ["a"]},
    {"id": "b", "name": "chunks", "parent_id": "r", "dependencies": ["h"]},
]


def rpc(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


def frames_of(text: str) -> list[Frame]:
    """The events of a `text/event-stream`, each of one data line."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            found.append(Frame(int(fields["id"]) if "id" in fields else None, json.loads(fields["data"])))
    return found


# Over HTTP


@pytest.mark.asyncio
async def test_frames_are_numbered_one_line_events_of_a_response_each(server: RunningServer) -> None:
    async with server.client() as client:
        response = await client.post("/", json=rpc("SendStreamingMessage", message("chunks")))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    frames = frames_of(response.text)
    assert [frame.seq for frame in frames] == [3, 4, 5, 6, 7, 8]
    assert all(frame.data["jsonrpc"] == "2.0" and frame.data["id"] == 7 for frame in frames)


@pytest.mark.asyncio
async def test_wrong_params_of_a_stream_are_a_plain_json_error(server: RunningServer) -> None:
    async with server.client() as client:
        response = await client.post("/", json=rpc("SendStreamingMessage", message("unheard")))
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]["code"] == -32602


@pytest.mark.asyncio
async def test_broken_stream_resumes_exactly_where_it_broke(server: RunningServer) -> None:
    """A reader breaks off in the middle, another one sees it all; both have seen the same in the end."""
    given = {"message": message(None, {"data": {"tasks": TREE}})["message"]}
    async with server.client() as client:
        text = ""
        async with client.stream("POST", "/", json=rpc("SendStreamingMessage", given)) as response:
            async for chunk in response.aiter_text():
                text += chunk
                if '"nodeName":"hold"' in text and text.endswith("\n\n"):
                    break
        first = frames_of(text)
        task_id = first[0].result["task"]["id"]
        last_seen = max(frame.seq for frame in first if frame.seq is not None)
        server.lab.released["hold"].set()
        resumed = await client.post(
            "/", json=rpc("SubscribeToTask", {"id": task_id}), headers={"Last-Event-ID": str(last_seen)}
        )
        whole = await client.post("/", json=rpc("SubscribeToTask", {"id": task_id}), headers={"Last-Event-ID": "3"})
    assert first[1:] + frames_of(resumed.text) == frames_of(whole.text)
    assert frames_of(whole.text)[-1].result["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.asyncio
async def test_event_source_gets_the_events_of_a_tree_and_resumes(server: RunningServer) -> None:
    server.lab.released["hold"].set()
    async with server.client() as client:
        live = frames_of(
            (await client.post("/", json=rpc("tasks.execute", {"tasks": TREE, "use_streaming": True}))).text
        )
        path = f"/tasks/{live[0].result['root_task_id']}/events"
        assert frames_of((await client.get(path)).text) == live[1:]
        for header, query in (({"Last-Event-ID": "6"}, ""), ({}, "?after=6")):
            resumed = frames_of((await client.get(path + query, headers=header)).text)
            assert resumed == [frame for frame in live[1:] if frame.seq is None or frame.seq > 6]
        end = await client.get(path, headers={"Last-Event-ID": str(live[-2].seq)})
        assert (end.status_code, end.content) == (204, b"")


@pytest.mark.asyncio
async def test_event_source_of_a_node_tells_of_that_node_and_the_end(server: RunningServer) -> None:
    server.lab.released["hold"].set()
    async with server.client() as client:
        tree = (await client.post("/", json=rpc("tasks.execute", {"tasks": TREE, "wait": True}))).json()["result"]
        child = tree["children"][0]["id"]
        frames = frames_of((await client.get(f"/tasks/{child}/events")).text)
    assert [f.data["type"] for f in frames] == ["task_start", "progress", "task_completed", "final", "stream_end"]
    assert {f.data["task_id"] for f in frames[:3]} == {child}


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/tasks/unheard/events", {}, 404),
        ("/tasks/{id}/events", {"Last-Event-ID": "x"}, 400),
        ("/tasks/{id}/events?after=-1", {}, 400),
        ("/tasks/{id}/events", {"Last-Event-ID": "99"}, 400),
        ("/tasks/{id}/events", {"Last-Event-ID": "٣"}, 400),
    ],
)
@pytest.mark.asyncio
async def test_event_source_that_asks_wrongly_gets_a_json_error(
    server: RunningServer, path: str, headers: dict[str, str], status: int
) -> None:
    async with server.client() as client:
        made = (await client.post("/", json=rpc("tasks.create", {"name": "echo"}))).json()["result"]
        encoded = {name: value.encode() for name, value in headers.items()}
        response = await client.get(path.format(id=made["id"]), headers=encoded)
    assert response.status_code == status
    assert response.json()["error"]["message"]


@pytest.mark.asyncio
async def test_quiet_stream_is_kept_alive_by_comments() -> None:
    async with running(sse_ping=0.01) as server, server.client() as client:
        text = ""
        async with client.stream("POST", "/", json=rpc("SendStreamingMessage", message("hold"))) as response:
            async for chunk in response.aiter_text():
                text += chunk
                if text.count(": ping\n") >= 2:
                    server.lab.released["hold"].set()
    assert frames_of(text)[-1].result["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.asyncio
async def test_reader_that_goes_away_leaves_the_task_alone_and_nothing_behind(server: RunningServer) -> None:
    async with server.client() as client:
        async with client.stream("POST", "/", json=rpc("SendStreamingMessage", message("hold"))) as response:
            async for _ in response.aiter_text():
                break
        task_id = (await client.post("/", json=rpc("ListTasks", {}))).json()["result"]["tasks"][0]["id"]
        await until(lambda: not server.application.session.feed.followers)
        server.lab.released["hold"].set()
        await server.application.session.wait(task_id, lambda head: head.status.is_terminal)
        task = (await client.post("/", json=rpc("GetTask", {"id": task_id}))).json()["result"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)])
@pytest.mark.asyncio
async def test_reader_that_takes_nothing_is_cut_and_delays_nobody(
    proxies: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """More output than socket buffers hold: the reader that stalls is dropped, the other one sees it all.

    Behind a proxy the connection to drop is the proxy's, not one of the address that the proxy names.
    """
    big = {"blob": "x" * 300_000}
    tasks: list[dict[str, Any]] = [{"id": "r", "name": "folder"}]
    tasks += [{"id": str(n), "name": "echo", "parent_id": "r", "inputs": big, "dependencies": ["h"]} for n in range(30)]
    tasks += [{"id": "h", "name": "hold", "parent_id": "r"}]
    async with running(send_timeout=1, trusted_proxies=proxies) as server, server.client() as client:
        caplog.set_level(logging.INFO)
        made = (await client.post("/", json=rpc("tasks.create", tasks))).json()["result"]
        await client.post("/", json=rpc("tasks.execute", {"task_id": made["id"]}))
        loop = asyncio.get_running_loop()
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            await loop.sock_connect(stalled, ("127.0.0.1", server.port))
            request = f"GET /tasks/{made['id']}/events HTTP/1.1\r\nHost: localhost\r\n"
            request += "X-Forwarded-For: 203.0.113.7\r\n\r\n"
            await loop.sock_sendall(stalled, request.encode())
            await until(lambda: server.application.session.feed.followers == 1)
            server.lab.released["hold"].set()
            whole = await client.get(f"/tasks/{made['id']}/events")
            assert frames_of(whole.text)[-1].data == {"type": "stream_end"}
            await until(lambda: "slow reader" in caplog.text)
            with pytest.raises(ConnectionResetError):
                while await loop.sock_recv(stalled, 65536):
                    pass
    assert "Traceback" not in caplog.text


@pytest.mark.asyncio
async def test_streams_end_resumably_when_the_server_stops() -> None:
    async with running() as server, server.client() as client:
        text = ""
        async with client.stream("POST", "/", json=rpc("SendStreamingMessage", message("hold"))) as response:
            async for chunk in response.aiter_text():
                text += chunk
                if "TASK_STATE_WORKING" in text:
                    server.application.drain()
    assert text.endswith(": the server is stopping; resume with Last-Event-ID\n")
    assert frames_of(text)[-1].seq == 4


@pytest.mark.asyncio
async def test_no_task_of_the_event_loop_outlives_its_stream(server: RunningServer) -> None:
    """sse-starlette would leave a watcher behind that polls for ever; see EventStream."""
    async with server.client() as client:
        before = asyncio.all_tasks()
        for _ in range(3):
            await client.post("/", json=rpc("SendStreamingMessage", message("chunks")))
        await until(lambda: not asyncio.all_tasks() - before)


def test_library_still_calls_what_event_stream_overrides() -> None:
    """The override is of a private method: it must be noticed when the library changes it."""
    assert "_listen_for_exit_signal" in EventStream.__mro__[1].__dict__
