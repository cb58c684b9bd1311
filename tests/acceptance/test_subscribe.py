"""SubscribeToTask after a restart of the server."""

from pathlib import Path

from tests.acceptance.process import ServerProcess, sse_events

MESSAGE = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "go"}]}


def test_a_child_is_followed_across_a_restart(tmp_path: Path) -> None:
    """A2A §3.1.6: any task that has not ended, however it came to be there."""
    server = ServerProcess(tmp_path).start()
    try:
        tasks = [{"id": "r", "name": "folder"}, {"name": "greet", "parent_id": "r"}]
        sent = {"message": MESSAGE | {"parts": [{"data": {"tasks": tasks}}]}}
        root = server.call("SendMessage", sent)["task"]["id"]
        child = server.call("tasks.children", {"parent_id": root})[0]["id"]
        server.kill()
        server.start()
        body = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": child}}
        with server.client.stream("POST", "/", json=body, headers={"A2A-Version": "1.0"}) as response:
            frames = sse_events(response.iter_lines())
            first = next(frames)[1]["result"]["task"]
            server.call("SendMessage", {"message": MESSAGE | {"taskId": child}})
            last = [frame["result"] for _, frame in frames][-1]
        assert (first["id"], first["status"]["state"]) == (child, "TASK_STATE_INPUT_REQUIRED")
        assert last["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
    finally:
        server.close()
