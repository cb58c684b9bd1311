"""What keeps a database of PostgreSQL from being opened: one clear line each (`core.storage.postgres.connect`)."""

import asyncio
import os
import ssl
import stat

import asyncpg
import pytest

from core.model.errors import ConfigurationError, CoreError, DatabaseInUse, StorageError, StorageUnavailable
from core.storage.postgres import connect
from core.storage.postgres.connect import Fault, Place, fault_of
from core.storage.postgres.storage import PostgresStorage
from tests.postgres_cluster import Cluster


async def refusal(url: str, kind: type[CoreError]) -> str:
    storage = PostgresStorage(url)
    with pytest.raises(kind) as refused:
        await storage.open()
    assert type(refused.value) is kind
    text = str(refused.value)
    assert "\n" not in text and "let me in" not in text and "secret" not in text
    await storage.close()
    return text


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://u:secret@h", "names no database"),
        ("postgresql://u:secret@[h/db", "cannot be read"),
        ("postgresql://u:secret@h:x/db", "cannot be read"),
    ],
)
def test_a_url_that_names_no_database_is_refused_before_anything_is_asked(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        Place(url)
    assert "secret" not in str(refused.value) and "postgresql://user:password@host:5432/database" in str(refused.value)


@pytest.mark.asyncio
async def test_a_bad_option_of_the_url_is_told() -> None:
    assert "sslmode" in await refusal("postgresql://u:secret@127.0.0.1:1/db?sslmode=maybe", ConfigurationError)


@pytest.mark.asyncio
async def test_an_absent_server_is_told() -> None:
    text = await refusal("postgresql://u:secret@127.0.0.1:1/db", StorageUnavailable)
    assert text.startswith("PostgreSQL database db at 127.0.0.1:1 cannot be reached: ")


@pytest.mark.asyncio
async def test_a_refused_login_and_a_missing_database_are_told(postgres: Cluster) -> None:
    text = await refusal(postgres.url("postgres", password="secret"), ConfigurationError)
    assert "refuses the login" in text and text.endswith("check user and password")
    text = await refusal(postgres.url("nosuch"), ConfigurationError)
    assert text.startswith(f"PostgreSQL database nosuch at 127.0.0.1:{postgres.port} does not exist: create it")


@pytest.mark.asyncio
async def test_a_user_without_rights_is_told(postgres: Cluster) -> None:
    postgres.sql("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN PASSWORD 'let me in'")
    name = postgres.database()
    postgres.sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC", name)  # as it is from PostgreSQL 15 on
    try:
        text = await refusal(postgres.url(name, user="guest"), ConfigurationError)
        assert "permission denied for schema public" in text and "the right to create tables" in text
    finally:
        postgres.drop(name)


@pytest.mark.asyncio
async def test_an_ordinary_user_needs_no_more_than_a_database_of_its_own(postgres: Cluster) -> None:
    postgres.sql("DROP ROLE IF EXISTS tenant; CREATE ROLE tenant LOGIN PASSWORD 'let me in'")
    name = postgres.database()
    postgres.sql(f"ALTER DATABASE {name} OWNER TO tenant; ALTER SCHEMA public OWNER TO tenant", name)
    storage = PostgresStorage(postgres.url(name, user="tenant"))
    await storage.open()
    assert storage.identity
    await storage.close()
    postgres.drop(name)


@pytest.mark.asyncio
async def test_an_older_server_is_told(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "OLDEST", 99)
    assert await refusal(postgres_url, ConfigurationError) and "too old: use 99 or newer" in await refusal(
        postgres_url, ConfigurationError
    )


@pytest.mark.asyncio
async def test_a_database_of_another_encoding_is_told(postgres: Cluster) -> None:
    postgres.sql("DROP DATABASE IF EXISTS latin")
    postgres.sql("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'")
    assert "has the encoding LATIN1: create it with UTF8" in await refusal(postgres.url("latin"), ConfigurationError)
    postgres.drop("latin")


@pytest.mark.asyncio
async def test_a_standby_is_told(postgres: Cluster) -> None:
    """As one looks to a client: every transaction is read-only."""
    name = postgres.database()
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    text = await refusal(postgres.url(name), StorageUnavailable)
    assert text.endswith("is read-only (a standby): give the address of the primary")
    postgres.drop(name)


@pytest.mark.asyncio
async def test_a_server_without_tls_is_told_where_it_is_wanted(postgres_url: str) -> None:
    assert "SSL" in await refusal(f"{postgres_url}?sslmode=require", StorageUnavailable)


@pytest.mark.asyncio
async def test_a_second_server_is_refused_with_the_name_of_the_first(postgres_url: str) -> None:
    first = PostgresStorage(postgres_url)
    await first.open()
    text = await refusal(postgres_url, DatabaseInUse)
    assert "is in use by another server (process " in text and text.endswith("one server at a time may use a database")
    await first.close()
    second = PostgresStorage(postgres_url)
    await second.open()
    await second.close()


@pytest.mark.asyncio
async def test_a_forked_child_holds_no_connection(postgres_url: str, postgres: Cluster, postgres_database: str) -> None:
    """Else the database would stay locked as long as the child lives, after the server's end."""
    storage = PostgresStorage(postgres_url)
    await storage.open()
    assert storage._holder is not None
    socket = storage._holder._connection._transport.get_extra_info("socket")
    report, told = os.pipe()
    if (child := os.fork()) == 0:
        try:
            found = os.fstat(socket.fileno())
            os.write(told, b"socket" if stat.S_ISSOCK(found.st_mode) else b"nothing")
        finally:
            os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    assert os.read(report, 20) == b"nothing"
    os.close(report)
    os.close(told)
    assert await storage.head("t") is None
    await storage.close()


@pytest.mark.asyncio
async def test_a_database_of_another_program_is_left_alone(postgres: Cluster) -> None:
    name = postgres.database()
    postgres.sql("CREATE TABLE tasks (id INTEGER)", name)
    assert "has tables of another program (tasks)" in await refusal(postgres.url(name), StorageError)
    postgres.drop(name)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (asyncpg.UniqueViolationError("x"), Fault.REFUSED),
        (asyncpg.AdminShutdownError("x"), Fault.LOST),
        (asyncpg.ConnectionDoesNotExistError("x"), Fault.LOST),
        (asyncpg.ReadOnlySQLTransactionError("x"), Fault.LOST),
        (asyncpg.InterfaceError("connection is closed"), Fault.LOST),
        (ConnectionResetError(), Fault.LOST),
        (TimeoutError(), Fault.LOST),
        (asyncpg.DeadlockDetectedError("x"), Fault.BUSY),
        (asyncpg.LockNotAvailableError("x"), Fault.BUSY),
        (asyncpg.DiskFullError("x"), Fault.UNAVAILABLE),
        (asyncpg.QueryCanceledError("x"), Fault.TOO_LONG),
        (asyncpg.CharacterNotInRepertoireError("x"), Fault.UNSTORABLE),
        (asyncpg.DataError("x"), Fault.UNSTORABLE),
        (OverflowError(), Fault.UNSTORABLE),
        (asyncpg.DataCorruptedError("x"), Fault.CORRUPT),
        (asyncpg.UndefinedTableError("x"), Fault.UNEXPECTED),
        (KeyError(), Fault.UNEXPECTED),
    ],
)
def test_each_error_has_its_meaning(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (asyncpg.TargetServerAttributeNotMatched("no primary"), StorageUnavailable, "has no primary"),
        (ssl.SSLCertVerificationError("self-signed"), StorageUnavailable, "over TLS"),
        (ValueError("odd"), ConfigurationError, "cannot be used: odd"),
        (asyncpg.UndefinedTableError("gone"), StorageError, "cannot be opened: gone"),
        (TimeoutError(), StorageUnavailable, "cannot be reached: TimeoutError"),
    ],
)
def test_what_cannot_be_made_here_is_told_all_the_same(error: Exception, kind: type[CoreError], told: str) -> None:
    refused = Place("postgresql://u:p@h/db").refusal(error)
    assert type(refused) is kind and told in str(refused)
