"""Whose pages may ask, and whose may read: the rules, and what a browser gets to see of them."""

from typing import Any

import pytest

from a2a_server.edge.origins import Origins, origin_of
from tests.a2a_server.conftest import message, running
from tests.a2a_server.test_app import HEALTH

APP = "https://app.example"
CARD = "/.well-known/agent-card.json"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example/", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origin_is_scheme_host_and_port(text: str, origin: str) -> None:
    assert origin_of(text) == origin


NO_ORIGINS = [
    "",
    "null",
    "*",
    "app.example",
    "https://",
    "https://a/b",
    "https://a?b",
    "https://u@a",
    "http://[x",
    "http://a:b",
]


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_what_is_no_origin_is_told_and_never_admitted(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        origin_of(text)
    rules = Origins(allowed=[APP], readers=["https://reader.example"], credentials=True)
    assert not rules.admits(text, "localhost:8000", "/")
    assert rules.reading(text, "/") == [(b"vary", b"Origin")]
    assert rules.preflight(text, "/") is None


def test_own_allowed_and_reading_origins_are_admitted_and_no_other() -> None:
    rules = Origins(allowed=["https://allowed.example:444"], readers=[APP])
    for origin in ("http://localhost:8000", "https://localhost:8000", "https://allowed.example:444", APP, APP.upper()):
        assert rules.admits(origin, "localhost:8000", "/"), origin
    for origin in (
        "http://localhost:8001",
        "http://localhost",
        "http://allowed.example:444",
        "https://allowed.example",
        "https://app.example.evil.example",
        "https://evil-app.example",
        "http://app.example",
        "https://sub.app.example",
    ):
        assert not rules.admits(origin, "localhost:8000", "/"), origin
        assert not rules.admits(origin, "localhost:8000", CARD), origin


def headers(rules: Origins, origin: str | None, path: str = "/") -> dict[str, str]:
    found = rules.reading(origin, path)
    assert len({name for name, _ in found}) == len(found)
    return {name.decode().removeprefix("access-control-"): value.decode() for name, value in found}


def test_allowed_origin_may_ask_and_not_read() -> None:
    rules = Origins(allowed=[APP])
    assert rules.admits(APP, "localhost", "/")
    assert headers(rules, APP) == {}
    assert rules.preflight(APP, "/") is None


def test_answer_to_a_reader_names_its_origin_and_caches_are_told() -> None:
    rules = Origins(readers=[APP, "https://second.example"], credentials=True)
    told = headers(rules, APP)
    assert (told["allow-origin"], told["allow-credentials"], told["vary"]) == (APP, "true", "Origin")
    assert "ETag" in told["expose-headers"]
    assert headers(rules, "https://evil.example") == headers(rules, None) == {"vary": "Origin"}
    assert "allow-credentials" not in headers(Origins(readers=[APP]), APP)


def test_star_lets_anybody_read_without_credentials() -> None:
    rules = Origins(readers=["*"])
    assert rules.admits("https://any.example", "localhost", "/")
    assert headers(rules, "https://any.example")["allow-origin"] == "*"
    assert "vary" not in headers(rules, "https://any.example")


def test_public_documents_are_read_by_any_page_only_where_the_server_is_exposed() -> None:
    closed, opened = Origins(), Origins(readers=[APP], credentials=True, opens_documents=True)
    assert not closed.admits("https://any.example", "localhost", CARD)
    assert headers(closed, "https://any.example", CARD) == {}
    assert opened.admits("https://any.example", "localhost", CARD)
    assert not opened.admits("https://any.example", "localhost", "/")
    assert headers(opened, "https://any.example", CARD)["allow-origin"] == "*"
    assert headers(opened, APP, CARD)["allow-origin"] == APP
    assert opened.preflight("https://any.example", CARD) is not None
    assert opened.preflight("https://any.example", "/") is None


# Over HTTP


@pytest.mark.asyncio
async def test_pages_of_other_origins_get_nowhere_by_default() -> None:
    async with running() as server, server.client() as client:
        for path in ("/", CARD, "/tasks/x/events"):
            asked = await client.options(path, headers=PREFLIGHT)
            done = await client.post(path, json=HEALTH, headers={"Origin": APP})
            for response in (asked, done, await client.get(path, headers={"Origin": APP})):
                assert response.status_code == 403
                assert not [name for name in response.headers if name.startswith("access-control-")]
        own = await client.post("/", json=HEALTH, headers={"Origin": server.base_url})
        assert (own.status_code, "access-control-allow-origin" in own.headers) == (200, False)


@pytest.mark.asyncio
async def test_configured_page_asks_first_and_reads_then_refusals_too() -> None:
    async with running(cors_origins=(APP,), cors_credentials=True, max_body=200) as server, server.client() as client:
        asked = await client.options("/", headers=PREFLIGHT)
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-origin"] == APP
        assert asked.headers["access-control-allow-credentials"] == "true"
        assert asked.headers["access-control-max-age"] == "600"
        allowed = asked.headers["access-control-allow-headers"].lower().split(", ")
        assert {"content-type", "authorization", "x-api-key", "a2a-version", "last-event-id"} <= set(allowed)
        answers = [
            await client.post("/", json=HEALTH, headers={"Origin": APP}),
            await client.post("/", content=b"x" * 201, headers={"Origin": APP, "Content-Type": "application/json"}),
            await client.post("/", content=b"{", headers={"Origin": APP, "Content-Type": "text/plain"}),
            await client.get("/tasks/x/events", headers={"Origin": APP}),
            await client.get(CARD, headers={"Origin": APP}),
        ]
        assert [answer.status_code for answer in answers] == [200, 413, 415, 404, 200]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == APP
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
            assert "Origin" in answer.headers["vary"]
        for origin in ("https://evil.example", "null"):
            assert (await client.options("/", headers=PREFLIGHT | {"Origin": origin})).status_code == 403
            assert (await client.post("/", json=HEALTH, headers={"Origin": origin})).status_code == 403


@pytest.mark.asyncio
async def test_streams_are_read_by_the_configured_page_too() -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message("echo")}
    async with (
        running(cors_origins=(APP,)) as server,
        server.client() as client,
        client.stream("POST", "/", json=request, headers={"Origin": APP}) as response,
    ):
        assert response.headers["access-control-allow-origin"] == APP
        lines = [line async for line in response.aiter_lines()]
    assert any("TASK_STATE_COMPLETED" in line for line in lines)


@pytest.mark.asyncio
async def test_card_of_an_exposed_server_is_read_by_any_page() -> None:
    async with running(public_url="https://agents.example/") as server, server.client() as client:
        card = await client.get(CARD, headers={"Origin": APP})
        assert (card.status_code, card.headers["access-control-allow-origin"]) == (200, "*")
        asked = await client.options(CARD, headers=PREFLIGHT | {"Access-Control-Request-Method": "GET"})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
        assert (await client.post("/", json=HEALTH, headers={"Origin": APP})).status_code == 403
        own = {"Origin": "https://agents.example"}
        assert (await client.post("/", json=HEALTH, headers=own)).status_code == 200, "public_url is our own origin"


@pytest.mark.asyncio
async def test_answers_say_what_browsers_and_caches_may_do_with_them() -> None:
    async def fields(client: Any, path: str, **request: Any) -> tuple[Any, ...]:
        response = await client.request("POST" if request else "GET", path, **request)
        names = ("x-content-type-options", "cache-control", "strict-transport-security")
        return tuple(response.headers.get(name) for name in names)

    stream = HEALTH | {"method": "SendStreamingMessage", "params": message("echo")}
    async with running() as server, server.client() as client:
        assert await fields(client, "/", json=HEALTH) == ("nosniff", "no-store", None)
        assert await fields(client, "/", json=stream) == ("nosniff", "no-store", None)
        assert await fields(client, "/", content=b"x") == ("nosniff", "no-store", None)
        assert await fields(client, "/nowhere") == ("nosniff", "no-store", None)
        assert await fields(client, CARD) == ("nosniff", "public, max-age=300", None)
    async with running(public_url="https://agents.example") as server, server.client() as client:
        assert (await fields(client, "/", json=HEALTH))[2] == "max-age=31536000"
        local = {"Host": f"localhost:{server.port}"}
        assert (await fields(client, "/", json=HEALTH, headers=local))[2] is None, "it would hold for all its ports"
