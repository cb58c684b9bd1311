"""What RFC 9110 (HTTP semantics) demands of a server and a client can see, section by section."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from a2a_server.auth.stored_keys import Grant
from a2a_server.edge.inflight import SMALL
from tests.a2a_server.conftest import RunningServer, message, running
from tests.a2a_server.edge.test_deadlines import LENGTH
from tests.a2a_server.edge.test_deadlines import Bench as TimedBench
from tests.a2a_server.test_rfc9112 import BODY, GET, LOCAL, POST, Answer, answers, exchange, get
from tests.a2a_server.test_rfc9112 import LENGTH as BODY_LENGTH
from tests.a2a_server.views.test_streams import rpc

CARD = b"/.well-known/agent-card.json"
END = b"Connection: close"


async def ask(server: RunningServer, method: str, path: str, *fields: str, body: bytes = b"") -> Answer:
    """One answer, with Content-Length and Content-Type where there is a body."""
    own = ["Host: localhost", "Connection: close", *fields]
    own += [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *own, "", ""]).encode("latin-1")
    (answer,) = await exchange(server.port, head + body, ends=False)
    return answer


async def made(server: RunningServer) -> str:
    """The id of a task that has ended."""
    async with server.client() as client:
        sent = await client.post("/message:send", json=message("echo"))
    return str(sent.json()["task"]["id"])


# Methods (§9)

PATHS = [
    "/.well-known/agent-card.json",
    "/.well-known/ai-catalog.json",
    "/healthz",
    "/readyz",
    "/tasks",
    "/tasks/{id}",
    "/tasks/none",
    "/tasks/{id}/events",
    "/tasks/{id}:subscribe",
    "/extendedAgentCard",
    "/tasks/{id}/pushNotificationConfigs",
    "/no/such/path",
    "/message:send",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.asyncio
async def test_head_is_answered_as_get_without_the_content(server: RunningServer, path: str) -> None:
    """§9.1: GET and HEAD are what every server has; §9.3.2."""
    path = path.replace("{id}", await made(server))
    got, head = await ask(server, "GET", path), await ask(server, "HEAD", path)
    assert (head.status, head.body) == (got.status, "")
    kept = [[field for field in each.fields if field[0] not in ("date", "transfer-encoding")] for each in (got, head)]
    assert kept[0] == kept[1]
    assert got["content-type"], "§8.3"
    assert "HEAD" in got["allow"] if "GET" in got["allow"] else True


@pytest.mark.asyncio
async def test_head_of_a_live_stream_ends_and_follows_nothing(server: RunningServer) -> None:
    async with server.client() as client:
        body = message("hold") | {"configuration": {"returnImmediately": True}}
        task_id = (await client.post("/message:send", json=body)).json()["task"]["id"]
    for path in (f"/tasks/{task_id}:subscribe", f"/tasks/{task_id}/events"):
        answer = await ask(server, "HEAD", path)
        assert (answer.status, answer.body) == (200, "")
        assert answer["content-type"].startswith("text/event-stream")
    assert server.application.session.feed.followers == 0
    server.lab.released["hold"].set()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "DELETE", "PROPFIND", "POST", "GET"])
@pytest.mark.parametrize(
    "path", ["/", "/tasks/", "/healthz", "/message:send", "/tasks/x", "/tasks/x/events", CARD.decode()]
)
@pytest.mark.asyncio
async def test_a_method_that_a_path_does_not_have_is_told_those_that_it_has(
    server: RunningServer, method: str, path: str
) -> None:
    """§10.2.1 and §15.5.6; what Allow names is never answered 405."""
    told = await ask(server, method, path)
    if told.status != 405:
        assert told["allow"] == ""
        return
    allowed = told["allow"].split(", ")
    assert allowed and method not in allowed
    for other in allowed:
        assert (await ask(server, other, path)).status != 405


# Fields (§5 to §8)


@pytest.mark.asyncio
async def test_list_fields_may_come_on_several_lines_and_others_only_once(server: RunningServer) -> None:
    """§5.3."""
    tag = (await ask(server, "GET", CARD.decode()))["etag"]
    assert (await ask(server, "GET", CARD.decode(), 'If-None-Match: "x"', f"If-None-Match: {tag}")).status == 304
    accepted = await ask(server, "GET", "/tasks", "Accept: text/html", "Accept: application/json")
    assert accepted["content-type"] == "application/json"
    for name in ("Host", "Content-Type", "A2A-Version", "Last-Event-ID", "Idempotency-Key", "Origin"):
        fields = [f"{name}: 1", f"{name}: 1"]
        told = await ask(server, "GET", "/tasks", *fields)
        assert told.status == 400 and name.lower() in told.body.lower()


@pytest.mark.asyncio
async def test_extensions_may_be_declared_on_several_lines(tmp_path: Path) -> None:
    uris = ("https://example.com/a", "https://example.com/b")
    template = tmp_path / "card.json"
    template.write_text(
        json.dumps(
            {
                "name": "n",
                "description": "d",
                "version": "1",
                "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"],
                "capabilities": {"extensions": [{"uri": uri, "required": True} for uri in uris]},
            }
        )
    )
    async with running(card=str(template)) as server:
        given = [f"A2A-Extensions: {uri}" for uri in uris]
        body = json.dumps(message("echo")).encode()
        told = await ask(server, "POST", "/message:send", "Content-Type: application/json", *given, body=body)
    assert (told.status, told["a2a-extensions"]) == (200, ", ".join(uris))


UNREAD: Mapping[str, tuple[int, bytes]] = {
    "no request": (400, b"\x00\r\n\r\n"),
    "a target too long": (414, get(b"/" + b"a" * 20_000, LOCAL)),
    "a head too large": (431, get(b"/", LOCAL, b"X-A: " + b"a" * 20_000)),
    "two Hosts": (400, get(b"/", LOCAL, LOCAL)),
    "another host": (421, get(b"/tasks", b"Host: evil.example")),
    "no such path": (404, get(b"/no", LOCAL, END)),
    "another method": (405, get(b"/message:send", LOCAL, END)),
    "no JSON": (415, POST.replace(b"/json", b"/xml") + END + b"\r\n" + BODY_LENGTH + b"\r\n" + BODY),
    "a body too large": (413, POST + LENGTH % 10**9),
    "another origin": (403, get(b"/tasks", LOCAL, b"Origin: https://evil.example", END)),
    "nothing": (200, get(b"/healthz", LOCAL, END)),
}


@pytest.mark.parametrize("what", UNREAD)
@pytest.mark.asyncio
async def test_every_answer_has_its_date_type_and_length(server: RunningServer, what: str) -> None:
    """§6.6.1 (a MUST for 2xx to 4xx), §8.3, §8.6."""
    status, sent = UNREAD[what]
    (told,) = await exchange(server.port, sent)
    assert told.status == status
    assert [name for name, _ in told.fields].count("date") == 1 and told["date"].endswith(" GMT")
    assert told["content-type"] and len(told.body.encode()) == int(told["content-length"])


@pytest.mark.asyncio
async def test_what_is_no_request_of_head_has_no_content(server: RunningServer) -> None:
    (told,) = await exchange(server.port, b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nX : y\r\n\r\n")
    assert (told.status, told.body) == (400, "")


@pytest.mark.asyncio
async def test_late_body_is_told_with_a_date() -> None:
    """§15.5.9."""
    bench = TimedBench()
    bench.connection.server_state.default_headers = [(b"date", b"Sun, 06 Nov 1994 08:49:37 GMT")]
    bench.send(POST + LENGTH % 10)
    assert bench.ends_after(5) == "closed"
    (told,) = answers(bench.transport.written.decode())
    assert (told.status, told["date"], told["connection"]) == (408, "Sun, 06 Nov 1994 08:49:37 GMT", "close")


# 100-continue (§10.1.1)

EXPECT = b"Expect: 100-continue\r\n"


async def begun(port: int, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    return reader, writer, await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("path", [b"/", b"/tasks", b"/message:send"])
@pytest.mark.parametrize("expect", [EXPECT, EXPECT.upper(), EXPECT.replace(b" ", b"\t")])
@pytest.mark.asyncio
async def test_client_that_waits_for_100_gets_it_and_then_its_answer(
    server: RunningServer, path: bytes, expect: bytes
) -> None:
    head = POST.replace(b"POST /", b"POST " + path) + expect + BODY_LENGTH + END + b"\r\n\r\n"
    reader, writer, first = await begun(server.port, head)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert (await reader.read()).startswith(b"HTTP/1.1 ")
    writer.close()


REFUSED: Mapping[str, tuple[int, bytes]] = {
    "too large": (413, POST + EXPECT + LENGTH % 10**9),
    "no JSON": (415, POST.replace(b"/json", b"/xml") + EXPECT + LENGTH % 10),
    "another host": (421, POST.replace(b"localhost", b"evil.example") + EXPECT + LENGTH % 10),
    "no such path": (404, POST.replace(b"POST /", b"POST /no") + EXPECT + LENGTH % 10),
    "a path for GET": (405, POST.replace(b"POST /", b"POST /healthz") + EXPECT + LENGTH % 10),
    "a card": (405, POST.replace(b"POST /", b"POST " + CARD) + EXPECT + LENGTH % 10),
    "a method without a body": (200, POST.replace(b"POST /", b"GET /healthz") + EXPECT + LENGTH % 10),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.asyncio
async def test_answer_in_place_of_100_ends_the_connection(server: RunningServer, what: str) -> None:
    """Whether the body follows nobody knows: what does follow must not be read as a request."""
    status, sent = REFUSED[what]
    (told,) = await exchange(server.port, sent, GET, ends=status == 413)  # that body is waited for
    assert (told.status, told["connection"]) == (status, "close")


@pytest.mark.asyncio
async def test_http_1_0_gets_no_100(server: RunningServer) -> None:
    head = POST.replace(b"1.1", b"1.0") + EXPECT + BODY_LENGTH + b"\r\n"
    (told,) = await exchange(server.port, head + BODY)
    assert told.status == 200


@pytest.mark.asyncio
async def test_refused_callers_are_not_asked_for_their_body() -> None:
    async with running(auth=("keys",)) as server:
        (told,) = await exchange(server.port, POST + EXPECT + LENGTH % 10, GET, ends=False)
    assert (told.status, told["connection"]) == (401, "close")
    assert told["www-authenticate"].startswith("Bearer "), "§11.6.1"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.asyncio
async def test_scheme_of_a_credential_has_no_case(scheme: str) -> None:
    """§11.1."""
    async with running(auth=("keys",)) as server:
        from_keys = await server.application.keys.create(Grant(principal="ann", is_operator=True))
        body = json.dumps(rpc("system.health", {})).encode()
        told = await ask(
            server,
            "POST",
            "/",
            f"Authorization: {scheme} {from_keys[1]}",
            "Content-Type: application/json",
            body=body,
        )
    assert told.status == 200


# Negotiation, conditions, ranges (§12 to §14)


@pytest.mark.asyncio
async def test_refused_content_is_told_what_is_taken(server: RunningServer) -> None:
    """§15.5.16, §12.5.3."""
    for path in ("/", "/message:send"):
        wrong = await ask(server, "POST", path, "Content-Type: text/plain", body=b"{}")
        coded = await ask(server, "POST", path, "Content-Type: application/json", "Content-Encoding: gzip", body=b"{}")
        assert (wrong.status, wrong["accept"]) == (415, "application/json, application/a2a+json")
        assert (coded.status, coded["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize("path", [CARD.decode(), "/healthz", "/tasks"])
@pytest.mark.asyncio
async def test_ranges_codings_and_unknown_fields_change_nothing(server: RunningServer, path: str) -> None:
    """§14.2, §12.5.3."""
    plain = await ask(server, "GET", path)
    for field in (
        "Range: bytes=0-3",
        "Accept-Encoding: gzip, br;q=0.5",
        "TE: deflate",
        "X-Unheard: of",
        "Max-Forwards: 0",
    ):
        told = await ask(server, "GET", path, field)
        assert (told.status, told.body, told["content-encoding"]) == (200, plain.body, "")


@pytest.mark.asyncio
async def test_document_that_has_not_changed_is_told_without_content(server: RunningServer) -> None:
    """§13, §15.4.5."""
    card = await ask(server, "GET", CARD.decode())
    for method in ("GET", "HEAD"):
        same = await ask(server, method, CARD.decode(), f"If-None-Match: {card['etag']}")
        assert (same.status, same.body, same["content-length"], same["transfer-encoding"]) == (304, "", "", "")
        for name in ("etag", "last-modified", "cache-control", "vary", "date"):
            assert same[name]
        gone = await ask(server, method, CARD.decode(), 'If-Match: "x"')
        assert (gone.status, gone.body) == (412, "")


@pytest.mark.asyncio
async def test_notification_has_no_content_and_no_length(server: RunningServer) -> None:
    """§8.6, §15.3.5."""
    body = json.dumps({"jsonrpc": "2.0", "method": "system.health"}).encode()
    told = await ask(server, "POST", "/", "Content-Type: application/json", body=body)
    assert (told.status, told.body, told["content-length"], told["transfer-encoding"]) == (204, "", "", "")


@pytest.mark.parametrize("target", ["/%74asks", "/%54ASKS", "/%7Easks", "/tasks?%70ageSize=1", "/message%3Asend"])
@pytest.mark.asyncio
async def test_characters_that_need_no_encoding_are_the_same_encoded(server: RunningServer, target: str) -> None:
    """§4.2.3: an octet that is not reserved is the same, encoded or not; a reserved one may mean something else."""
    told = await ask(server, "GET", target)
    assert told.status == (200 if "asks" in target and "%54" not in target and "%7E" not in target else 404)


@pytest.mark.asyncio
async def test_retry_after_is_a_number_of_seconds() -> None:
    """§10.2.3."""
    async with running(max_rate=0.3, max_burst=1) as server:
        body = json.dumps(rpc("system.health", {})).encode()
        told = [await ask(server, "POST", "/", "Content-Type: application/json", body=body) for _ in range(2)]
    assert [each.status for each in told] == [200, 429]
    assert told[1]["retry-after"].isdigit() and int(told[1]["retry-after"]) >= 1


@pytest.mark.asyncio
async def test_answer_larger_than_one_write_has_its_length(server: RunningServer) -> None:
    text = "x" * (4 * SMALL)
    body = json.dumps(message("echo", text=text)).encode()
    told = await ask(server, "POST", "/message:send", "Content-Type: application/json", body=body)
    assert len(told.body.encode()) == int(told["content-length"]) > len(text)
