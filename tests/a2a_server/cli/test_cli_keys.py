"""`a2a-server keys`, and the credential that every client command sends."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from a2a_server.cli.client import Client
from a2a_server.cli.output import Failure
from tests.a2a_server.cli.test_cli import Cli, Done, cli
from tests.acceptance.process import ServerProcess

__all__ = ["cli"]  # the fixture

FORM = re.compile(r"a2a_[0-9a-f]{16}_[0-9a-f]{64}\n")


def keys(cli: Cli, *arguments: str) -> Done:
    return cli("keys", *arguments, "--database", "sqlite:///keys.db")


def test_a_key_is_printed_once_alone_on_stdout(cli: Cli) -> None:
    done = keys(cli, "create", "ann", "--tenant", "t", "--skill", "echo", "--expires", "90d")

    assert done.code == 0
    assert FORM.fullmatch(done.out)
    assert "not shown again" in done.err
    listed = keys(cli, "list")
    assert all(word in listed.out for word in ("ann", "echo", done.out.strip()[-4:]))
    assert done.out.strip()[-64:] not in listed.out


def test_the_life_of_a_key_as_json(cli: Cli) -> None:
    made = keys(cli, "create", "root", "--operator", "-o", "json").json()
    assert (made["principal"], made["is_operator"], made["skills"], made["expires_at"]) == ("root", True, None, None)

    rotated = keys(cli, "rotate", made["id"], "--grace", "10m", "-o", "json").json()
    assert rotated["key"] != made["key"]
    assert rotated["replaced_until"] is not None
    assert "everything" in keys(cli, "list").out

    assert keys(cli, "revoke", made["id"]).out == f"key {made['id']} of root is revoked\n"
    (listed,) = keys(cli, "list", "-o", "json").json()
    assert listed["revoked_at"] is not None
    assert keys(cli, "revoke", made["id"], "-o", "json").json() == listed
    assert "revoked 20" in keys(cli, "list").out
    again = keys(cli, "rotate", made["id"])
    assert (again.code, again.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create",), "principal"),
        (("create", ""), "principal"),
        (("create", "ann", "--expires", "soon"), "--expires"),
        (("create", "ann", "--expires", "0d"), "expires_in"),
        (("rotate", "x", "--grace", "-1s"), "--grace"),
        (("rotate", "nobody"), "nobody"),
        (("revoke", "nobody"), "nobody"),
    ],
)
def test_what_is_wrong_is_one_line(cli: Cli, arguments: tuple[str, ...], told: str) -> None:
    done = keys(cli, *arguments)

    assert done.code == 2
    assert done.err.count("\n") == 1
    assert told in done.err


def test_on_a_server_with_authentication(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first key is made in the file; then the file is the server's, and keys are made with --url."""
    database = f"sqlite:///{tmp_path}/server.db"
    operator = cli("keys", "create", "root", "--operator", "--database", database).out.strip()
    server = ServerProcess(tmp_path, "--auth", "keys").start()
    try:
        taken = cli("keys", "list", "--database", database)
        assert (taken.code, "--url" in taken.err, taken.err.count("\n")) == (1, True, 1)
        refused = cli("keys", "list", "--url", server.url)
        assert (refused.code, "Authentication is required" in refused.err) == (1, True)

        monkeypatch.setenv("A2A_TOKEN", operator)
        made = cli(
            "keys", "create", "ann", "--tenant", "acme", "--skill", "noop", "--url", server.url, "-o", "json"
        ).json()
        sent = cli("send", "hi", "--skill", "noop", "--url", server.url, "--token", made["key"])
        assert sent.code == 0, sent.err
        head, row = cli("tasks", "list", "--url", server.url).out.splitlines()
        assert (head.split()[:4], row.split()[1:3]) == (["ID", "TENANT", "PRINCIPAL", "STATUS"], ["acme", "ann"])
        (told,) = cli("tasks", "list", "--url", server.url, "-o", "json").json()
        assert (told["tenant"], told["principal"]) == ("acme", "ann")
        denied = cli("tasks", "list", "--url", server.url, "--token", made["key"])
        assert (denied.code, "not allowed" in denied.err) == (1, True)

        assert cli("keys", "rotate", made["id"], "--url", server.url).code == 0
        assert cli("keys", "revoke", made["id"], "--url", server.url).code == 0
        assert len(cli("keys", "list", "--url", server.url, "-o", "json").json()) == 2
        gone = cli("send", "hi", "--skill", "noop", "--url", server.url, "--token", made["key"])
        assert (gone.code, "Authentication is required" in gone.err) == (1, True)
        assert server.terminate() == 0
        log = "".join(server.log)
        assert "rejected" in log
        assert not any(secret[-64:] in log for secret in (operator, made["key"]))
    finally:
        server.close()


# The credential of every client command


def test_a_credential_is_sent_as_bearer() -> None:
    seen: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("authorization"))
        return httpx2.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": {}})

    for token in (None, "abc"):
        with Client("http://test/", token, transport=httpx2.MockTransport(answer)) as server:
            server.call("x", {})
    assert seen == [None, "Bearer abc"]


@pytest.mark.parametrize("token", ["", "se cret", "secret\r\nX-Evil: 1", "sécret", "secret\0"])
def test_a_credential_that_cannot_be_one_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(Failure) as refused:
        Client("http://test/", token)
    assert "cret" not in str(refused.value)
    assert refused.value.code == 2


@pytest.mark.parametrize(
    "command",
    [
        ("send", "hi"),
        ("run", "tree.json"),
        ("watch", "t"),
        ("tasks", "list"),
        ("tasks", "get", "t"),
        ("tasks", "tree", "t"),
        ("tasks", "cancel", "t"),
        ("tasks", "answer", "t", "x"),
        ("tasks", "delete", "t"),
        ("tasks", "events", "t"),
        ("keys", "create", "ann"),
        ("keys", "list"),
        ("keys", "rotate", "k"),
        ("keys", "revoke", "k"),
    ],
)
def test_every_client_command_sends_it_and_shows_it_nowhere(
    cli: Cli, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("tree.json").write_text("[]")
    seen: list[str | None] = []

    def refuse(client: httpx2.Client, request: httpx2.Request, **_: Any) -> httpx2.Response:
        seen.append(request.headers.get("authorization"))
        error = {"code": -32052, "message": "Authentication is required"}
        return httpx2.Response(401, content=json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}), request=request)

    monkeypatch.setattr(httpx2.Client, "send", refuse)
    monkeypatch.setenv("A2A_TOKEN", "a-very-secret-token")

    done = cli(*command, "--url", "http://127.0.0.1:9/")

    assert done.code == 1
    assert set(seen) == {"Bearer a-very-secret-token"}
    assert "a-very-secret-token" not in done.out + done.err
    assert "Authentication is required" in done.err
