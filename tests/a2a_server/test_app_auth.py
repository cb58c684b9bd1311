"""Every route asks who calls, before it reads anything of the body."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from starlette.routing import BaseRoute, Route

from a2a_server.auth.apikeys import ApiKeys
from a2a_server.auth.key_watch import KeyWatch
from a2a_server.auth.stored_keys import Grant
from a2a_server.bindings.rest import PATHS, RestRoute
from core.storage.postgres.beside import Beside
from core.storage.postgres.storage import PostgresStorage
from tests.a2a_server.auth.tokens import ISSUER, RSA, claims, jwks, token
from tests.a2a_server.conftest import RunningServer, message, running

# What tells nothing that is not for everybody.
PUBLIC = re.compile(r"/healthz|/readyz|/\.well-known/[a-z-]+(\.json)?")


@pytest_asyncio.fixture
async def guarded() -> AsyncIterator[RunningServer]:
    async with running(auth=("keys",)) as server:
        yield server


def requests_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, RestRoute):
            for path, calls in PATHS.items():
                yield from ((method, re.sub(r"{[^}]*}", "x", path)) for method in calls)
            continue
        assert isinstance(route, Route), f"say here which paths {route} serves"
        for method in sorted(route.methods or ()):
            yield method, re.sub(r"{[^}]*}", "x", route.path)


@pytest.mark.asyncio
async def test_every_route_needs_a_credential_but_the_public_ones(guarded: RunningServer) -> None:
    seen = set()
    async with guarded.client() as client:
        for method, path in requests_of(guarded.application._make_routes().routes):
            seen.add(path)
            answer = await client.request(method, path, headers={"Content-Type": "application/json"})
            if PUBLIC.fullmatch(path):
                assert answer.status_code in (200, 404), path  # 404: keys that the server does not have
            else:
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == 'Bearer realm="a2a-server"'
    assert {"/", "/tasks", "/system", "/tasks/x/events", "/message:send", "/tasks/x:cancel", "/healthz"} <= seen


@pytest.mark.asyncio
async def test_a_key_that_is_revoked_beside_a_server_on_postgresql_is_refused_and_its_streams_end(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("a2a_server.app.MAX_AGE", 0.0)  # seconds; there is no other difference between 0 and 5
    monkeypatch.setattr("a2a_server.app.KeyWatch", partial(KeyWatch, pause=0.0))
    async with running(storage=PostgresStorage(postgres_url), auth=("keys",)) as server:
        key, text = await server.application.keys.create(Grant(principal="ann", is_operator=True))
        bearer = {"Authorization": f"Bearer {text}"}
        call = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message("hold")}
        async with server.client() as client, client.stream("POST", "/", json=call, headers=bearer) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            beside = Beside(postgres_url)
            await beside.open()
            await ApiKeys(beside, server.application.session.clock).revoke(key.id)
            await beside.close()
            async with asyncio.timeout(20):
                assert [line async for line in lines][-1] == "", "it ends, although its task runs"
            assert (await client.get("/tasks/x", headers=bearer)).status_code == 401
        server.lab.released["hold"].set()


@pytest.mark.asyncio
async def test_nothing_of_the_body_is_read_before_the_caller_is_known(guarded: RunningServer) -> None:
    log: list[str] = []

    async def receive() -> dict[str, Any]:
        log.append("read")
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(event: Any) -> None:
        log.append(str(event.get("status", "sent")))

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
    await guarded.application.asgi(scope | {"scheme": "http", "server": ("127.0.0.1", 1)}, receive, send)

    assert log[0] == "401"


@pytest.mark.asyncio
async def test_the_events_of_a_task_are_for_operators(guarded: RunningServer) -> None:
    keys = guarded.application.keys
    _, operator = await keys.create(Grant(principal="root", is_operator=True))
    _, user = await keys.create(Grant(principal="ann"))
    async with guarded.client() as client:
        denied = await client.get("/tasks/x/events", headers={"X-API-Key": user})
        assert (denied.status_code, denied.json()["error"]["code"]) == (403, -32053)
        missing = await client.get("/tasks/x/events", headers={"X-API-Key": operator})
        assert missing.status_code == 404


@pytest.mark.asyncio
async def test_an_operator_sees_the_tasks_of_its_tenant_only(guarded: RunningServer) -> None:
    keys = guarded.application.keys
    people = (("ann", "one"), ("bob", "one"), ("eve", "two"))
    operators = [
        (await keys.create(Grant(principal=name, tenant=tenant, is_operator=True)))[1] for name, tenant in people
    ]
    create = {"jsonrpc": "2.0", "id": 1, "method": "tasks.create", "params": [{"name": "echo"}]}
    async with guarded.client() as client:
        made = await client.post("/", json=create, headers={"X-API-Key": operators[0]})
        task_id = made.json()["result"]["root_task_id"]
        get = {"jsonrpc": "2.0", "id": 1, "method": "tasks.get", "params": {"task_id": task_id}}
        answers = [(await client.post("/", json=get, headers={"X-API-Key": key})).json() for key in operators]
        assert [answer["result"]["id"] for answer in answers[:2]] == [task_id] * 2
        assert answers[2]["error"]["code"] == -32001


@pytest.mark.asyncio
async def test_tokens_of_an_issuer_are_taken_over_http(tmp_path: Any) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(RSA))
    settings = {"jwt_issuer": ISSUER, "jwt_audience": ("https://agent.example",), "jwt_keys": str(file)}
    health = {"jsonrpc": "2.0", "id": 1, "method": "system.health"}
    async with running(auth=("jwt",), **settings) as server, server.client() as client:
        now = server.application.session.clock.now()
        for content, status in ((claims(exp=now + 60), 200), (claims(exp=now - 60), 401), (claims(aud="x"), 401)):
            headers = {"Authorization": f"Bearer {token(content)}"}
            assert (await client.post("/", json=health, headers=headers)).status_code == status


@pytest.mark.asyncio
async def test_the_card_says_how_to_show_who_one_is(guarded: RunningServer) -> None:
    async with guarded.client() as client:
        card = (await client.get("/.well-known/agent-card.json", headers={"A2A-Version": "1.0"})).json()
    assert card["securitySchemes"]["apiKey"] == {"apiKeySecurityScheme": {"location": "header", "name": "X-API-Key"}}
    assert [list(each["schemes"]) for each in card["securityRequirements"]] == [["apiKey"], ["bearer"]]
    assert card["capabilities"]["extendedAgentCard"] is True


@pytest.mark.asyncio
async def test_the_extended_card_has_the_callers_skills(guarded: RunningServer) -> None:
    _, key = await guarded.application.keys.create(Grant(principal="ann", skills=("echo",)))
    async with guarded.client() as client:
        headers = {"A2A-Version": "1.0", "X-API-Key": key}
        card = (await client.get("/extendedAgentCard", headers=headers)).json()
    assert [skill["id"] for skill in card["skills"]] == ["echo"]
