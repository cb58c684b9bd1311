"""The wheel is complete: it serves from an empty environment, away from the checkout."""

import json
import subprocess
import sys
import venv
from pathlib import Path
from sysconfig import get_paths
from urllib.request import Request, urlopen

from tests.acceptance.process import ROOT


def test_the_installed_wheel_serves_with_its_own_card_and_migrations(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    environment = tmp_path / "empty"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*")) / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # The dependencies come from this environment; its editable install of the checkout does not come along.
    (site / "dependencies.pth").write_text(get_paths()["purelib"] + "\n")
    where = subprocess.run(
        [python, "-c", "import a2a_server, core; print(a2a_server.__file__, core.__file__)"],
        cwd=tmp_path, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert where.count(str(site)) == 2, where

    database = f"sqlite:///{tmp_path}/wheel.db"
    server = subprocess.Popen(
        [python, "-m", "a2a_server", "serve", "--port", "0", "--database", database],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        ready = next(line for line in server.stderr if "listening on" in line)
        url = next(word for word in ready.split() if word.startswith("http://"))
        card = json.load(urlopen(url + ".well-known/agent-card.json"))
        assert "system_info_executor" in [skill["id"] for skill in card["skills"]]
        tree = [{"name": "system_info_executor", "inputs": {"resource": "memory"}}]
        call = {"jsonrpc": "2.0", "id": 1, "method": "tasks.execute", "params": {"tasks": tree, "wait": True}}
        request = Request(url, json.dumps(call).encode(), {"Content-Type": "application/json"})
        assert json.load(urlopen(request))["result"]["tree_status"] == "completed"
    finally:
        server.terminate()
        assert server.wait(20) == 0
        assert server.stderr is not None
        server.stderr.close()
