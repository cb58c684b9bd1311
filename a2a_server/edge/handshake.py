"""TLS from the moment a connection is accepted: asyncio itself tells of one when its handshake is over.

So that silent clients cannot hold as many files as they like, a connection is counted before its handshake, and the
time that it has for its first head runs from then on.
"""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from a2a_server.edge.connection import Connection, Shared
from a2a_server.edge.deadlines import Deadlines


class Handshake(asyncio.Protocol):
    """An accepted connection until it is encrypted; then a `Connection` takes its place."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: Shared,
    ) -> None:
        self._loop = _loop or asyncio.get_running_loop()
        self._config, self._state, self._app_state = config, server_state, app_state
        self._shared = shared
        self._deadlines = Deadlines(shared.timeouts, self._loop.time())
        self._address = ""
        self._transport: asyncio.Transport
        self._shaking: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._early = bytearray()  # what came with the handshake's last message
        self._is_lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        self._transport = transport
        client = get_remote_addr(transport)
        self._address = client[0] if client else ""
        if not self._shared.connections.enter(self._address):
            transport.abort()  # an answer would need the handshake
            return
        transport.pause_reading()
        self._state.connections.add(self)  # type: ignore[arg-type]  # ended with the others
        self._shaking = self._loop.create_task(self._shake())
        self._shaking.add_done_callback(self._end)

    def data_received(self, data: bytes) -> None:
        """The first bytes may come before `_shake` goes on; asyncio reads at most once until then."""
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left as the handshake ended; asyncio may say so to whom it knew before."""
        self._is_lost = True
        if self._connection is not None:
            self._connection.connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends (uvicorn's word for it)."""
        if self._shaking is not None:
            self._shaking.cancel()

    async def _shake(self) -> None:
        assert self._shared.tls is not None
        encrypted = await self._loop.start_tls(
            self._transport,
            self,
            self._shared.tls,
            server_side=True,
            ssl_handshake_timeout=self._shared.timeouts.head,
        )
        if encrypted is None or self._is_lost:
            return
        connection = Connection(self._config, self._state, self._app_state, self._loop, shared=self._shared)
        connection.counted, connection.deadlines = self._address, self._deadlines
        self._connection = connection
        encrypted.set_protocol(connection)
        connection.connection_made(encrypted)
        if self._early:
            connection.data_received(bytes(self._early))

    def _end(self, shaking: "asyncio.Task[None]") -> None:
        """Count one less, unless the connection goes on encrypted."""
        self._state.connections.discard(self)
        self._shaking = None
        if self._connection is None:
            self._shared.connections.leave(self._address)
            self._transport.abort()
        error = None if shaking.cancelled() else shaking.exception()
        if error is None:
            return
        if not isinstance(error, OSError):
            self._loop.call_exception_handler({"message": "a TLS handshake failed", "exception": error})
        error.__traceback__ = None  # asyncio's frames refer to the error and to all that the handshake has needed
