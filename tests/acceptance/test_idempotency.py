"""A key outlives the process: after kill -9 and a restart it still leads to the same task (G4)."""

from pathlib import Path
from typing import Any

from tests.acceptance.process import ServerProcess

MESSAGE = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "go"}]}


def post(server: ServerProcess, method: str, params: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return server.client.post("/", json=body, headers={"A2A-Version": "1.0", "Idempotency-Key": f"{method} 1"}).json()


def test_a_key_leads_to_the_same_task_after_a_kill(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path).start()
    try:
        sent = {"message": MESSAGE, "metadata": {"skillId": "effect"}, "configuration": {"returnImmediately": True}}
        tree = [{"name": "noop"}]
        task_id = post(server, "SendMessage", sent)["result"]["task"]["id"]
        root_id = post(server, "tasks.create", tree)["result"]["root_task_id"]
        server.kill()
        server.start()
        assert post(server, "SendMessage", sent)["result"]["task"]["id"] == task_id
        assert post(server, "tasks.create", tree)["result"]["root_task_id"] == root_id
        other = post(server, "SendMessage", sent | {"metadata": {"skillId": "noop"}})
        assert "Idempotency-Key" in other["error"]["message"]
        assert server.call("ListTasks", {})["totalSize"] == 1
    finally:
        server.close()
