"""Connections to PostgreSQL, and what their errors mean: each becomes an error of ours with one clear line."""

import os
import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import asyncpg

from core.loop.forks import let_go
from core.model.errors import ConfigurationError, CoreError, StorageError, StorageUnavailable

Connection: TypeAlias = asyncpg.Connection
Row: TypeAlias = asyncpg.Record

OLDEST = 14  # the major version of a server
PAUSES = (0.05, 0.1, 0.2, 0.5)  # seconds between tries to connect; the last one goes on
CONNECT_SECONDS = 10.0  # that one try to connect may take
LIFE_SIGNS = {  # of a peer whose machine or network is gone: the server finds it out, and lets go of its locks
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
SETTINGS = {
    **LIFE_SIGNS,
    "jit": "off",
    # A plan that was made while a table was small would read all of it when it is large.
    "enable_seqscan": "off",
    "TimeZone": "UTC",
}

_SCHEME = re.compile(r"^(postgresql|postgres)(\+asyncpg)?://")


class Fault(Enum):
    """What an error of the driver or the server says of the statement that met it."""

    REFUSED = "nothing of it is stored: a row was not as expected"
    LOST = "the connection is gone, and what became of the statement is unknown"
    BUSY = "nothing of it is stored; it may be tried again at once"
    UNAVAILABLE = "nothing of it is stored, and the next one may fare as badly"
    UNSTORABLE = "a value cannot be stored"
    TOO_LONG = "it took longer than it may"
    CORRUPT = "the database is damaged"
    UNEXPECTED = "anything else"


EXPECTATION = "A2A01"  # raised by `a2a_expect`, which the append ends with
# By SQLSTATE, or its class of two characters.
FAULTS = {
    EXPECTATION: Fault.REFUSED,
    "23505": Fault.REFUSED,  # unique_violation
    "21000": Fault.REFUSED,  # cardinality_violation: one row twice in an append
    "08": Fault.LOST,
    "57P01": Fault.LOST,  # admin_shutdown
    "57P02": Fault.LOST,  # crash_shutdown
    "57P03": Fault.LOST,  # cannot_connect_now
    "57P05": Fault.LOST,  # idle_session_timeout
    "25006": Fault.LOST,  # read_only_sql_transaction: a primary that became a standby
    "25P03": Fault.LOST,  # idle_in_transaction_session_timeout
    "53300": Fault.LOST,  # too_many_connections
    "40001": Fault.BUSY,
    "40P01": Fault.BUSY,  # deadlock_detected
    "55P03": Fault.BUSY,  # lock_not_available
    "53100": Fault.UNAVAILABLE,  # disk_full
    "53200": Fault.UNAVAILABLE,  # out_of_memory
    "57014": Fault.TOO_LONG,  # query_canceled
    "22": Fault.UNSTORABLE,  # data_exception, which asyncpg raises, too
    "54000": Fault.UNSTORABLE,  # program_limit_exceeded: a key too long for an index
    "XX001": Fault.CORRUPT,  # data_corrupted
    "XX002": Fault.CORRUPT,  # index_corrupted
}
# What a driver, or a connection that ends under it, raises.
ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
UNSTORABLE = (TypeError, ValueError, OverflowError, RecursionError)


def fault_of(error: BaseException) -> Fault:
    """What the error means."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is not None:
        return FAULTS.get(state) or FAULTS.get(state[:2]) or Fault.UNEXPECTED
    if isinstance(error, UNSTORABLE):  # asyncpg's own errors of values are ValueErrors
        return Fault.UNSTORABLE
    if isinstance(error, ERRORS):
        return Fault.LOST
    return Fault.UNEXPECTED


def pause_after(tries: int) -> float:
    """Seconds to wait before connecting again, after so many tries before this one."""
    return PAUSES[min(tries, len(PAUSES) - 1)]


def code_of(error: BaseException) -> str:
    """For a text: the SQLSTATE, or what the driver calls it."""
    return getattr(error, "sqlstate", None) or type(error).__name__


def is_postgres(url: str) -> bool:
    """Whether the URL names a database of PostgreSQL."""
    return _SCHEME.match(url) is not None


class Place:
    """Where the database is. `text` names it without its password. Raises ConfigurationError for no such URL."""

    def __init__(self, url: str) -> None:
        self.url = _SCHEME.sub("postgresql://", url, count=1)
        example = "write postgresql://user:password@host:5432/database"
        try:
            parts = urlsplit(self.url)
            if "," not in parts.netloc:  # several hosts have a port each
                parts.port  # noqa: B018 - it is only looked at here
            database = unquote(parts.path.lstrip("/"))
        except ValueError as error:
            raise ConfigurationError(f"The database URL cannot be read ({error}); {example}") from None
        if not database:
            raise ConfigurationError(f"The database URL names no database; {example}")
        hosts = parts.netloc.rpartition("@")[2]
        self.user = unquote(parts.netloc.rpartition("@")[0].partition(":")[0])
        self.text = f"PostgreSQL database {database}{' at ' + hosts if hosts else ''}"

    async def connect(self, settings: Mapping[str, str] = MappingProxyType({})) -> Connection:
        """A connection. Raises what the driver raises."""
        connection = await asyncpg.connect(
            self.url, timeout=CONNECT_SECONDS, server_settings={**SETTINGS, **settings}, statement_cache_size=256
        )
        _keep_from_children(connection)
        return connection

    def refusal(self, error: BaseException) -> CoreError:
        """Why the database cannot be opened, for the operator."""
        state = getattr(error, "sqlstate", None) or ""
        if isinstance(error, asyncpg.ClientConfigurationError):
            return ConfigurationError(f"The database URL cannot be used: {_line(error)}")
        if state in ("28P01", "28000"):
            return ConfigurationError(f"{self.text} refuses the login: {_line(error)}; check user and password")
        if state == "3D000":
            return ConfigurationError(f"{self.text} does not exist: create it, for example with createdb")
        if state == "42501":
            told = "; give the user the right to create tables there, or a schema of its own"
            return ConfigurationError(f"{self.text} lacks a right: {_line(error)}{told}")
        if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
            return StorageUnavailable(f"{self.text} has no primary: {_line(error)}")
        if isinstance(error, ssl.SSLError):
            return StorageUnavailable(f"{self.text} cannot be reached over TLS: {_line(error)}")
        if fault_of(error) is Fault.LOST:
            return StorageUnavailable(f"{self.text} cannot be reached: {_line(error)}")
        if isinstance(error, ValueError):
            return ConfigurationError(f"The database URL cannot be used: {_line(error)}")
        return StorageError(f"{self.text} cannot be opened: {_line(error)}")

    async def check(self, connection: Connection) -> None:
        """Raises StorageError, or ConfigurationError, where the server cannot hold our database."""
        version = connection.get_server_version()
        if version.major < OLDEST:
            raise ConfigurationError(
                f"{self.text} is served by PostgreSQL {version.major}, which is too old: use {OLDEST} or newer"
            )
        is_standby, encoding = await connection.fetchrow(
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool, "
            "current_setting('server_encoding')"
        )
        if encoding != "UTF8":
            raise ConfigurationError(f"{self.text} has the encoding {encoding}: create it with UTF8")
        if is_standby:
            raise StorageUnavailable(f"{self.text} is read-only (a standby): give the address of the primary")

    async def identity(self, connection: Connection) -> str:
        """What tells the database, and the schema in it, from every other one."""
        row: Any = await connection.fetchrow(
            "SELECT system_identifier, oid, current_schema() FROM pg_control_system(), pg_database "
            "WHERE datname = current_database()"
        )
        return f"{row[0] & (2**64 - 1):x}:{row[1]:x}:{row[2]}"


def cut(connection: Connection) -> None:
    """End a connection whose event loop is gone: the server sees its end, and lets go of its locks."""
    transport: Any = connection._transport
    with suppress(OSError):
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    with suppress(RuntimeError):  # the loop is closed, and calls nothing any more
        transport.abort()
    if (finish := getattr(transport, "_call_connection_lost", None)) is not None:
        with suppress(RuntimeError):
            finish(None)  # closes the socket


def _keep_from_children(connection: Connection) -> None:
    """A forked child that held the connection would hold the database's lock, also after our end."""
    found = os.fstat(connection._transport.get_extra_info("socket").fileno())
    held = (found.st_dev, found.st_ino)
    _sockets.add(held)
    connection.add_termination_listener(lambda _: _sockets.discard(held))


def _let_go() -> None:
    if _sockets:
        ours = set(_sockets)
        _sockets.clear()
        let_go(lambda number, found: (found.st_dev, found.st_ino) in ours)


_sockets: set[tuple[int, int]] = set()  # device and inode of those of this process
os.register_at_fork(after_in_child=_let_go)


def _line(error: BaseException) -> str:
    """Its text in one line."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
