"""A server, a tree of tasks sent to it over A2A, and the tree while it runs. Run it with scripts/demo.

Everything is real: the readings are of this machine, the download comes from a small HTTP server of the demo's own.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

from a2a_server.cli.client import Client
from a2a_server.cli.output import clean, text_of
from a2a_server.cli.send import event_of
from a2a_server.cli.view import screen, tree_view

PAGE = "Task trees are files in folders: the folder says where a task belongs, its dependencies say when it runs.\n"
COMMANDS = {"uname": ["uname", "-sr"], "uptime": ["uptime"], "df": ["df", "-h", "/"]}
WIDTH = 110  # characters of a result
START_TIMEOUT = 20.0  # seconds


class Pages(BaseHTTPRequestHandler):
    """Serves one text; everything else is not there."""

    def do_GET(self) -> None:
        """Answer with the text, or with 404."""
        found = self.path == "/page.txt"
        body = (PAGE if found else "there is no such page").encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal belongs to the tree."""


def tree(pages: str, commands: list[str]) -> list[dict[str, Any]]:
    """The tree: readings in parallel, a download, a branch that fails and what runs in its place, and a fan-in."""

    def task(name: str, method: str, parent: str | None, inputs: dict[str, Any], *needs: Any) -> dict[str, Any]:
        given = {"id": name, "name": name, "schemas": {"method": method}, "inputs": inputs, "dependencies": list(needs)}
        return given | ({"parent_id": parent} if parent else {})

    readings = [task(what, "system_info_executor", "machine", {"resource": what}) for what in ("cpu", "memory", "disk")]
    programs = [task(name, "command_executor", "programs", {"argv": COMMANDS[name]}) for name in commands]
    gathered = [each["name"] for each in (*readings, *programs)]
    downloads = [
        task("download", "rest_executor", "web", {"url": f"{pages}/page.txt"}),
        task("missing page", "rest_executor", "web", {"url": f"{pages}/missing.txt"}),
        # It depends on the failing task optionally: that makes the failure one that the tree tolerates.
        task(
            "in its place",
            "system_info_executor",
            "web",
            {"resource": "cpu"},
            {"id": "missing page", "required": False},
        ),
    ]
    folders = [{"id": "machine", "name": "machine", "parent_id": "report"}]
    folders += [{"id": "programs", "name": "programs", "parent_id": "report"}] if commands else []
    folders += [{"id": "web", "name": "web", "parent_id": "report"}]
    report = task("report", "aggregate_results_executor", None, {}, *gathered, "download", "in its place")
    return [report, *folders, *readings, *programs, *downloads]


def start_server(folder: Path, commands: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A real server process on a free loopback port, and its address."""
    options = [f"--command={name}" for name in commands]
    process = subprocess.Popen(
        [sys.executable, "-m", "a2a_server", "serve", "--port=0", f"--database=sqlite:///{folder}/demo.db",
         "--egress-allow=127.0.0.1", "--log-level=warning", *options],
        stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    watchdog = threading.Timer(START_TIMEOUT, process.kill)
    watchdog.start()
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"listening on (http://\S+)", line):
            watchdog.cancel()
            threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True).start()
            return process, found[1]
    watchdog.cancel()
    process.wait()
    sys.exit("the server did not start: " + "".join(said).strip())


def _pass_on(stream: Any) -> None:
    for line in stream:
        sys.stderr.write(line)


def stop_server(process: subprocess.Popen[str]) -> int:
    """Ask it to end, as a service manager does, and wait."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def run_tree(url: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Send the tree in an A2A message, show its stream; the view's outcome and the artifacts by name."""
    message = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": [{"data": {"tasks": tasks}}]}
    artifacts = {}
    with Client(url) as server, closing(server.send({"message": message})) as frames:
        # The first frame is the task; its id is the root's, and the root's whole tree can be read for its shape.
        view = tree_view(server.call("tasks.tree", {"task_id": next(frames).data["result"]["task"]["id"]}))
        with screen(view, silent=False) as shown:
            for frame in frames:
                result = frame.data["result"]
                if (event := event_of(result)) is not None:
                    shown.show(event)
                if "artifactUpdate" in result:
                    artifact = result["artifactUpdate"]["artifact"]
                    artifacts[artifact["name"]] = artifact["parts"][0].get("data", artifact["parts"][0].get("text"))
    return {"outcome": view.outcome, "artifacts": artifacts}


def main() -> int:
    """Run the demo; 0 when the tree completed and the server ended as it should."""
    commands = [name for name in COMMANDS if shutil.which(name, path="/usr/bin:/bin:/usr/local/bin")]
    with tempfile.TemporaryDirectory(prefix="a2a-demo-") as folder:
        pages = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        process, url = start_server(Path(folder), commands)
        print(f"a server listens on {url}; sending it a tree over A2A (SendStreamingMessage)\n", flush=True)
        try:
            ended = run_tree(url, tree(f"http://127.0.0.1:{pages.server_port}", commands))
        finally:
            code = stop_server(process)
            pages.shutdown()
            pages.server_close()
    print(f"\nthe tree is {ended['outcome']}; what `report` gathered:")
    for name, result in ended["artifacts"].get("report", {}).get("results", {}).items():
        print(f"  {name}: {clean(text_of(result))[:WIDTH]}")
    print(f"\nthe server ended with exit code {code}")
    return 0 if ended["outcome"] == "completed" and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
