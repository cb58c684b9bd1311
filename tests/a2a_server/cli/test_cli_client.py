"""The command line's client: what each failed connection is called, and streams that resume."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from a2a_server.cli import client
from a2a_server.cli.client import Client
from a2a_server.cli.output import Failure
from a2a_server.cli.resumption import FIRST_RECONNECTS, Resumption
from a2a_server.cli.view import tree_view
from tests.a2a_server.cli.test_cli import Cli, cli, hear_ctrl_c, stream_of
from tests.acceptance.process import ServerProcess, free_port

__all__ = ["cli"]  # the fixture


@contextmanager
def listening(answer: bytes | None, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port that answers every connection with these bytes; with None it accepts nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def serve() -> None:
            while not stopped.is_set():
                connection, _ = listener.accept()
                try:
                    with connection if context is None else context.wrap_socket(connection, server_side=True) as ours:
                        ours.settimeout(5)
                        if ours.recv(65536) and answer:
                            ours.sendall(answer)
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        if answer is not None:
            thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            if answer is not None:
                socket.create_connection(listener.getsockname()).close()
                thread.join()


def http(status: str, body: bytes = b"", *fields: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


HTML = (b"<html>no</html>", "Content-Type: text/html")


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    (ca := trustme.CA()).cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


def tls_of(ca: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    ca.issue_cert(name).configure_cert(context := ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    return context


COMMANDS = [
    ["tasks", "list"],
    ["send", "hello"],
    ["watch", "t"],
    ["push", "list"],
    ["keys", "list"],
    ["card"],
    ["run", "tree.json"],
]


def one_line(cli: Cli, command: list[str], url: str, *told: str) -> None:
    Path("tree.json").write_text('[{"name": "noop"}]')
    done = cli(*command, "--url", url)

    assert done.code == 1, done.err
    assert (done.out, done.err.count("\n")) == ("", 1), done.err
    assert all(word in done.err for word in (url, *told)), done.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http("404 Not Found", *HTML), ["HTTP 404"]),
        (http("301 Moved Permanently", b"", "Location: https://new.example/"), ["https://new.example/", "301"]),
        (http("401 Unauthorized", *HTML), ["A2A_TOKEN", "401"]),
        (http("403 Forbidden", *HTML), ["A2A_TOKEN", "403"]),
        (http("502 Bad Gateway", *HTML), ["gateway", "502"]),
    ],
    ids=["404", "301", "401", "403", "502"],
)
def test_an_answer_that_is_none_of_a2a_is_told_in_one_line(
    cli: Cli, command: list[str], answer: bytes, told: list[str]
) -> None:
    with listening(answer) as port:
        one_line(cli, command, f"http://127.0.0.1:{port}/", *told)


def test_what_is_no_a2a_server_is_called_so(cli: Cli) -> None:
    for answer in (http("200 OK", *HTML), http("200 OK", b"{}", "Content-Type: application/json"), http("404 No")):
        with listening(answer) as port:
            one_line(cli, ["tasks", "list"], f"http://127.0.0.1:{port}/", "not an A2A server")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_certificate_that_is_not_trusted_is_told_in_one_line(
    cli: Cli, command: list[str], authority: trustme.CA
) -> None:
    """Found from outside: the command line said that no server answers."""
    with listening(http("404 No"), tls_of(authority)) as port:
        one_line(cli, command, f"https://127.0.0.1:{port}/", "not trusted", "--ca", "SSL_CERT_FILE")


def test_a_certificate_of_another_host_is_told_in_one_line(cli: Cli, authority: trustme.CA, tmp_path: Path) -> None:
    with listening(http("404 No"), tls_of(authority, "other.example")) as port:
        command = ["tasks", "list", "--ca", "ca.pem"]
        one_line(cli, command, f"https://127.0.0.1:{port}/", "not trusted", "127.0.0.1")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_tls_on_a_port_without_it_and_the_reverse_are_told(cli: Cli, command: list[str], authority: trustme.CA) -> None:
    with listening(http("400 Bad Request")) as port:
        one_line(cli, command, f"https://127.0.0.1:{port}/", f"http://127.0.0.1:{port}/", "does not speak TLS")
    with listening(b"", tls_of(authority)) as port:
        one_line(cli, command, f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/", "requires TLS")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_unknown_hosts_and_refused_connections_are_told(cli: Cli, command: list[str]) -> None:
    one_line(cli, command, "http://nobody.invalid/", "the host nobody.invalid", "not known")
    one_line(cli, command, f"http://127.0.0.1:{free_port()}/", "no server answers", "refused", "a2a-server serve")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_server_that_does_not_answer_is_told(cli: Cli, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CALL_TIMEOUT", 0.2)
    monkeypatch.setattr(client, "SILENCE", 0.2)
    with listening(None) as port:
        one_line(cli, command, f"http://127.0.0.1:{port}/", "did not answer within 0.2 s")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://x/", "http://", "http://[x"])
def test_an_address_that_is_none_is_wrong_usage(cli: Cli, url: str) -> None:
    done = cli("tasks", "list", "--url", url)

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert " URL (for example http://127.0.0.1:8000/)" in done.err


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server with TLS, and the folder with its authority's certificate (ca.pem, and by hash)."""
    folder = tmp_path_factory.mktemp("secured")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    (folder / "hashed").mkdir()
    digest = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(folder / "ca.pem")],
        capture_output=True,
        text=True,
        check=True,
    )
    ca.cert_pem.write_to_path(str(folder / "hashed" / f"{digest.stdout.strip()}.0"))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    server = ServerProcess(folder, "--tls-cert", str(folder / "server.pem")).start()
    try:
        yield server.url.replace("http:", "https:"), folder
        assert server.terminate() == 0
    finally:
        server.close()


@pytest.mark.parametrize("way", ["--ca", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_command_line_trusts_who_it_is_told_to(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, secured: tuple[str, Path], way: str
) -> None:
    """Found from outside: the command line ignored SSL_CERT_FILE."""
    url, folder = secured
    given = ["--ca", str(folder / "ca.pem")] if way == "--ca" else []
    if way != "--ca":
        monkeypatch.setenv(way, str(folder / ("ca.pem" if way == "SSL_CERT_FILE" else "hashed")))

    assert cli("tasks", "list", "--url", url, *given).code == 0
    assert cli("card", "--url", url, *given).code == 0
    assert cli("send", "Ada", "--skill", "greet", "--url", url, *given).code == 0


@pytest.mark.parametrize("way", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_server_s_own_calls_trust_who_they_are_told_to(secured: tuple[str, Path], tmp_path: Path, way: str) -> None:
    url, folder = secured
    tree = [{"name": "rest_executor", "inputs": {"url": f"{url}/healthz"}}]
    authority = {way: str(folder / ("ca.pem" if way == "SSL_CERT_FILE" else "hashed"))}
    for environ, status in ((authority, "completed"), ({}, "failed")):
        done = subprocess.run(
            [sys.executable, "-m", "a2a_server", "run", "-", "-o", "json"],
            input=json.dumps(tree), capture_output=True, text=True, cwd=tmp_path, timeout=60,
            env={**os.environ, "A2A_SERVER_EGRESS_ALLOW": "127.0.0.1", **environ},
        )  # fmt: skip
        assert json.loads(done.stdout)["status"] == status, done.stdout


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authorities_that_cannot_be_read_stop_the_start(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path / "missing"))

    done = cli("serve", "--port", "0")

    assert (done.code, done.err.count("\n")) == (78, 1)
    assert name in done.err and "missing" in done.err


def test_a_file_without_certificates_is_called_so(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")

    done = cli("tasks", "list", "--url", "https://127.0.0.1:9/", "--ca", "empty.pem")

    assert done.code == 78 and "--ca: empty.pem has no certificate" in done.err


# Streams that break


def a2a(seq: int | None, state: str, *, node: bool = False, kind: str = "statusUpdate") -> str:
    update: dict[str, Any] = {"taskId": "t", "id": "t", "status": {"state": f"TASK_STATE_{state}"}}
    update |= {"metadata": {"nodeId": "n"}} if node else {}
    return (
        f"id: {seq}\n" if seq else ""
    ) + f"data: {json.dumps({'jsonrpc': '2.0', 'id': 1, 'result': {kind: update}})}"


def answering(*answers: httpx2.Response | Exception) -> tuple[Client, list[httpx2.Request], list[str]]:
    waiting, requests, notices = list(answers), [], []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        if isinstance(given := waiting.pop(0), Exception):
            raise given
        return given

    transport = httpx2.MockTransport(answer)
    resumption = Resumption(pause=lambda seconds: None, notice=notices.append)
    server = Client("http://127.0.0.1:9/", transport=transport, resumption=resumption)
    return server, requests, notices


BROKEN = httpx2.ReadError("reset")
AWAY = httpx2.Response(503, json={"error": {"code": -32051, "message": "starting"}})
REFUSED = httpx2.ConnectError("refused")


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([stream_of(a2a(1, "SUBMITTED", kind="task"), a2a(2, "COMPLETED"))], [("Send", None)]),
        ([stream_of(a2a(1, "SUBMITTED", kind="task")), stream_of(a2a(2, "COMPLETED"))], [("Send", None), ("Sub", "1")]),
        ([BROKEN, BROKEN, stream_of(a2a(2, "COMPLETED"))], [("Send", None)] * 3),
        ([stream_of(a2a(1, "WORKING")), REFUSED, AWAY, stream_of(a2a(2, "FAILED"))],
         [("Send", None), *[("Sub", "1")] * 3]),
        ([stream_of(a2a(1, "WORKING", node=True), a2a(None, "COMPLETED", node=True)), stream_of(a2a(3, "COMPLETED"))],
         [("Send", None)]),
        ([stream_of(a2a(1, "WORKING")), stream_of(a2a(2, "INPUT_REQUIRED", node=True), a2a(3, "WORKING"))],
         [("Send", None), ("Sub", "1")]),
        ([stream_of(a2a(None, "INPUT_REQUIRED"))], [("Send", None)]),
        ([stream_of('data: {"jsonrpc": "2.0", "id": 1, "result": {"message": {"parts": []}}}')], [("Send", None)]),
        ([stream_of(a2a(None, "WORKING")), stream_of(a2a(None, "COMPLETED"))], [("Send", None), ("Sub", None)]),
    ],
)  # fmt: skip
def test_a_message_s_stream_resumes_where_it_broke(answers: list[Any], asked: list[tuple[str, str | None]]) -> None:
    """Found from outside: `send` ended silently with 1 when its server stopped."""
    server, requests, _ = answering(*answers)

    assert list(server.send({"message": {}}))

    bodies = [json.loads(request.content) for request in requests]
    cursors = [request.headers.get("Last-Event-ID") for request in requests]
    assert list(zip([body["method"] for body in bodies], cursors, strict=True)) == [
        ({"Send": "SendStreamingMessage", "Sub": "SubscribeToTask"}[method], cursor) for method, cursor in asked
    ]
    keys = {r.headers["Idempotency-Key"] for r, b in zip(requests, bodies, strict=True) if b["method"][1] == "e"}
    assert len(keys) == 1, "a message that is sent again is the same message"


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    server, requests, _ = answering(REFUSED)

    with pytest.raises(Failure, match="no server answers"):
        list(server.send({}))
    assert len(requests) == 1


def test_what_never_answers_as_a_web_server_is_soon_given_up() -> None:
    """`send` to the port of a database reconnected for a minute, and said then that the tasks would resume."""
    server, requests, _ = answering(*[BROKEN] * 30)

    with pytest.raises(Failure, match=r"does not answer as a web server .*check the address"):
        list(server.send({}))
    assert len(requests) == FIRST_RECONNECTS + 1


def test_a_server_that_stays_away_ends_with_a_word() -> None:
    server, _, notices = answering(stream_of(a2a(1, "WORKING")), *[REFUSED] * 30)

    with pytest.raises(Failure, match="lost the server"):
        list(server.send({}))
    assert len(notices) == 1


@pytest.mark.parametrize("command", ["send", "watch", "run"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_of_the_server_is_lived_through(tmp_path: Path, command: str, number: int) -> None:
    """A real server, ended in the middle and started again; the command shows the end of the task, and exits 0."""
    (tmp_path / "gate.py").write_text(
        "import asyncio, os\nfrom core import executor\n@executor('gate')\nasync def gate(inputs, context):\n"
        "    await context.progress(0.5, 'at the gate')\n    while not os.path.exists('open'):\n"
        "        await asyncio.sleep(0.01)\n    return 'through'\n"
    )
    (tmp_path / "tree.json").write_text('[{"name": "gate"}]')
    server = ServerProcess(tmp_path, "gate.py", env={"A2A_SERVER_DRAIN": "1"}).start()
    try:
        arguments = {"send": ["send", "x", "--skill", "gate"], "run": ["run", "tree.json"]}.get(command)
        if arguments is None:
            arguments = ["watch", server.call("tasks.execute", {"tasks": [{"name": "gate"}]})["root_task_id"]]
        process = subprocess.Popen(
            [sys.executable, "-m", "a2a_server", *arguments, "--url", server.url],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=hear_ctrl_c,
        )  # fmt: skip
        assert process.stdout is not None
        while "at the gate" not in process.stdout.readline():
            pass
        server.kill() if number == signal.SIGKILL else server.terminate()
        server.start()
        (tmp_path / "open").touch()
        out, err = process.communicate(timeout=60)

        assert process.returncode == 0, err
        assert "final: completed" in out
        assert "reconnecting" in err and err.count("\n") == 1
        assert server.terminate() == 0
    finally:
        server.close()


# The client's work


def calls_of(work: Callable[[], object]) -> int:
    count = 0

    def counted(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def events_of_a_fan(tasks: int) -> Callable[[], object]:
    children = [{"id": str(n), "name": "x", "executor": "x", "status": "pending"} for n in range(tasks)]
    view = tree_view({"id": "r", "name": "r", "executor": None, "status": "in_progress", "children": children})

    def work() -> None:
        for kind, status in (("task_start", "in_progress"), ("task_completed", "completed")):
            for n in range(tasks):
                view.apply({"type": kind, "task_id": str(n), "root_task_id": "r", "name": "x", "status": status})
                assert not view.only_waits

    return work


def test_a_tree_costs_its_viewer_by_the_event_not_by_the_size() -> None:
    """Found from outside: `run` of 10,000 tasks took 16 s of the client's CPU."""
    small, large = (calls_of(events_of_a_fan(tasks)) for tasks in (100, 1_000))

    assert large < 10.5 * small
    assert large / 2_000 < 30


def test_counts_are_those_of_the_tasks() -> None:
    work = events_of_a_fan(3)
    work()
    view = tree_view(
        {"id": "r", "name": "r", "executor": None, "status": "x",
         "children": [{"id": "a", "name": "a", "executor": "x", "status": "failed"}]}
    )  # fmt: skip
    view.apply({"type": "task_start", "task_id": "a", "root_task_id": "r", "name": "a", "status": "in_progress"})
    view.apply({"type": "task_start", "task_id": "new", "root_task_id": "r", "name": "new", "status": "in_progress"})
    assert view.counts == {"in_progress": 2}
