"""The server over HTTP: what passes the gate, the routes, and its life from start to end."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import httpx2
import pytest

from a2a_server.app import build
from a2a_server.card.keys import ALGORITHMS
from a2a_server.config import Config
from a2a_server.edge.targets import host_name, is_host
from a2a_server.extensions import load_executors
from a2a_server.server import EX_CONFIG, EX_TEMPFAIL, EX_UNAVAILABLE, SWITCH, listen, serve
from core.executors.function import executor
from core.model.errors import ConfigurationError
from core.session import has_ended
from core.storage.memory import MemoryStorage
from core.storage.sqlite.sql import SqlStorage
from tests.a2a_server.card.cards import key_file
from tests.a2a_server.conftest import Lab, RunningServer, message, running
from tests.core.cores import settle

HEALTH = {"jsonrpc": "2.0", "id": 1, "method": "system.health"}
JSON = {"Content-Type": "application/json"}


async def raw(server: RunningServer, request: bytes) -> str:
    """The answer to a request that no proper client sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


# The gate


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("LocalHost:80", "localhost"),
        ("localhost:", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("", ""),
        ("[::1", ""),
        ("[::1]x", ""),
        ("localhost:[x", ""),
        ("localhost:80@evil.example", ""),
        ("localhost:8\u00b2", ""),
    ],
)
def test_host_name_is_read_without_port_and_brackets(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "a!b", "[::2]", "", "[a", "127.0.0.1:[x", "[::1]x"],
)
@pytest.mark.parametrize("path", ["/", "/.well-known/agent-card.json", "/tasks/x/events"])
@pytest.mark.asyncio
async def test_foreign_host_is_misdirected_and_what_is_no_host_a_bad_request(
    server: RunningServer, host: str, path: str
) -> None:
    """DNS rebinding: a page's own name that resolves to us."""
    async with server.client() as client:
        response = await client.get(path, headers={"Host": host})
    assert response.status_code == (421 if is_host(host) else 400)
    assert is_host(host) is (host not in ("", "[a", "127.0.0.1:[x", "[::1]x"))
    assert response.json()["error"]["code"] == -32600


@pytest.mark.asyncio
async def test_allowed_host_passes() -> None:
    async with running(allowed_hosts=("agents.example",)) as server, server.client() as client:
        response = await client.post("/", json=HEALTH, headers={"Host": "Agents.Example:443"})
    assert response.status_code == 200


@pytest.mark.asyncio
async def test_a_star_among_the_allowed_hosts_takes_any_host_that_is_one() -> None:
    async with running(allowed_hosts=("*",)) as server, server.client() as client:
        assert (await client.post("/", json=HEALTH, headers={"Host": "any.example:8000"})).status_code == 200
        assert (await client.post("/", json=HEALTH, headers={"Host": "[any"})).status_code == 400
        assert (await client.post("/", json=HEALTH, headers={"Host": "a!b"})).status_code == 421


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[evil", "http://[x]"])
@pytest.mark.asyncio
async def test_other_origin_is_forbidden(server: RunningServer, origin: str) -> None:
    async with server.client() as client:
        assert (await client.post("/", json=HEALTH, headers={"Origin": origin})).status_code == 403
        assert (await client.post("/", json=HEALTH, headers={"Origin": server.base_url})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
@pytest.mark.asyncio
async def test_other_content_type_is_refused_before_the_body_is_parsed(
    server: RunningServer, headers: dict[str, str]
) -> None:
    async with server.client() as client:
        response = await client.post("/", content=b"{'not': json}", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (415, -32005)
    assert response.json()["id"] is None


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "application/a2a+json", "APPLICATION/JSON"])
@pytest.mark.asyncio
async def test_json_types_pass(server: RunningServer, media_type: str) -> None:
    async with server.client() as client:
        response = await client.post("/", content=json.dumps(HEALTH), headers={"Content-Type": media_type})
    assert response.json()["result"]["status"] == "healthy"


@pytest.mark.asyncio
async def test_body_up_to_the_limit_passes_and_one_byte_more_does_not() -> None:
    async with running(max_body=1000) as server, server.client() as client:
        body = json.dumps(HEALTH).encode()
        for size, status in ((1000, 200), (1001, 413), (300_000, 413)):
            padded = body + b" " * (size - len(body))

            async def chunks(padded: bytes = padded) -> Any:
                yield padded[:500]
                yield padded[500:]

            known = await client.post("/", content=padded, headers=JSON)
            chunked = await client.post("/", content=chunks(), headers=JSON)
            assert (known.status_code, chunked.status_code) == (status, status)
        assert known.json()["error"]["code"] == chunked.json()["error"]["code"] == -32600


@pytest.mark.asyncio
async def test_body_that_does_not_arrive_is_not_waited_for() -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    async with running(body_timeout=0.05) as server:
        answer = await raw(server, head)
    assert answer.startswith("HTTP/1.1 408") and "application/json" in answer


@pytest.mark.parametrize("twice", ["Host: evil.example", "Idempotency-Key: a\r\nIdempotency-Key: b"])
@pytest.mark.asyncio
async def test_header_that_counts_is_not_given_twice(server: RunningServer, twice: str) -> None:
    head = f"GET /.well-known/agent-card.json HTTP/1.1\r\nHost: localhost\r\n{twice}\r\n\r\n"
    assert (await raw(server, head.encode())).startswith("HTTP/1.1 400")


# Routes


@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks/", "/system", "/system/"])
@pytest.mark.asyncio
async def test_the_endpoint_is_the_same_at_all_its_paths_without_a_redirect(server: RunningServer, path: str) -> None:
    async with server.client() as client:
        response = await client.post(path, json=HEALTH)
        assert (response.status_code, response.json()["result"]["status"]) == (200, "healthy")
        assert (await client.put(path, json=HEALTH)).status_code == 405


@pytest.mark.asyncio
async def test_broken_json_wrong_envelope_and_unknown_method_have_their_codes(server: RunningServer) -> None:
    async with server.client() as client:
        for body, code in ((b"{", -32700), (b"{}", -32600), (json.dumps(HEALTH | {"method": "x"}).encode(), -32601)):
            response = await client.post("/", content=body, headers=JSON)
            assert (response.status_code, response.json()["error"]["code"]) == (200, code)


@pytest.mark.asyncio
async def test_batch_and_notification_over_http(server: RunningServer) -> None:
    async with server.client() as client:
        batch = await client.post("/", json=[HEALTH, HEALTH | {"id": 2, "method": "x"}])
        silent = await client.post("/", json={"jsonrpc": "2.0", "method": "system.health"})
    assert [answer["id"] for answer in batch.json()] == [1, 2]
    assert (silent.status_code, silent.content) == (204, b"")


@pytest.mark.asyncio
async def test_version_is_taken_from_header_or_query(server: RunningServer) -> None:
    get = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
    async with server.client() as client:
        codes = [
            (await client.post("/", json=get, headers={"A2A-Version": "1.0"})).json()["error"]["code"],
            (await client.post("/", json=get, headers={"A2A-Version": "99.0"})).json()["error"]["code"],
            (await client.post("/?A2A-Version=99.0", json=get)).json()["error"]["code"],
        ]
    assert codes == [-32001, -32009, -32009]


@pytest.mark.asyncio
async def test_wrong_event_id_is_told_to_streaming_calls_only_under_their_id(server: RunningServer) -> None:
    get = {"jsonrpc": "2.0", "id": 7, "method": "GetTask", "params": {"id": "x"}}
    subscribe = get | {"method": "SubscribeToTask"}
    run = get | {"method": "tasks.execute", "params": {"task_id": "x", "use_streaming": True}}
    async with server.client() as client:
        client.headers["Last-Event-ID"] = "abc"
        assert (await client.post("/", json=HEALTH)).json()["result"]["status"] == "healthy"
        assert (await client.post("/", json=get)).json()["error"]["code"] == -32001
        notified = {"jsonrpc": "2.0", "method": "system.health"}
        assert (await client.post("/", json=notified)).status_code == 204
        assert [answer["id"] for answer in (await client.post("/", json=[HEALTH, get])).json()] == [1, 7]
        for stream in (subscribe, run):
            answer = (await client.post("/", json=stream)).json()
            assert (answer["id"], answer["error"]["code"]) == (7, -32602)
            assert answer["error"]["data"][0]["fieldViolations"][0]["field"] == "Last-Event-ID"
        events = await client.get("/tasks/x/events")
        assert (events.status_code, events.json()["error"]["code"]) == (400, -32602)


@pytest.mark.asyncio
async def test_empty_version_header_is_an_absent_one(server: RunningServer) -> None:
    get = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
    async with server.client() as client:
        assert (await client.post("/", json=get, headers={"A2A-Version": ""})).json()["error"]["code"] == -32001


@pytest.mark.parametrize("name", ["agent-card.json", "agent.json", "agent-card"])
@pytest.mark.asyncio
async def test_card_is_served_with_an_etag_and_304(server: RunningServer, name: str) -> None:
    async with server.client() as client:
        response = await client.get(f"/.well-known/{name}")
        again = await client.get(f"/.well-known/{name}", headers={"If-None-Match": response.headers["etag"]})
        other = await client.get(f"/.well-known/{name}", headers={"If-None-Match": '"other"'})
    card = response.json()
    assert card["supportedInterfaces"][0]["url"] == server.base_url + "/"
    assert {"echo", "ask"} <= {skill["id"] for skill in card["skills"]}
    assert "internal" not in {skill["id"] for skill in card["skills"]}
    assert "max-age" in response.headers["cache-control"]
    assert (again.status_code, again.content, other.status_code) == (304, b"", 200)
    assert again.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.asyncio
async def test_applications_on_one_database_serve_the_same_documents_with_the_same_headers(
    tmp_path: Path, alg: str
) -> None:
    """So a cache before several of them, and a client that meets another one, asks with a tag that all of them know."""
    keys, storage = (key_file(tmp_path, alg),), MemoryStorage()

    async def served(path: str, **settings: Any) -> tuple[bytes, dict[str, str]]:
        application = build(Config(card_keys=keys, **settings), registry=Lab().registry, storage=storage)
        await application.start()
        transport = httpx2.ASGITransport(application.asgi)
        async with httpx2.AsyncClient(transport=transport, base_url=application.url) as client:
            answer = await client.get(path)
        return answer.content, {name: answer.headers[name] for name in ("etag", "last-modified")}

    for path in ("agent-card.json", "jwks.json", "ai-catalog.json"):
        one, other = await asyncio.gather(*[served(f"/.well-known/{path}") for _ in range(2)])
        assert one == other
    before = await served("/.well-known/agent-card.json")
    changed = await served("/.well-known/agent-card.json", push=False)
    assert all(before[1][name] != changed[1][name] for name in before[1])


@pytest.mark.asyncio
async def test_card_names_required_extensions_and_calls_without_them_are_refused(tmp_path: Path) -> None:
    uri = "https://example.com/ext"
    template = {
        "name": "n", "description": "d", "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
        "capabilities": {"extensions": [{"uri": uri, "required": True}]},
    }  # fmt: skip
    card = tmp_path / "card.json"
    card.write_text(json.dumps(template))
    get = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}}
    async with running(card=str(card)) as server, server.client() as client:
        without = await client.post("/", json=get)
        declared = await client.post("/", json=get, headers={"A2A-Extensions": f"https://other.example, {uri}"})
    assert without.json()["error"]["code"] == -32008
    assert (declared.json()["error"]["code"], declared.headers["a2a-extensions"]) == (-32001, uri)


# Life


@pytest.mark.asyncio
async def test_probes_say_how_the_server_is_and_work_is_refused_when_it_stops(server: RunningServer) -> None:
    async with server.client() as client:
        assert (await client.get("/readyz")).status_code == 200
        server.application.drain()
        assert (await client.get("/healthz", headers={"Host": "10.0.0.1"})).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        for refused in (await client.post("/", json=HEALTH), await client.get("/tasks/x/events")):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
            assert refused.json()["error"]["code"] == -32051


@pytest.mark.asyncio
async def test_a_server_whose_database_was_removed_refuses_work_and_says_so(tmp_path: Path) -> None:
    """Found from outside: /readyz answered 200 while every write was refused."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    async with running(storage=storage) as server, server.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        (tmp_path / "tasks.db").unlink()
        ready = await client.get("/readyz")
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("echo")}
        refused = await client.post("/", json=call)
    reason = "The file tasks.db was removed while the server was using it; put it back, or restart the server"
    assert (ready.status_code, ready.json()) == (503, {"status": "unready", "reason": reason})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, -32051)


@pytest.mark.asyncio
async def test_server_without_a_thread_for_plain_functions_is_not_ready_and_says_why() -> None:
    """Found from outside: hung functions took 128 threads, and plain ones never began again."""
    gate = threading.Event()
    async with running(max_threads=1) as server, server.client() as client:
        executor("hang", registry=server.lab.registry)(lambda: gate.wait(30))
        session = server.application.session
        head = (await session.create(session.plan([{"name": "hang", "timeout": 0.01}]), execute=True)).head
        await session.wait(head.id, has_ended)
        await settle(100)  # its job ends a few turns after its events
        ready = await client.get("/readyz")
        problem = "no thread is free: 1 of 1 still run although their attempts are over (hang 1)"
        assert (ready.status_code, ready.json()) == (503, {"status": "unready", "reason": problem})
        assert (await client.get("/healthz")).status_code == 200
        again = (await session.create(session.plan([{"name": "hang"}]), execute=True)).head
        gate.set()
        await session.wait(again.id, has_ended)
        assert (await client.get("/readyz")).json() == {"status": "ready"}


@pytest.mark.asyncio
async def test_server_that_has_not_started_is_not_ready(server: RunningServer) -> None:
    server.application.readiness.is_ready = False
    async with server.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "starting"}
        assert (await client.post("/", json=HEALTH)).status_code == 503


def test_connections_keep_for_a_slow_reader_what_the_setting_says() -> None:
    """Linux gives twice what it is asked for, half of it for its own books; by itself it goes on to megabytes."""
    with listen("127.0.0.1", 0, 100_000) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 200_000


def test_small_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio sets TCP_NODELAY on accepted sockets of a listener that names its protocol, and on no others."""
    with listen("127.0.0.1", 0, 65_536) as listener:
        assert listener.proto == socket.IPPROTO_TCP


@pytest.mark.asyncio
async def test_stop_leaves_what_runs_for_the_next_start_to_resume(tmp_path: Path) -> None:
    """The same executors and database, a second server."""
    database = f"sqlite:///{tmp_path}/t.db"
    async with running(database=database, storage=SqlStorage(database)) as first, first.client() as client:
        params = message("hold") | {"configuration": {"returnImmediately": True}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
        task_id = (await client.post("/", json=call)).json()["result"]["task"]["id"]
        await first.lab.started["hold"].wait()
    async with running(database=database, storage=SqlStorage(database)) as second, second.client() as client:
        await second.lab.started["hold"].wait()
        second.lab.released["hold"].set()
        await second.application.session.wait(task_id, lambda head: head.status.is_terminal)
        call = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": task_id}}
        assert (await client.post("/", json=call)).json()["result"]["status"]["state"] == "TASK_STATE_COMPLETED"


EXECUTORS = """
import asyncio
import sys
import threading
import time
from core.executors.base import ExecutorSpec
from core.executors.registry import default_registry

class Sleeper:
    async def execute(self, inputs, context):
        await asyncio.Event().wait()

class Refuser:
    async def execute(self, inputs, context):
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("heard, and went on", file=sys.stderr, flush=True)

class Blocker:
    async def execute(self, inputs, context):
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
        threading.Thread(target=time.sleep, args=(60,)).start()
        await asyncio.Event().wait()

class Deaf:
    async def execute(self, inputs, context):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("heard, and went on", file=sys.stderr, flush=True)
            await asyncio.Event().wait()

default_registry.register(ExecutorSpec(id="sleeper", make=Sleeper))
default_registry.register(ExecutorSpec(id="deaf", make=Deaf))
default_registry.register(ExecutorSpec(id="refuser", make=Refuser))
default_registry.register(ExecutorSpec(id="blocker", make=Blocker))
"""

PROGRAM = """
import sys
from a2a_server.config import Config
from a2a_server.server import serve
sys.exit(serve(Config(port=0, database=sys.argv[1], executors=(sys.argv[2],), drain=float(sys.argv[3]))))
"""


async def start_process(folder: Path, drain: float = 5) -> tuple[asyncio.subprocess.Process, str]:
    """A server process, and where it listens."""
    (folder / "sleeper.py").write_text(EXECUTORS)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, f"sqlite:///{folder}/t.db", str(folder / "sleeper.py"), str(drain),
        stderr=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert process.stderr is not None
    async for line in process.stderr:
        if b"listening on" in line:
            return process, line.decode().split()[3]
    raise AssertionError(f"the server ended with {await process.wait()}")


@pytest.mark.asyncio
async def test_sigterm_ends_streams_and_the_process_with_exit_code_0(tmp_path: Path) -> None:
    process, url = await start_process(tmp_path, drain=0.5)
    async with RunningServer.client_of(url) as client:
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message("sleeper")}
        text = ""
        async with client.stream("POST", "/", json=call) as response:
            async for chunk in response.aiter_text():
                text += chunk
                if "TASK_STATE_WORKING" in chunk:
                    process.send_signal(signal.SIGTERM)
    assert text.endswith(": the server is stopping; resume with Last-Event-ID\n")
    async with asyncio.timeout(5):
        assert await process.wait() == 0


@pytest.mark.asyncio
async def test_second_signal_does_not_wait_for_work_that_will_not_stop(tmp_path: Path) -> None:
    process, url = await start_process(tmp_path)
    async with RunningServer.client_of(url) as client:
        params = message("deaf") | {"configuration": {"returnImmediately": True}}
        await client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params})
        while (await client.post("/", json=HEALTH)).json()["result"]["running_tasks"] == 0:
            pass
        process.terminate()
    assert process.stderr is not None
    async for line in process.stderr:
        if b"heard" in line:
            break
    process.terminate()
    assert await process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("skill", ["refuser", "blocker"])
@pytest.mark.asyncio
async def test_work_that_does_not_stop_does_not_hold_the_end_up(tmp_path: Path, skill: str) -> None:
    """A task that swallows its cancellation, and threads that go on: closed in time, exit code 0, and told."""
    process, url = await start_process(tmp_path, drain=2)
    async with RunningServer.client_of(url) as client:
        params = message(skill) | {"configuration": {"returnImmediately": True}}
        await client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params})
        while (await client.post("/", json=HEALTH)).json()["result"]["running_tasks"] == 0:
            pass
    process.terminate()
    async with asyncio.timeout(4):
        _, said = await process.communicate()
    assert process.returncode == 0
    left = "1 asyncio tasks and " if skill == "refuser" else " threads did not end in time"
    assert left in said.decode().splitlines()[-2]
    assert said.endswith(b": stopped\n"), "the last line says so in this case too"
    assert not (tmp_path / "t.db-wal").exists(), "the database was not closed"


@pytest.mark.asyncio
async def test_second_server_on_the_same_database_says_who_holds_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process, _ = await start_process(tmp_path)
    config = Config(port=0, database=f"sqlite:///{tmp_path}/t.db")
    assert await asyncio.to_thread(serve_alone, config) == EX_TEMPFAIL
    process.terminate()
    await process.wait()
    error = capfd.readouterr().err.strip()
    assert error.startswith("a2a-server: ")
    assert str(process.pid) in error
    assert len(error.splitlines()) == 1


def serve_alone(config: Config) -> int:
    """`serve` without what it does to the logging of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("a2a_server.logs.configure", lambda *_, **__: None)
        patch.setattr(sys, "setswitchinterval", lambda seconds: None)
        return serve(config)


def test_threads_give_way_to_the_event_loop_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bodies are judged in one (decision 0013)."""
    told: list[float] = []
    monkeypatch.setattr("a2a_server.logs.configure", lambda *_, **__: None)
    monkeypatch.setattr(sys, "setswitchinterval", told.append)
    serve(Config(port=0, database=f"sqlite:///{tmp_path}/t.db", executors=("missing.py",)))
    assert told == [SWITCH] and SWITCH < 0.005  # the interpreter's own


def test_wrong_configuration_is_one_line_and_exit_code_78(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = Config(port=0, database=f"sqlite:///{tmp_path}/t.db", executors=("missing.py",))
    assert serve_alone(config) == EX_CONFIG
    assert capfd.readouterr().err == "a2a-server: executors missing.py: the file does not exist\n"


def test_default_skill_that_is_none_is_one_line_that_names_the_skills(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert serve_alone(Config(port=0, database=f"sqlite:///{tmp_path}/t.db", default_skill="zz")) == EX_CONFIG
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("a2a-server: default_skill: there is no skill 'zz'; the skills are: ")


def test_default_skill_may_be_any_registered_skill_and_no_internal_executor() -> None:
    lab = Lab()
    assert build(Config(default_skill="echo"), registry=lab.registry, storage=MemoryStorage())
    lab = Lab()
    with pytest.raises(ConfigurationError, match=r"default_skill: there is no skill 'internal'; .*\becho\b"):
        build(Config(default_skill="internal"), registry=lab.registry, storage=MemoryStorage())


def test_port_that_is_taken_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with listen("127.0.0.1", 0, 65_536) as taken:
        port = taken.getsockname()[1]
        assert serve_alone(Config(port=port, database=f"sqlite:///{tmp_path}/t.db")) == EX_UNAVAILABLE
    assert capfd.readouterr().err == f"a2a-server: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no_such_module_of_ours", None, "the module does not exist; give a file that ends in .py, or a module"),
        ("no_such_package.module", None, "the module does not exist; give a file that ends in .py, or a module"),
        ("folder/no_such_file", None, "it is neither a file that ends in .py nor a module"),
        ("no_such_file.txt", None, "the module does not exist; give a file that ends in .py"),
        ("text.txt", "", "it is neither a file that ends in .py nor a module"),
        ("", None, "the module does not exist; give a file that ends in .py"),
        ("needs.py", "import need", "ModuleNotFoundError: No module named 'need'"),
        ("broken.py", "1 +", "SyntaxError"),
        ("raises.py", "raise RuntimeError('because')", "RuntimeError: because"),
        ("exits.py", "raise SystemExit(0)", "SystemExit: 0"),
        ("exits_too.py", "import sys; sys.exit('bye')", "SystemExit: bye"),
    ],
)
def test_executors_that_cannot_be_imported_are_named_with_the_reason(
    tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
        name = str(tmp_path / name)
    with pytest.raises(ConfigurationError) as refusal:
        load_executors([name])
    assert name in str(refusal.value)
    assert said in str(refusal.value)
    assert "importlib" not in str(refusal.value) and "__init__" not in str(refusal.value)  # Python's ways are no place
