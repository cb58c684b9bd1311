"""What an outbound call receives, counted as it comes: heads, framing and trailers cost memory and time, too."""

import ssl
from typing import Any

import httpcore2

from core.outside.fetched import ResponseTooLarge

MAX_HEAD = 32 * 1024  # bytes of an answer's head, and of what comes before it
HEAD_PIECE = 8 * 1024  # bytes of it that are read at once: each may be full of messages, which cost time


class Wire:
    """Counts what one call receives on all its connections, framing included."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most
        self.is_in_head = True

    def expect_head(self) -> None:
        """The next answer begins."""
        self.is_in_head, self._left = True, MAX_HEAD

    def expect_body(self) -> None:
        """The head of the answer is there."""
        self.is_in_head, self._left = False, self._most

    def take(self, size: int) -> None:
        """So many bytes have come. Raises ResponseTooLarge when they are more than fit here."""
        self._left -= size
        if self._left < 0:
            what = "head is longer than" if self.is_in_head else "framing takes it beyond"
            raise ResponseTooLarge(f"the answer's {what} {MAX_HEAD if self.is_in_head else self._most} bytes")


class Metered(httpcore2.AsyncNetworkStream):
    """A connection whose incoming bytes are counted."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's interface
        data = await self._stream.read(min(max_bytes, HEAD_PIECE) if self._wire.is_in_head else max_bytes, timeout)
        self._wire.take(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - httpcore's interface
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore2.AsyncNetworkStream:
        return Metered(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._wire)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
