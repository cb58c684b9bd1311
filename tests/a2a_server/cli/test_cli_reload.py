"""`serve --reload`: a real server that is started again when its files change."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from a2a_server.cli.reload import look
from tests.a2a_server.cli.test_cli import hear_ctrl_c

EXECUTOR = "from core import executor\nfrom words import WORD\n@executor('e')\nasync def e(i, c):\n    return WORD\n"


def call(url: str, method: str, params: Any) -> Any:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)["result"]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "ex.py").write_text(EXECUTOR)
    (tmp_path / "words.py").write_text("WORD = 'one'\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "a2a_server", "serve", "ex.py", "--port", "0", "--reload", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=40)


def ready(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def said(process: subprocess.Popen[str], words: str) -> str:
    """The next line of stderr with these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_change_starts_the_server_again_with_its_database(
    process: subprocess.Popen[str], tmp_path: Path, number: int
) -> None:
    first = ready(process)
    task = call(first["url"], "tasks.execute", {"tasks": [{"name": "e"}], "wait": True})
    assert task["result"] == "one"

    (tmp_path / "words.py").write_text("WORD = 'another'\n")
    assert "words.py has changed" in said(process, "has changed")
    second = ready(process)
    assert second["pid"] != first["pid"]
    assert call(second["url"], "tasks.get", {"task_id": task["id"]})["result"] == "one"
    assert call(second["url"], "tasks.execute", {"tasks": [{"name": "e"}], "wait": True})["result"] == "another"

    (tmp_path / "ex.py").write_text("1 +")
    assert "exit code 78" in said(process, "waiting for a file to change")
    (tmp_path / "ex.py").write_text(EXECUTOR)
    third = ready(process)

    process.send_signal(number)
    assert process.wait(40) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(third["pid"], 0)


ENDLESS = "import asyncio\n" + EXECUTOR.replace("return WORD", "print('began', flush=True); await asyncio.sleep(600)")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_the_server_at_once(
    process: subprocess.Popen[str], tmp_path: Path, number: int, code: int
) -> None:
    """Found later: a closed terminal sends two SIGHUPs, and running work was interrupted."""
    ready(process)
    (tmp_path / "ex.py").write_text(ENDLESS)
    second = ready(process)
    call(second["url"], "tasks.execute", {"tasks": [{"name": "e"}]})
    assert "began" in said(process, "began")

    process.send_signal(number)
    said(process, "1 running attempts have 30 s to finish")
    process.send_signal(number)

    assert process.wait(20) == code
    with pytest.raises(ProcessLookupError):
        os.kill(second["pid"], 0)


def test_python_files_are_looked_at_but_those_of_environments(tmp_path: Path) -> None:
    for name in ("a.py", "sub/b.py", ".hidden/c.py", "__pycache__/d.py", "venv/lib/e.py", "venv/pyvenv.cfg", "f.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    seen = look([tmp_path], [tmp_path / "f.txt", tmp_path / "missing.toml"])

    assert sorted(str(path.relative_to(tmp_path)) for path in seen) == ["a.py", "f.txt", "sub/b.py"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="marks are read in /proc")
def test_a_server_does_not_outlive_the_process_that_watches_its_files(process: subprocess.Popen[str]) -> None:
    ready(process)
    left = psutil.Process(process.pid).children(recursive=True)
    assert any("serve" in each.cmdline() for each in left)
    process.kill()
    assert psutil.wait_procs(left, 30)[1] == []
