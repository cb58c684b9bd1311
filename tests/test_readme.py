"""What the README and the pages that it leads to show is run as it stands there: the agent, curl, the command line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ROOT, ServerProcess

README = (ROOT / "README.md").read_text("utf-8")
NEXT = [ROOT / "docs" / "guide" / "service.md", ROOT / "docs" / "command-line.md"]
SHOWN = "\n".join([README, *(page.read_text("utf-8") for page in NEXT)])
SHELL: list[str] = re.findall(r"^```bash\n(.*?)^```", SHOWN, re.MULTILINE | re.DOTALL)
MAX_LINES = 120
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the README's agent, started as the README says."""
    folder = tmp_path_factory.mktemp("readme")
    (agent := folder / "hello.py").write_text(PYTHON[0])
    process = ServerProcess(folder, str(agent), "--default-skill", "hello").start()
    try:
        yield process
        assert process.terminate() == 0
    finally:
        process.close()


def blocks(*words: str) -> list[str]:
    """The shell blocks in which all the words are."""
    return [block for block in SHELL if all(word in block for word in words)]


def run(block: str, server: ServerProcess) -> str:
    """What the block prints, when each of its commands succeeds, against our server in place of the usual address."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.replace("http://127.0.0.1:8000", server.url)],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "A2A_URL": server.url, "PATH": path}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_agent_has_ten_lines_at_most() -> None:
    assert len(PYTHON) == 1
    assert len(PYTHON[0].splitlines()) <= 10


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < MAX_LINES


def test_figures_beside_the_peers_are_those_that_were_measured() -> None:
    """The table "Why" may say nothing that docs/performance.md does not."""
    table = README.partition("## Why\n")[2].partition("\n## ")[0]
    measured = (ROOT / "docs" / "performance.md").read_text("utf-8")

    figures = re.findall(r"\d[\d,.]*\d|\d+", re.sub(r"a2a|\[.*", "", table))

    assert len(figures) >= 6
    assert [figure for figure in figures if not re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d,])", measured)] == []


def test_every_shell_block_is_tested_here() -> None:
    """The two commands are what CI does; `serve` is how the fixture starts."""
    tested = ["scripts/demo", "a2a-server serve", "a2a-server send", "SendStreamingMessage", "tasks.execute"]
    tested += ["rpc.discover", "a2a-server run", "message:send"]

    assert all(any(word in block for word in tested) for block in SHELL)
    assert all(blocks(word) for word in tested)


@needs_curl
def test_the_message_with_curl_streams_the_greeting(server: ServerProcess) -> None:
    (block,) = blocks("curl", "SendStreamingMessage")

    frames = [json.loads(line[6:])["result"] for line in run(block, server).splitlines() if line.startswith("data: ")]

    assert "task" in frames[0]
    assert [f["artifactUpdate"]["artifact"]["parts"] for f in frames if "artifactUpdate" in f] == [
        [{"text": "Hello, Ada!"}]
    ]
    assert frames[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@needs_curl
def test_the_message_over_http_json_answers_with_the_task_and_lists_it(server: ServerProcess) -> None:
    (block,) = blocks("curl", "message:send")

    printed = run(block, server)

    decoder = json.JSONDecoder()
    sent, end = decoder.raw_decode(printed)
    page, _ = decoder.raw_decode(printed[end:].lstrip())
    assert sent["task"]["artifacts"][0]["parts"] == [{"text": "Hello, Ada!"}]
    assert sent["task"]["id"] in [task["id"] for task in page["tasks"]]


@needs_curl
def test_the_tree_with_curl_gathers_both_results(server: ServerProcess) -> None:
    (block,) = blocks("curl", "tasks.execute")

    tree = json.loads(run(block, server))["result"]

    assert tree["tree_status"] == "completed"
    assert tree["result"]["results"]["ada"] == "Hello, Ada!"
    assert "cpu" in tree["result"]["results"]


def test_a_server_with_keys_takes_the_one_that_was_made(tmp_path: Path) -> None:
    (block,) = blocks("keys create")
    make, serve, send = block.splitlines()
    (agent := tmp_path / "hello.py").write_text(PYTHON[0])
    server = ServerProcess(tmp_path, str(agent), "--auth", "keys")
    assert "--auth keys" in serve
    try:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "PATH": path, "A2A_SERVER_DATABASE": f"sqlite:///{tmp_path}/server.db"}
        made = subprocess.run(
            ["bash", "-euc", f'{make}; echo "$A2A_TOKEN"'], capture_output=True, text=True, cwd=tmp_path, env=env
        )
        server.start()
        env |= {"A2A_URL": server.url, "A2A_TOKEN": made.stdout.strip()}
        sent = subprocess.run(["bash", "-euc", send], capture_output=True, text=True, cwd=tmp_path, env=env)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert "Hello, Ada!" in sent.stdout
        assert server.client.get("/tasks").status_code == 401
    finally:
        server.close()


def test_the_first_example_works_beside_files_with_our_names(tmp_path: Path) -> None:
    """As a user types it, in a folder that has a `core/`, an `a2a_server.py` and a `json.py` of its own."""
    (tmp_path / "hello.py").write_text(PYTHON[0])
    (tmp_path / "core").mkdir()
    for name in ("core/__init__.py", "a2a_server.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong one')\n")
    (block,) = blocks("a2a-server serve hello.py --default-skill")
    (command,) = [line for line in block.splitlines() if line.startswith("a2a-server serve")]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server = subprocess.Popen(
        [*command.split(), "--port", "0", "-o", "json"], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env
    )
    try:
        assert server.stdout is not None
        env["A2A_URL"] = json.loads(server.stdout.readline())["url"]
        sent = subprocess.run(["a2a-server", "send", "Ada"], capture_output=True, text=True, cwd=tmp_path, env=env)
        assert "Hello, Ada!" in sent.stdout, sent.stderr
    finally:
        server.terminate()
        assert server.wait(40) == 0
        server.stdout.close()


@needs_curl
def test_the_server_describes_itself(server: ServerProcess) -> None:
    (block,) = blocks("curl", "rpc.discover")

    printed = run(block, server)

    decoder = json.JSONDecoder()
    document, end = decoder.raw_decode(printed)
    card, _ = decoder.raw_decode(printed[end:].lstrip())
    assert document["result"]["openrpc"].startswith("1.")
    assert "hello" in [skill["id"] for skill in card["skills"]]


def test_the_command_line_sends_as_shown(server: ServerProcess) -> None:
    (block,) = blocks("a2a-server send", "-o json")

    printed = run(block, server)

    assert "[hello] Hello, Ada!" in printed
    assert "TASK_STATE_COMPLETED" in printed


def test_the_command_line_runs_a_tree_as_shown(server: ServerProcess) -> None:
    (block,) = blocks("a2a-server run")

    assert "final: completed" in run(block, server)
