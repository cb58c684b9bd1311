"""`a2a-server card …`, in this process, against files and a small web server."""

import gzip
import json
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from a2a_server.card.document import MAX_BYTES
from a2a_server.card.keys import NAMES, load_keys, public_set
from a2a_server.card.signing import sign
from tests.a2a_server.card.cards import CARD, key_file, keys
from tests.a2a_server.cli.test_cli import Cli, cli  # noqa: F401 - a fixture
from tests.acceptance.process import EXECUTORS

WELL_KNOWN = "/.well-known/agent-card.json"


class Web:
    """Documents of somebody else, by path; `asked` is what was fetched of them."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append((self.path, self.headers["A2A-Version"]))
                found = web.documents.get(self.path)
                if isinstance(found, str):  # an address
                    self.send_response(302)
                    self.send_header("Location", found)
                    self.end_headers()
                    return
                coding, found = found if isinstance(found, tuple) else ("", found)
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(404 if found is None else 200)
                if coding:
                    self.send_header("Content-Encoding", coding)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    web.server.shutdown()
    thread.join()
    web.server.server_close()


def file(name: str, document: Any) -> str:
    Path(name).write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return name


def signed_card(*trusted: Any, **fields: Any) -> dict[str, Any]:
    made = [sign(CARD | fields, key, jku=fields.get("jku")) for key in trusted]
    return CARD | fields | {"signatures": [{"protected": m.protected, "signature": m.signature} for m in made]}


# Showing


def test_card_alone_shows_and_its_help_lists_the_rest(cli: Cli) -> None:  # noqa: F811
    by_itself, shown = cli("card", str(EXECUTORS), "-o", "json"), cli("card", "show", str(EXECUTORS), "-o", "json")
    assert by_itself.json() == shown.json()
    told = cli("card", "--help").out
    assert all(name in told for name in ("show", "validate", "sign", "verify", "keygen"))


def test_a_card_that_the_settings_sign_is_shown_signed(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    file("a2a-server.toml", f"card_keys = ['{key_file(tmp_path, 'ES256')}']".encode())
    assert cli("card", "-o", "json").json()["signatures"]


# Validating


def test_a_right_card_is_valid(cli: Cli) -> None:  # noqa: F811
    done = cli("card", "validate", file("c.json", CARD))
    assert (done.code, done.out, done.err) == (0, "valid\n", "")
    assert cli("card", "validate", "c.json", "-o", "json").json() == {"valid": True, "problems": []}


def test_our_own_card_is_valid(cli: Cli) -> None:  # noqa: F811
    file("c.json", cli("card", str(EXECUTORS), "-o", "json").out.encode())
    assert cli("card", "validate", "c.json").code == 0


def test_every_wrong_field_is_named_and_the_exit_code_says_so(cli: Cli) -> None:  # noqa: F811
    name = file("c.json", CARD | {"url": "x", "name": "", "supportedInterfaces": [{"url": "/"}]})
    done = cli("card", "validate", name)
    assert done.code == 1
    for field in ("url", "name", "supportedInterfaces[0].protocolBinding"):
        assert f"\n{field}: " in "\n" + done.out
    problems = cli("card", "validate", name, "-o", "json").json()["problems"]
    assert {"url", "name"} <= {problem["field"] for problem in problems}


@pytest.mark.parametrize("at", ["", "/", "/agents/one.json"])
def test_a_card_is_fetched_from_a_server_or_an_address(cli: Cli, web: Web, at: str) -> None:  # noqa: F811
    path = at if len(at) > 1 else WELL_KNOWN
    web.documents[path] = CARD
    assert cli("card", "validate", web.url + at).code == 0
    assert web.asked == [(path, "1.0")], "the strict form is what is to be right"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (None, "HTTP 404"),
        ("/elsewhere", "HTTP 302"),
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"name": 1, "name": 2}', "twice"),
        (b" " * (MAX_BYTES + 1), "agent-card.json is larger than"),
        (("gzip", gzip.compress(b" " * (MAX_BYTES + 1))), "agent-card.json is larger than"),
        (("gzip", gzip.compress(b"{}") + b"{}"), "has bytes after its compressed data"),
        (("gzip, gzip", b"{}"), "more than one content coding"),
        (("br", b"{}"), "content coding is not supported"),
    ],
)
def test_what_is_no_card_is_one_line(cli: Cli, web: Web, document: Any, told: str) -> None:  # noqa: F811
    web.documents |= {WELL_KNOWN: document, "/elsewhere": CARD}
    for command in ("validate", "verify"):
        done = cli("card", command, web.url)
        assert (done.code, done.err.count("\n"), told in done.err) == (1, 1, True), done.err


@pytest.mark.parametrize("source", ["none.json", "http://127.0.0.1:9/", "http://[x/"])
def test_what_cannot_be_read_is_one_line(cli: Cli, source: str) -> None:  # noqa: F811
    done = cli("card", "validate", source)
    assert done.code in (1, 2)
    assert done.err.count("\n") == 1


# Keys and signing


@pytest.mark.parametrize("alg", NAMES)
def test_keygen_makes_a_file_for_its_owner_only(cli: Cli, alg: str) -> None:  # noqa: F811
    done = cli("card", "keygen", "key.json", "--alg", alg, "-o", "json")
    (key,) = load_keys(["key.json"])
    assert done.json() == key.public()
    assert stat.S_IMODE(os.stat("key.json").st_mode) == 0o600
    again = cli("card", "keygen", "key.json")
    assert (again.code, "exists" in again.err) == (1, True)
    assert load_keys(["key.json"]) == (key,)
    assert f"{alg} key" in cli("card", "keygen", "third.json", "--alg", alg).out
    assert cli("card", "keygen", "other.json", "--alg", "HS256").code == 2


def test_signing_adds_to_the_signatures_that_are_there(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    """Rotation: the old key's signature stays, the new one's is the first."""
    old, new = key_file(tmp_path, "ES256"), key_file(tmp_path, "EdDSA")
    file("c.json", CARD | {"skills": [{"id": "a", "name": "A", "description": "d", "tags": ["t"], "examples": []}]})
    file("once.json", cli("card", "sign", "c.json", "--key", old).out.encode())
    file("twice.json", cli("card", "sign", "once.json", "--key", new, "--jku", "https://a.example/k").out.encode())
    for key in (old, new):
        assert cli("card", "verify", "twice.json", "--jwks", key).code == 0
    kids = [
        each["kid"] for each in cli("card", "verify", "twice.json", "--jwks", old, "-o", "json").json()["signatures"]
    ]
    assert kids[0] == load_keys([new])[0].kid
    assert kids[-1] == load_keys([old])[0].kid


def test_several_keys_sign_at_once(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    first, second = key_file(tmp_path, "ES256"), key_file(tmp_path, "ES256")
    signed = cli("card", "sign", file("c.json", CARD), "--key", first, "--key", second)
    file("s.json", signed.out.encode())
    assert cli("card", "validate", "s.json").code == 0
    for key in (first, second):
        assert cli("card", "verify", "s.json", "--jwks", key).code == 0


def test_what_is_no_right_card_or_key_signs_nothing(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    key = key_file(tmp_path, "ES256")
    done = cli("card", "sign", file("c.json", CARD | {"url": "x"}), "--key", key)
    assert (done.code, done.out, "url" in done.err) == (1, "", True)
    file("public.json", public_set(load_keys([key]))["keys"][0])
    os.chmod("public.json", 0o600)
    done = cli("card", "sign", file("c.json", CARD), "--key", "public.json")
    assert (done.code, done.out, "public key" in done.err) == (78, "", True)
    assert cli("card", "sign", "c.json").code == 2


# Verifying


def test_a_signature_is_valid_only_by_a_trusted_key(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    key, other = keys(tmp_path, "ES256", "ES256")
    name, own, foreign = (
        file("s.json", signed_card(key)),
        file("own.json", public_set([key])),
        file("foreign.json", public_set([other])),
    )
    done = cli("card", "verify", name, "--jwks", own)
    assert (done.code, done.out) == (0, f"ES256 {key.kid}: valid\nvalid\n")
    done = cli("card", "verify", name, "--jwks", foreign, "-o", "json")
    assert (done.code, done.json()["valid"]) == (1, False)
    assert "trusted" in done.json()["signatures"][0]["problem"]


@pytest.mark.parametrize("signed_as", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("published_as", ["EdDSA", "Ed25519"])
def test_both_names_of_ed25519_are_one_algorithm(cli: Cli, signed_as: str, published_as: str) -> None:  # noqa: F811
    """Found from outside: keys under RFC 9864's name could not be configured."""
    cli("card", "keygen", "key.json", "--alg", signed_as)
    (key,) = load_keys(["key.json"])
    done = cli("card", "sign", file("c.json", CARD), "--key", "key.json")
    name, trusted = file("s.json", done.out.encode()), file("k.json", {"keys": [key.public() | {"alg": published_as}]})
    verified = cli("card", "verify", name, "--jwks", trusted)
    assert (verified.code, verified.out.splitlines()[0]) == (0, f"{signed_as} {key.kid}: valid")


def test_what_a_signature_does_not_cover_is_said(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    (key,) = keys(tmp_path, "EdDSA")
    name = file("s.json", signed_card(key) | {"url": "https://a.example"})
    done = cli("card", "verify", name, "--jwks", file("k.json", public_set([key])))
    assert done.out.startswith(f"EdDSA {key.kid}: valid, not for url")


@pytest.mark.parametrize("signatures", [None, [], "x", [None, 5, {}], [{"protected": "\u001b[31m", "signature": "x"}]])
def test_garbage_is_not_valid(cli: Cli, tmp_path: Path, signatures: Any) -> None:  # noqa: F811
    name = file("c.json", CARD | {"signatures": signatures})
    done = cli("card", "verify", name, "--jwks", key_file(tmp_path, "ES256"))
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[-1].startswith("not valid")
    assert "\x1b" not in done.out


def test_a_file_needs_to_be_told_whom_to_trust(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    done = cli("card", "verify", file("s.json", signed_card(*keys(tmp_path))))
    assert (done.code, "--jwks" in done.err) == (2, True)


def test_a_card_is_consistent_with_its_server_by_the_key_set_beside_it(cli: Cli, web: Web, tmp_path: Path) -> None:  # noqa: F811
    """Found from outside: `card verify` trusted keys that the card itself named."""
    (key,) = keys(tmp_path, "ES256")
    for folder, address in (("/", web.url), ("/", f"{web.url}{WELL_KNOWN}"), ("/a2a/", f"{web.url}/a2a{WELL_KNOWN}")):
        beside = f"{folder}.well-known/jwks.json"
        web.asked.clear()
        web.documents |= {folder[:-1] + WELL_KNOWN: signed_card(key), beside: public_set([key])}
        done = cli("card", "verify", address)
        assert (done.code, done.out.splitlines()[-1].partition(";")[0]) == (0, "valid by its own server's keys")
        assert [path for path, _ in web.asked] == [folder[:-1] + WELL_KNOWN, beside]
        assert cli("card", "verify", address, "-o", "json").json()["keys_of"] == "its server"


@pytest.mark.parametrize("jku", ["{url}/k.json", "http://127.0.0.1:9/k.json", "file:///etc/passwd", "//[", ""])
def test_keys_that_the_card_names_are_not_even_fetched(cli: Cli, web: Web, tmp_path: Path, jku: str) -> None:  # noqa: F811
    """Whoever could put a card on the server's site could put a key set beside it that vouches for it."""
    key, own = keys(tmp_path, "ES256", "ES256")
    web.documents |= {
        WELL_KNOWN: signed_card(key, jku=jku.format(url=web.url)),
        "/k.json": public_set([key]),
        "/.well-known/jwks.json": public_set([own]),
    }
    done = cli("card", "verify", web.url)
    assert (done.code, "its key is not trusted" in done.out) == (1, True)
    assert [path for path, _ in web.asked] == [WELL_KNOWN, "/.well-known/jwks.json"]


def test_a_server_without_a_key_set_is_one_line(cli: Cli, web: Web, tmp_path: Path) -> None:  # noqa: F811
    (key,) = keys(tmp_path, "ES256")
    web.documents[WELL_KNOWN] = signed_card(key)
    done = cli("card", "verify", web.url)
    assert (done.code, len(done.err.splitlines()), "jwks.json was not found" in done.err) == (1, 1, True)


def test_what_is_no_key_set_is_one_line(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    name = file("s.json", signed_card(*keys(tmp_path)))
    done = cli("card", "verify", name, "--jwks", file("k.json", b"{}"))
    assert (done.code, done.err) == (1, "a2a-server: k.json is not a JWK Set\n")
