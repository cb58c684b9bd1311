"""Whatever comes in, the answer is exact, typed and safe (reliability T10, T11, T12)."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.acceptance.process import ServerProcess

METHODS = [
    "tasks.create", "tasks.execute", "tasks.cancel", "tasks.get", "tasks.detail", "tasks.tree", "tasks.children",
    "tasks.list", "tasks.update", "tasks.delete", "tasks.copy", "tasks.running.list", "tasks.running.status",
    "tasks.running.count", "tasks.events", "tasks.answer", "system.health", "system.executors", "rpc.discover",
    "SendMessage", "GetTask", "ListTasks", "CancelTask", "SubscribeToTask", "SendStreamingMessage",
    "GetExtendedAgentCard", "CreateTaskPushNotificationConfig", "GetTaskPushNotificationConfig", "tasks/get", "nope",
    "", "rpc.x",
]  # fmt: skip
FIELDS = [
    "task_id", "task_ids", "tasks", "id", "name", "parent_id", "dependencies", "inputs", "schemas", "params",
    "priority", "status", "limit", "offset", "after", "force", "wait", "use_streaming", "root_only", "message",
    "messageId", "role", "parts", "text", "data", "configuration", "historyLength", "pageSize", "pageToken",
    "contextId", "children", "answer", "timeout", "deadline", "max_attempts", "retry", "metadata",
    "statusTimestampAfter", "url", "raw",
]  # fmt: skip
LEAK_MARKS = ("Traceback", "Error(", "msgspec", "sqlalchemy", "sqlite", 'File "', "object at 0x", "NoneType")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("bad")).start()
    yield process
    process.close()


def post(server: ServerProcess, body: bytes, **headers: str) -> tuple[int, Any]:
    answer = server.client.post("/", content=body, headers={"Content-Type": "application/json", **headers})
    return answer.status_code, answer.json() if answer.content else None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"", -32700),
        (b"\xff\xfe", -32700),
        (b'{"a": NaN}', -32700),
        (b"[" * 100_000, -32700),
        (b"1", -32600),
        (b"[]", -32600),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "tasks.list"}', -32600),
        (b'{"jsonrpc": "2.0", "id": true, "method": "tasks.list"}', -32600),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "tasks.list"}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "nope"}', -32601),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tasks.get", "params": 5}', -32600),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tasks.get", "params": {}}', -32602),
    ],
)
def test_wrong_envelopes_have_their_exact_code(server: ServerProcess, body: bytes, code: int) -> None:
    status, answer = post(server, body)
    assert (status, answer["error"]["code"]) == (200, code)


def test_other_content_types_are_415_with_a_body(server: ServerProcess) -> None:
    answer = server.client.post("/", content=b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, -32005)


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_413(server: ServerProcess, is_chunked: bool) -> None:
    size = 10 * 1024 * 1024 + 1
    piece = b"x" * 65536

    def chunks() -> Iterator[bytes]:
        for _ in range(size // len(piece) + 1):
            yield piece

    content: Any = chunks() if is_chunked else b"x" * size
    answer = server.client.post("/", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_foreign_host_is_421(server: ServerProcess) -> None:
    answer = server.client.post(
        "/", content=b"{}", headers={"Content-Type": "application/json", "Host": "evil.example"}
    )
    assert answer.status_code == 421


@pytest.mark.parametrize(
    ("tasks", "field", "text"),
    [
        ([], "tasks", "at least one"),
        ([{}], "tasks[0].name", "required"),
        ([{"name": "noop", "priority": "high"}], "tasks[0].priority", "int"),
        ([{"name": "noop", "nmae": 1}], "tasks[0].nmae", "unknown field"),
        ([{"name": "noop", "dependencies": ["x"]}], "tasks[0].dependencies[0]", "no task 'x'"),
        ([{"id": "a", "name": "noop", "dependencies": ["a"]}], "tasks[0].dependencies[0]", "itself"),
        ([{"name": "noop", "parent_id": "x"}], "tasks[0].parent_id", "no task 'x'"),
        ([{"name": "noop"}, {"name": "work"}], "tasks", "one root"),
        ([{"name": "no-such"}], "tasks[0].name", "known are"),
        ([{"name": "noop", "timeout": -1}], "tasks[0].timeout", "> 0"),
        ([{"name": "noop", "deadline": "soon"}], "tasks[0].deadline", "timestamp"),
        (
            [
                {"id": "a", "name": "noop", "dependencies": ["c"]},
                {"id": "b", "name": "noop", "parent_id": "a", "dependencies": ["a"]},
                {"id": "c", "name": "noop", "parent_id": "a", "dependencies": ["b"]},
            ],
            "tasks",
            "->",
        ),
    ],
)
def test_each_error_of_a_tree_names_its_field_and_nothing_is_stored(
    server: ServerProcess, tasks: list[Any], field: str, text: str
) -> None:
    before = server.call("tasks.list")
    error = server.raw("tasks.create", tasks)["error"]
    assert error["code"] == -32602
    violations = next(d for d in error["data"] if d["@type"].endswith("BadRequest"))["fieldViolations"]
    assert any(v["field"] == field and text in v["description"] for v in violations), violations
    assert server.call("tasks.list") == before


def test_all_errors_of_one_array_come_in_one_answer(server: ServerProcess) -> None:
    error = server.raw("tasks.create", [{"name": 1}, {"name": "noop", "priority": None}, {"x": 1}])["error"]
    violations = next(d for d in error["data"] if d["@type"].endswith("BadRequest"))["fieldViolations"]
    assert {"tasks[0].name", "tasks[1].priority", "tasks[2].name", "tasks[2].x"} <= {v["field"] for v in violations}


@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("tasks.get", {"task_id": 5}, "task_id"),
        ("tasks.list", {"limit": "x"}, "limit"),
        ("tasks.list", {"limit": -1}, "limit"),
        ("tasks.list", {"status": "odd"}, "status"),
        ("tasks.cancel", {"task_ids": 5}, "task_ids"),
        ("tasks.events", {"task_id": "x", "after": "y"}, "after"),
        ("tasks.execute", {"task_id": "x", "force": 1}, "force"),
        ("tasks.tree", {"task_id": "x", "wat": 1}, "wat"),
        ("ListTasks", {"pageSize": 0}, "pageSize"),
        ("ListTasks", {"status": "TASK_STATE_ODD"}, "status"),
        ("ListTasks", {"pageToken": "junk!"}, "pageToken"),
        ("GetTask", {"id": "x", "historyLength": -1}, "historyLength"),
        ("SendMessage", {"message": {"role": "ROLE_USER", "parts": []}}, "message.messageId"),
        ("SendMessage", {"message": {"messageId": "1", "role": "ROLE_USER", "parts": []}}, "message.parts"),
        (
            "SendMessage",
            {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "a", "data": 1}]}},
            "message.parts[0]",
        ),
    ],
)
def test_each_wrong_param_is_named(server: ServerProcess, method: str, params: Any, field: str) -> None:
    error = server.raw(method, params)["error"]
    assert error["code"] == -32602, error
    violations = next(d for d in error["data"] if d["@type"].endswith("BadRequest"))["fieldViolations"]
    assert field in [v["field"] for v in violations]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20),
    st.sampled_from(["root", "noop", "hang", "completed", "ROLE_USER", "a,b", "2026-01-01T00:00:00Z"]),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
envelopes = st.fixed_dictionaries(
    {"jsonrpc": st.sampled_from(["2.0", "2.0", "2.0", "1.0", 2]), "method": st.sampled_from(METHODS)},
    optional={"id": st.sampled_from([1, "a", None, 1.5, True, [], 2**70]), "params": values | st.none()},
)
requests = st.one_of(
    envelopes.map(lambda x: json.dumps(x).encode()),
    st.lists(envelopes, max_size=4).map(lambda x: json.dumps(x).encode()),
    values.map(lambda x: json.dumps(x).encode()),
    st.tuples(envelopes, st.binary(min_size=1, max_size=3), st.integers(0, 60)).map(
        lambda t: json.dumps(t[0]).encode()[: t[2]] + t[1] + json.dumps(t[0]).encode()[t[2] :]
    ),
)


def test_two_thousand_generated_requests_give_no_bug_and_no_exception_text(server: ServerProcess) -> None:
    """No 5xx, no -32603, nothing of an exception; and the server is as well afterwards as before."""
    sent = 0

    @settings(max_examples=2000, suppress_health_check=list(HealthCheck), database=None)
    @given(requests)
    def send(body: bytes) -> None:
        nonlocal sent
        sent += 1
        with server.client.stream("POST", "/", content=body, headers={"Content-Type": "application/json"}) as answer:
            text = ""
            if "text/event-stream" not in answer.headers.get("Content-Type", ""):
                text = answer.read().decode()
        assert answer.status_code < 500, text
        assert "-32603" not in text, (body, text)
        errors = json.dumps(list(_errors(json.loads(text) if text else [])))
        assert not any(mark in errors for mark in LEAK_MARKS), (body, errors)

    send()
    assert sent >= 2000
    assert server.call("system.health")["status"] == "healthy"


def _errors(answer: Any) -> Iterator[Any]:
    for each in answer if isinstance(answer, list) else [answer]:
        if isinstance(each, dict) and "error" in each:
            yield each["error"]


GARBAGE = (
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
)


def test_what_is_no_request_is_answered_and_writes_no_line_of_its_own(tmp_path: Path) -> None:
    """Else anybody could fill the disk with what an operator has to read."""
    server = ServerProcess(tmp_path).start()
    for garbage in GARBAGE:
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(garbage)
            assert line.recv(100).startswith(b"HTTP/1.1 4")
    assert server.terminate() == 0
    server.close()
    assert [line for line in server.log if " WARNING " in line or " ERROR " in line] == []
