"""Behind a proxy: whose word counts, and the path under which everything answers."""

from typing import Any
from urllib.parse import unquote

import pytest
from starlette.types import Receive, Scope, Send

from a2a_server.edge.proxies import BehindProxy
from tests.a2a_server.conftest import running
from tests.a2a_server.test_app import HEALTH, raw

PROXY = "10.0.0.1"


async def seen(
    *headers: tuple[str, str],
    peer: str = PROXY,
    trusted: tuple[str, ...] = ("10.0.0.0/8",),
    root: str = "",
    path: str = "/",
) -> dict[str, Any]:
    """The scope as the app behind gets it."""
    found: dict[str, Any] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.update(scope)

    async def nothing(*_: Any) -> Any:
        """Is not called."""

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "client": (peer, 40000),
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "headers": [(b"host", b"inner:8000"), *((name.encode(), value.encode()) for name, value in headers)],
    }
    await BehindProxy(app, root_path=root, trusted=trusted)(scope, nothing, nothing)
    return found


FORWARDED = (
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "agents.example"),
)


@pytest.mark.asyncio
async def test_word_of_a_trusted_proxy_counts() -> None:
    scope = await seen(*FORWARDED)
    assert (scope["client"], scope["scheme"]) == (("203.0.113.7", 0), "https")
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"agents.example"]


@pytest.mark.parametrize(("peer", "trusted"), [("192.0.2.1", ("10.0.0.0/8",)), (PROXY, ()), (PROXY, ("::/0",))])
@pytest.mark.asyncio
async def test_word_of_anybody_else_does_not(peer: str, trusted: tuple[str, ...]) -> None:
    scope = await seen(*FORWARDED, peer=peer, trusted=trusted)
    assert (scope["client"], scope["scheme"]) == ((peer, 40000), "http")
    assert (b"host", b"inner:8000") in scope["headers"]


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["invented, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, invented"], PROXY),
        (["203.0.113.7, invented, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.7:5555"], "203.0.113.7"),
        (["[2001:db8::1]:5555"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:10.0.0.2, ::ffff:203.0.113.7"], "203.0.113.7"),
        ([""], PROXY),
        (["unknown"], PROXY),
        (["[2001:db8::1"], "2001:db8::1"),
    ],
)
@pytest.mark.asyncio
async def test_caller_is_the_nearest_address_that_no_trusted_proxy_has(values: list[str], client: str) -> None:
    """What stands further to the left was written by the caller, or by nobody knows whom."""
    scope = await seen(*(("x-forwarded-for", value) for value in values))
    assert scope["client"][0] == client


@pytest.mark.asyncio
async def test_last_value_counts_and_other_schemes_do_not() -> None:
    assert (await seen(("x-forwarded-proto", "http, HTTPS")))["scheme"] == "https"
    assert (await seen(("x-forwarded-proto", "ftp")))["scheme"] == "http"
    scope = await seen(("x-forwarded-host", "evil.example, agents.example"))
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"agents.example"]


@pytest.mark.parametrize("wrong", ["second.example", "a b"])
@pytest.mark.asyncio
async def test_two_hosts_and_a_wrong_one_stay_for_the_gate_to_refuse(wrong: str) -> None:
    """RFC 9112 §3.2 makes no exception for proxies."""
    scope = await seen(("x-forwarded-host", "agents.example"), ("host", wrong))
    assert len([value for name, value in scope["headers"] if name == b"host"]) == 2
    sent = f"GET /tasks HTTP/1.1\r\nHost: {wrong}\r\nHost: b\r\nX-Forwarded-Host: localhost\r\n\r\n"
    async with running(trusted_proxies=("127.0.0.1",)) as server:
        assert (await raw(server, sent.encode())).startswith("HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/agents/one", "/"),
        ("/agents/one/", "/"),
        ("/agents/one/tasks", "/tasks"),
        ("/agents/one/agents/one", "/agents/one"),
        ("/agents/oneself", "/agents/oneself"),
        ("/agents%2Fone/tasks", "/agents%2Fone/tasks"),
        ("/agents/one/tasks/a%2Fb", "/tasks/a%2Fb"),
        ("/tasks", "/tasks"),
        ("/", "/"),
    ],
)
@pytest.mark.asyncio
async def test_root_path_is_taken_from_the_path_where_it_is_there(path: str, inner: str) -> None:
    scope = await seen(root="/agents/one", path=path)
    assert (scope["path"], scope["raw_path"]) == (unquote(inner), inner.encode())
    assert scope["app_root_path"] == "/agents/one"


# Over HTTP


@pytest.mark.parametrize("prefix", ["", "/agents/one"])
@pytest.mark.asyncio
async def test_every_route_answers_under_the_root_path_without_a_redirect(prefix: str) -> None:
    async with running(root_path="/agents/one") as server, server.client() as client:
        for path in ("", "/", "/tasks", "/tasks/", "/system"):
            assert (await client.post(prefix + path, json=HEALTH)).status_code == 200, path
        card = (await client.get(f"{prefix}/.well-known/agent-card.json")).json()
        for probe in ("/healthz", "/readyz"):
            assert (await client.get(prefix + probe, headers={"Host": "by.address"})).status_code == 200
        assert (await client.get(f"{prefix}/nowhere")).status_code == 404
        assert (await client.get(f"{prefix}/tasks", headers={"A2A-Version": "1.0"})).json()["tasks"] == []
        url = card["supportedInterfaces"][0]["url"]
        assert url == f"http://127.0.0.1:{server.port}/agents/one/"
        assert (await client.post(url, json=HEALTH)).status_code == 200


@pytest.mark.asyncio
async def test_host_that_a_trusted_proxy_names_is_judged_in_place_of_its_own() -> None:
    settings: dict[str, Any] = {"trusted_proxies": ("127.0.0.1",), "allowed_hosts": ("agents.example",)}
    async with running(**settings) as server, server.client() as client:
        good = {"X-Forwarded-Host": "agents.example", "Origin": "https://agents.example", "X-Forwarded-Proto": "https"}
        assert (await client.post("/", json=HEALTH, headers=good | {"Host": "inner"})).status_code == 200
        bad = await client.post("/", json=HEALTH, headers={"X-Forwarded-Host": "evil.example"})
        assert bad.status_code == 421
    async with running(allowed_hosts=("agents.example",)) as server, server.client() as client:
        assert (await client.post("/", json=HEALTH, headers=good | {"Host": "inner"})).status_code == 421
