"""What the first request finds: libraries that load parts of themselves when they are first used are loaded by then."""

from pathlib import Path
from typing import Any

from tests.acceptance.process import ServerProcess

EXECUTORS = """
import sys
from typing import Any

from core import executor


@executor("loaded")
async def loaded(inputs: dict[str, Any]) -> list[str]:
    \"\"\"The modules that are loaded.\"\"\"
    return sorted(sys.modules)
"""


def test_a_call_to_another_host_loads_no_library_on_the_event_loop(tmp_path: Path) -> None:
    """Found by a siege: the first fetch imported anyio's part for asyncio and held the event loop for 0.5 s."""
    executors = tmp_path / "executors.py"
    executors.write_text(EXECUTORS)
    server = ServerProcess(tmp_path, "--egress-allow", "127.0.0.1", executors=executors)
    server.start()
    try:
        before = _loaded(server)
        fetch = {"url": f"{server.url}/healthz"}
        assert _task(server, "rest_executor", fetch)["status"]["state"] == "TASK_STATE_COMPLETED"
        after = _loaded(server)
    finally:
        server.close()

    assert "anyio._backends._asyncio" in before
    large = {name.partition(".")[0] for name in after - before} & {"anyio", "httpx2", "httpcore2", "h11", "idna", "ssl"}
    assert not large


def _loaded(server: ServerProcess) -> set[str]:
    task = _task(server, "loaded", {})
    return set(task["artifacts"][0]["parts"][0]["data"])


def _task(server: ServerProcess, skill: str, inputs: dict[str, str]) -> dict[str, Any]:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": inputs}], "metadata": {"skillId": skill}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    answer = server.client.post("/", json=body, headers={"A2A-Version": "1.0"}).json()
    task: dict[str, Any] = answer["result"]["task"]
    return task
