"""HTTP as others speak it, against a real server process: the JDK's client, curl, and nginx in front.

What a machine does not have is skipped with a line. The configuration of nginx is that of `docs/deploying.md`.
"""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.process import ROOT, ServerProcess, free_port, sse_events

PREFIX = "/agents/one"
CLIENT = Path(__file__).parent / "clients" / "Http.java"
SEPARATORS = "\x85\u2028\u2029"
UPLOAD = 9_500_000  # characters; a body of almost 10 MB


def program(name: str) -> str:
    """Where it is; the test is skipped where it is not."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} not found: HTTP is not tried with it")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--default-skill", "greet", "--root-path", PREFIX, "--trusted-proxy", "127.0.0.1")
    env = {"A2A_SERVER_SSE_PING": "0.2"}
    process = ServerProcess(tmp_path_factory.mktemp("http"), *options, env=env).start()
    yield process
    process.close()


def said(text: str, message_id: str = "m") -> dict[str, Any]:
    return {"message": {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": text}]}}


def rpc(method: str, params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


# The JDK


@pytest.mark.parametrize("version", ["HTTP_2", "HTTP_1_1"])
def test_jdk_client_gets_all_answers_whichever_version_it_asks_for(server: ServerProcess, version: str) -> None:
    """Found from outside: a POST with `Upgrade`, as the JDK's client sends it, lost its body."""
    program("javac")
    done = subprocess.run(
        [program("java"), str(CLIENT), server.url, version, "Ada"], capture_output=True, text=True, timeout=120
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 8, done.stderr
    assert all("Hello, Ada!" in line for line in lines[:6])
    assert [line[:4] for line in lines[:3]] == ["200 "] * 3
    assert lines[6:] == ["200", "404"]


# curl


def curl(*arguments: str, content: str | None = None) -> str:
    command = [program("curl"), "-sS", "--noproxy", "*", "--max-time", "60", *arguments]
    done = subprocess.run(command, capture_output=True, input=content, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


JSON = ("-H", "Content-Type: application/json", "-H", "A2A-Version: 1.0", "--data-binary", "@-")


@pytest.mark.parametrize("version", ["--http2", "--http1.1", "--http1.0"])
@pytest.mark.parametrize("path", ["/", "/message:send", "/message:stream"])
def test_curl_gets_answers_and_streams_in_every_version(server: ServerProcess, version: str, path: str) -> None:
    content = rpc("SendMessage", said("Ada")) if path == "/" else json.dumps(said("Ada"))
    told = curl(version, "-N", "-i", *JSON, server.url + path, content=content)
    assert told.startswith("HTTP/1.1 200 ") and "Hello, Ada!" in told
    assert told.lower().count("\nconnection:") <= 1
    assert ("transfer-encoding: chunked" in told.lower()) is (path == "/message:stream" and version != "--http1.0")


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Expect: 100-continue", "Expect:"])
def test_curl_uploads_ten_megabytes(server: ServerProcess, framing: str) -> None:
    told = curl("-H", framing, *JSON, server.url + "/message:send", content=json.dumps(said("x" * UPLOAD)))
    assert len(json.loads(told)["task"]["artifacts"][0]["parts"][0]["text"]) == UPLOAD + len("Hello, !")
    status = curl("-o", "/dev/null", "-w", "%{http_code}", "-H", framing, *JSON, server.url + "/message:send",
                  content=json.dumps(said("x" * 2 * UPLOAD)))  # fmt: skip
    assert status == "413"


def test_curl_sees_what_head_and_options_say(server: ServerProcess) -> None:
    assert "content-length:" in curl("-I", server.url + "/.well-known/agent-card.json")
    told = curl("-i", "-X", "OPTIONS", "--request-target", "*", server.url)
    assert told.startswith("HTTP/1.1 405 ") and "allow: POST" in told
    absolute = ("--request-target", "http://evil.example/tasks")
    assert curl("-o", "/dev/null", "-w", "%{http_code}", *absolute, server.url) == "421"


def test_netcat_s_way_gets_its_answer(server: ServerProcess) -> None:
    """`nc -N` and others close their sending half behind the request."""
    body = rpc("SendMessage", said("Ada"))
    head = (
        f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line, line.makefile("rb") as answer:
        line.sendall((head + body).encode())
        line.shutdown(socket.SHUT_WR)
        assert b"Hello, Ada!" in answer.read()


# nginx

SNIPPET = re.compile(r"```nginx\n(.*?)```", re.DOTALL)
MODES = {
    "as documented": (),
    "buffering": ((r"proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_buffering on;"),),
    "no buffering": ((r"proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_buffering off;"),),
    "requests unbuffered": ((r"proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_request_buffering off;"),),
    "HTTP/1.0": ((r"proxy_http_version 1.1;", "proxy_http_version 1.0;"),),
    "prefix taken away": ((r"(proxy_pass [^;]*);", r"\1/;"),),
    "another prefix": ((r"location /agents/one/", "location /other/"), (r"(proxy_pass [^;]*);", r"\1/agents/one/;")),
}


@pytest.fixture(scope="module", params=MODES)
def proxy(
    request: pytest.FixtureRequest, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    """A client of nginx in front of the server; its paths are below the prefix that nginx has."""
    nginx, port, folder = program("nginx"), free_port(), tmp_path_factory.mktemp("nginx")
    found = SNIPPET.search((ROOT / "docs" / "deploying.md").read_text())
    assert found is not None
    location = found[1].replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    for pattern, put in MODES[request.param]:
        location, count = re.subn(pattern, put, location)
        assert count == 1
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    conf = folder / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\nserver {{ listen 127.0.0.1:{port};\n{location}}} }}\n"
    )
    process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(conf)], stderr=subprocess.PIPE, text=True)
    prefix = "/other" if "another" in request.param else PREFIX
    url = f"http://127.0.0.1:{port}{prefix}"
    try:
        wait_for(process, port)
        with closing(httpx2.Client(base_url=url, timeout=60, trust_env=False)) as client:
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=30)


def wait_for(process: "subprocess.Popen[str]", port: int) -> None:
    """Until it listens; its end is an error."""
    while process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
            return
    raise AssertionError(process.communicate()[1])


def test_nginx_passes_calls_of_every_binding(proxy: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    assert "Hello, Ada!" in proxy.post("/", content=rpc("SendMessage", said("Ada")), headers=headers).text
    assert "Hello, Ada!" in proxy.post("/message:send", json=said("Ada")).text
    assert proxy.get("/tasks").json()["totalSize"] >= 2
    card = proxy.get("/.well-known/agent-card.json")
    assert proxy.get("/.well-known/agent-card.json", headers={"If-None-Match": card.headers["etag"]}).status_code == 304
    assert proxy.head("/.well-known/agent-card.json").headers["content-length"] == str(len(card.content))


@pytest.mark.parametrize("binding", ["JSON-RPC", "HTTP+JSON", "tasks"])
def test_nginx_passes_each_event_when_it_comes(proxy: httpx2.Client, server: ServerProcess, binding: str) -> None:
    """The first events of a task that hangs come before it is cancelled; comments do, too."""
    metadata = {"metadata": {"skillId": "hang"}}
    path, content = {
        "JSON-RPC": ("/", rpc("SendStreamingMessage", said(SEPARATORS) | metadata)),
        "HTTP+JSON": ("/message:stream", json.dumps(said(SEPARATORS) | metadata)),
        "tasks": ("/tasks", rpc("tasks.execute", {"use_streaming": True, "tasks": [{"name": "hang"}]})),
    }[binding]
    with proxy.stream("POST", path, content=content, headers={"Content-Type": "application/json"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        seen: list[str] = []
        while not (": ping" in seen and any("hanging" in line for line in seen)):
            seen.append(next(lines))
        running = server.call("tasks.running.list")
        server.call("tasks.cancel", {"task_ids": [each["id"] for each in running]})
        last = json.dumps([data for _, data in sse_events(lines)])
    assert "CANCELED" in last or "cancelled" in last


@pytest.mark.parametrize(
    "proxy", ["as documented", "buffering", "requests unbuffered", "HTTP/1.0"], indirect=True, scope="module"
)
def test_nginx_passes_uploads_of_ten_megabytes_and_large_answers(proxy: httpx2.Client) -> None:
    task = proxy.post("/message:send", json=said("x" * UPLOAD)).json()["task"]
    assert len(task["artifacts"][0]["parts"][0]["text"]) == UPLOAD + len("Hello, !")
    whole = proxy.post("/message:stream", json=said("y" * UPLOAD))
    assert "y" * UPLOAD in whole.text and "TASK_STATE_COMPLETED" in whole.text


def test_nginx_passes_errors_as_they_are(proxy: httpx2.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for status, told in (
        (404, proxy.get("/tasks/none")),
        (404, proxy.get("/no/such/path")),
        (405, proxy.put("/tasks")),
        (415, proxy.post("/message:send", content="{}", headers={"Content-Type": "text/plain"})),
        (400, proxy.post("/message:send", content="{", headers=headers)),
        (403, proxy.get("/tasks", headers={"Origin": "https://evil.example"})),
        (413, proxy.post("/message:send", json=said("x" * (10 * 1024 * 1024 - 60)))),
    ):
        assert told.status_code == status
        assert status == 413 or told.json()["error"]
    assert proxy.post("/", content="{", headers=headers).json()["error"]["code"] == -32700
