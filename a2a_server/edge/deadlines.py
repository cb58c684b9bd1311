"""How long a connection may keep us waiting: for a head, for a body, and for taking what was written to it.

That is settled below ASGI, where a client that says nothing is seen at all; uvicorn's own connections wait for ever.
All of them are looked at once a second, so that it costs a request nothing and each deadline is met within a second.
"""

import asyncio
import logging
import socket
import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from a2a_server.edge.load_shedder import LoadShedder

logger = logging.getLogger(__name__)

RATE_AFTER: Final = 5.0  # seconds of a body before its rate counts: a connection may begin slowly
_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """In seconds; `body_rate` in bytes a second."""

    head: float
    body: float
    body_rate: int
    taking: float


class TimedConnection(LoadShedder):
    """A connection which ends when its client is too slow. `enforce` is called once a second."""

    deadlines: ClassVar[Deadlines]
    _head_since: float | None = None  # since when a head is waited for
    _body_since: float | None = None  # since when a body arrives
    _body_size = 0  # bytes of it that have arrived
    _size_before = 0  # how many of these had arrived then
    _unsent = 0  # bytes that waited for the client when it was looked at last
    _taken_at = 0.0  # when it was seen to take some, or to have taken all

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._head_since = self._taken_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Whatever comes while nothing is asked begins a head; empty lines too, which the parser does not report."""
        if self._head_since is None and self._body_since is None and not self._is_answering:
            self._head_since = self.loop.time()
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_since is None:  # a request that follows another one in the same data
            self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._body_since, self._body_size, self._size_before = self.loop.time(), 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_since = None
        super().on_message_complete()

    def enforce(self) -> None:
        """End the connection if its client has missed a deadline."""
        now = self.loop.time()
        if self._has_stalled(now):
            logger.info("closed the connection of a slow reader: no progress for %g s", self.deadlines.taking)
            self._reset()
        elif self._is_half_closed and self._is_gone():
            self.transport.abort()
        elif not self.transport.is_closing() and (self._is_head_late(now) or self._is_body_late(now)):
            logger.debug("closed a connection: its request took too long to arrive")
            self._refuse()

    def _is_gone(self) -> bool:
        """Whether a client that sends nothing more has closed the connection: then what was written to it came back."""
        return bool(self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _has_stalled(self, now: float) -> bool:
        """Whether it takes nothing of what waits. One that only falls further behind counts as such."""
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0 or unsent < self._unsent:
            self._taken_at = now
        self._unsent = unsent
        return now - self._taken_at >= self.deadlines.taking

    def _is_head_late(self, now: float) -> bool:
        if self._head_since is None or self._is_answering:
            return False
        return now - self._head_since >= self.deadlines.head

    def _is_body_late(self, now: float) -> bool:
        if self._body_since is None or self._is_deaf:
            return False
        cycle = self.cycle  # None for a first call that is held at the load_shedder
        if self.flow.read_paused or (cycle and cycle.waiting_for_100_continue and not cycle.response_started):
            self._body_since, self._size_before = now, self._body_size  # it waits for us
            return False
        if self._is_answering and self.cycle.response_started:
            return False  # a refusal, which reads on for a while and then closes
        spent = now - self._body_since
        size = self._body_size - self._size_before
        is_slow = spent >= RATE_AFTER and size < self.deadlines.body_rate * spent
        return is_slow or spent >= self.deadlines.body

    @property
    def _is_answering(self) -> bool:
        """Whether a request is being answered, or waits for its turn."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self) -> None:
        """Say why, unless nothing was asked or it was answered already, and close."""
        if self._body_since is not None and self._is_answering:
            self.end_with(408, "The request took too long to arrive")
        else:
            self.transport.close()

    def _reset(self) -> None:
        """Drop the connection: closing would wait until the client has taken the rest.

        A reset frees what waits in the kernel's buffers too, at once.
        """
        handle = self.transport.get_extra_info("socket")
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()
