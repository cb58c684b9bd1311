"""TLS: real handshakes against a real server, and wrong files."""

import asyncio
import logging
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from a2a_server.config import Config
from a2a_server.server import EX_CONFIG
from a2a_server.tls import check, key_password
from core.model.errors import ConfigurationError
from tests.a2a_server.conftest import message, running, until
from tests.a2a_server.test_app import HEALTH, serve_alone
from tests.a2a_server.views.test_streams import rpc


@dataclass
class Files:
    """The certificates of one run, in files."""

    folder: Path
    authority: trustme.CA
    cert: str
    key: str
    ca: str

    def client(self, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
        """What a client that trusts the authority uses; with a certificate to show, or none."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        return context

    def file(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    it = Files(folder, authority, "", "", "")
    it.cert = it.file("cert.pem", b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    it.key = it.file("key.pem", certificate.private_key_pem.bytes())
    it.ca = it.file("ca.pem", authority.cert_pem.bytes())
    yield it


def client_of(port: int, context: ssl.SSLContext) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context, trust_env=False, timeout=20)


@pytest.mark.asyncio
async def test_everything_is_https_and_says_so(files: Files) -> None:
    async with running(tls_cert=files.cert, tls_key=files.key) as server:
        assert server.application.url == f"https://127.0.0.1:{server.port}/"
        async with client_of(server.port, files.client()) as client:
            answer = await client.post("/", json=HEALTH)
            assert answer.json()["result"]["status"] == "healthy"
            assert answer.headers["strict-transport-security"] == "max-age=31536000"
            card = (await client.get("/.well-known/agent-card.json")).json()
            assert card["supportedInterfaces"][0]["url"] == server.application.url
            own = await client.post("/", json=HEALTH, headers={"Origin": f"https://127.0.0.1:{server.port}"})
            assert own.status_code == 200
            events = await client.post("/", json=rpc("SendStreamingMessage", message("chunks")))
            assert "TASK_STATE_COMPLETED" in events.text
        async with server.client() as plain:
            with pytest.raises(httpx2.TransportError):
                await plain.post("/", json=HEALTH)


@pytest.mark.asyncio
async def test_old_versions_and_weak_suites_are_not_spoken(files: Files) -> None:
    async def shaken(**limits: Any) -> tuple[str, str]:
        context = files.client()
        for name, value in limits.items():
            setattr(context, name, value)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        handle = writer.get_extra_info("ssl_object")
        writer.close()
        await writer.wait_closed()
        return handle.version(), handle.cipher()[0]

    async with running(tls_cert=files.cert, tls_key=files.key) as server:
        assert (await shaken())[0] == "TLSv1.3"
        version, cipher = await shaken(maximum_version=ssl.TLSVersion.TLSv1_2)
        assert version == "TLSv1.2"
        assert cipher.startswith("ECDHE-") and ("GCM" in cipher or "CHACHA20" in cipher)
        old = files.client()
        with pytest.warns(DeprecationWarning):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        weak = files.client()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE+AES+SHA:AESGCM+RSA:!ECDHE+AESGCM")
        for context in (old, weak):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


@pytest.mark.parametrize("whether", ["required", "optional"])
@pytest.mark.asyncio
async def test_callers_show_a_certificate_of_the_named_authority(files: Files, whether: str) -> None:
    foreign = trustme.CA().issue_cert("caller@example.com")
    own = files.authority.issue_cert("caller@example.com")
    settings: dict[str, Any] = {"tls_ca": files.ca, "tls_client_auth": whether}
    async with running(tls_cert=files.cert, tls_key=files.key, **settings) as server:

        async def passes(certificate: trustme.LeafCert | None) -> bool:
            async with client_of(server.port, files.client(certificate)) as client:
                try:
                    return (await client.post("/", json=HEALTH)).status_code == 200
                except httpx2.TransportError:
                    return False

        assert await passes(own)
        assert not await passes(foreign)
        assert await passes(None) is (whether == "optional")


@pytest.mark.asyncio
async def test_reader_over_tls_that_takes_nothing_is_cut(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    big = {"blob": "x" * 300_000}
    tasks: list[dict[str, Any]] = [{"id": "r", "name": "hold"}]
    tasks += [{"id": str(n), "name": "echo", "parent_id": "r", "inputs": big} for n in range(30)]
    caplog.set_level(logging.INFO)
    async with running(tls_cert=files.cert, tls_key=files.key, send_timeout=0.2) as server:
        context = files.client()
        async with client_of(server.port, context) as client:
            made = (await client.post("/", json=rpc("tasks.create", tasks))).json()["result"]
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, limit=1024)
            writer.write(f"GET /tasks/{made['id']}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await client.post("/", json=rpc("tasks.execute", {"task_id": made["id"]}))
            await until(lambda: "slow reader" in caplog.text)
            with pytest.raises(ConnectionError):
                while await reader.read(65536):
                    pass
            writer.close()
            server.lab.released["hold"].set()
    assert "Traceback" not in caplog.text


@pytest.mark.asyncio
async def test_streams_over_tls_end_resumably_when_the_server_stops(files: Files) -> None:
    async with running(tls_cert=files.cert, tls_key=files.key) as server:
        text = ""
        async with (
            client_of(server.port, files.client()) as client,
            client.stream("POST", "/", json=rpc("SendStreamingMessage", message("hold"))) as response,
        ):
            async for chunk in response.aiter_text():
                text += chunk
                if "TASK_STATE_WORKING" in text:
                    server.application.drain()
    assert text.endswith(": the server is stopping; resume with Last-Event-ID\n")


# Files


def encrypted(files: Files, password: bytes) -> str:
    key = load_pem_private_key(Path(files.key).read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
    return files.file("encrypted.pem", pem)


def test_password_of_the_key_is_read_from_its_file(files: Files) -> None:
    key = encrypted(files, b"s3cret")
    password = files.file("password", b"s3cret\n")
    config = Config(tls_cert=files.cert, tls_key=key, tls_key_password_file=password)
    check(config)
    assert key_password(config) == "s3cret"
    assert key_password(Config()) is None
    check(Config())


def test_certificate_and_key_may_be_in_one_file(files: Files) -> None:
    both = files.file("both.pem", Path(files.key).read_bytes() + Path(files.cert).read_bytes())
    check(Config(tls_cert=both))


def test_files_that_cannot_work_are_told_by_their_setting(files: Files) -> None:
    other = files.file("other.pem", trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    garbage = files.file("garbage.pem", b"\xffgarbage")
    key = encrypted(files, b"s3cret")
    wrong: list[tuple[dict[str, str], str]] = [
        ({"tls_cert": "none.pem"}, "tls_cert: none.pem cannot be read: No such file or directory"),
        ({"tls_key": "none.pem"}, "tls_key: none.pem cannot be read"),
        ({"tls_ca": "none.pem"}, "tls_ca: none.pem cannot be read"),
        ({"tls_key_password_file": "none"}, "tls_key_password_file: none cannot be read"),
        ({"tls_key_password_file": garbage}, "tls_key_password_file: .* is not text"),
        ({"tls_cert": garbage}, "tls_cert, tls_key: certificate and key cannot be used; both must be PEM$"),
        ({"tls_key": garbage}, "tls_cert, tls_key: certificate and key cannot be used"),
        ({"tls_ca": garbage}, "tls_ca: .* has no PEM certificates"),
        ({"tls_key": other}, "tls_cert, tls_key: certificate and key do not match$"),
        ({"tls_key": key}, "tls_key_password_file: required: the private key is encrypted"),
        (
            {"tls_key": key, "tls_key_password_file": files.file("wrong", b"wrong")},
            "certificate and key cannot be used; both must be PEM, or the password is wrong",
        ),
    ]
    for settings, told in wrong:
        with pytest.raises(ConfigurationError, match=told) as refused:
            check(Config(**({"tls_cert": files.cert, "tls_key": files.key} | settings)))
        assert "\n" not in str(refused.value)


def test_wrong_file_stops_the_start_with_one_line(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(port=0, database=f"sqlite:///{tmp_path}/a.db", tls_cert="none.pem")
    assert serve_alone(config) == EX_CONFIG
    assert capsys.readouterr().err == "a2a-server: tls_cert: none.pem cannot be read: No such file or directory\n"
