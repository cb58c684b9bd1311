"""What an outbound call receives is counted with its framing."""

import httpcore2
import pytest

from core.outside.fetched import ResponseTooLarge
from core.outside.wire import HEAD_PIECE, MAX_HEAD, Metered, Wire


class Stream(httpcore2.AsyncNetworkStream):
    """Gives as much as it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.tls: Stream | None = None

    async def read(self, max_bytes: int, *_: object) -> bytes:
        self.asked.append(max_bytes)
        return b"x" * max_bytes

    async def start_tls(self, *_: object, **__: object) -> httpcore2.AsyncNetworkStream:
        self.tls = Stream()
        return self.tls


@pytest.mark.asyncio
async def test_head_is_read_in_small_pieces_and_bounded() -> None:
    wire, stream = Wire(1 << 20), Stream()
    wire.expect_head()
    metered = Metered(stream, wire)
    for _ in range(MAX_HEAD // HEAD_PIECE):
        assert len(await metered.read(65536)) == HEAD_PIECE
    with pytest.raises(ResponseTooLarge, match="head is longer"):
        await metered.read(65536)


@pytest.mark.asyncio
async def test_body_is_bounded_with_its_framing_also_over_tls() -> None:
    wire = Wire(100_000)
    wire.expect_head()
    metered = await Metered(Stream(), wire).start_tls(httpcore2.default_ssl_context())
    assert len(await metered.read(65536)) == HEAD_PIECE
    wire.expect_body()
    assert len(await metered.read(65536)) == 65536
    with pytest.raises(ResponseTooLarge, match="beyond 100000 bytes"):
        await metered.read(65536)


@pytest.mark.asyncio
async def test_each_answer_of_a_call_has_its_own_bound() -> None:
    wire = Wire(10)
    for _ in range(3):
        wire.expect_head()
        wire.take(MAX_HEAD)
        wire.expect_body()
        wire.take(10)
