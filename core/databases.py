"""Which storage a database's URL means. What PostgreSQL needs is loaded for its URLs only."""

from importlib import import_module
from typing import Any, Protocol
from urllib.parse import urlsplit

from core.cluster.bus import Bus, LocalBus
from core.model.errors import ConfigurationError
from core.storage.base import Documents, Storage
from core.storage.sqlite.guard import RESERVE
from core.storage.sqlite.sql import SqlStorage, database_path

POSTGRES = frozenset({"postgresql", "postgres"})


class DocumentStore(Documents, Protocol):
    """Documents, to be opened and closed."""

    async def open(self) -> None:
        """Raises ConfigurationError, StorageError or DatabaseInUse."""
        ...

    async def close(self) -> None:
        """May be called twice."""
        ...


def is_postgres(url: str) -> bool:
    """Whether the URL names a database of PostgreSQL."""
    return _backend(url) in POSTGRES


def storage_of(url: str, *, reserve: int = RESERVE) -> Storage:
    """The storage for this URL, not opened yet. `reserve`: see `SqlStorage`.

    Raises ConfigurationError for a URL that cannot be used.
    """
    if not is_postgres(url):
        return SqlStorage(url, reserve=reserve)
    storage: Storage = _module("storage").PostgresStorage(url)
    return storage


def documents_of(url: str) -> DocumentStore:
    """What is stored beside the trees, not opened yet; in PostgreSQL while servers use them, too.

    Raises ConfigurationError for a URL that cannot be used.
    """
    if not is_postgres(url):
        return storage_of(url)
    store: DocumentStore = _module("beside").Beside(url)
    return store


def key_of(url: str) -> str:
    """What two URLs of one database have in common, as far as their texts tell. Raises ConfigurationError."""
    if not is_postgres(url):
        return str(database_path(url).resolve())
    parts = urlsplit(url)
    return parts._replace(scheme="postgresql", fragment="").geturl()


def name_of(url: str) -> str:
    """How to name the database to its operator: a file, or a database without its password."""
    if not is_postgres(url):
        return str(database_path(url))
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class Database:
    """A storage, and what carries hints between those who share it: open together."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.bus: Bus = LocalBus()
        if is_postgres(storage.address):
            self.bus = import_module("core.cluster.postgres.bus").PostgresBus(storage.address)

    async def open(self) -> None:
        """Raises what the storage and the bus raise; then neither is open."""
        await self._storage.open()
        try:
            await self.bus.open()
        except BaseException:  # nothing else would close what is open already
            await self._storage.close()
            raise

    async def close(self) -> None:
        """May be called twice."""
        await self.bus.close()
        await self._storage.close()

    def abandon(self) -> None:
        """Close without the event loop that opened it, which is gone. Blocks."""
        self.bus.abandon()
        self._storage.abandon()


def _module(name: str) -> Any:
    try:
        return import_module(f"core.storage.postgres.{name}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"PostgreSQL needs the package {error.name}: install the extra, pip install 'durable-a2a[postgres]'"
        ) from error


def _backend(url: str) -> str:
    scheme, separator, _ = url.partition(":")
    return scheme.partition("+")[0] if separator else ""
