"""Streams over several connections: what is waited for, what is given up, and what the user reads meanwhile."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from a2a_server.cli.answers import Frame
from a2a_server.cli.output import Failure
from a2a_server.cli.resumption import FIRST_RECONNECTS, MAX_PAUSE, RECONNECTS, Cursor, Resumption

URL = "http://test/"
LOST = httpx2.ConnectError("refused")


class Network:
    """Connections that bring what they are to: frames, or an error behind them."""

    def __init__(self, *connections: list[Any]) -> None:
        self._connections = iter(connections)
        self.cursor = Cursor()
        self.pauses: list[float] = []
        self.notices: list[str] = []

    def connect(self) -> Iterator[Frame]:
        for each in next(self._connections, [LOST]):
            if isinstance(each, Exception):
                raise each
            yield Frame(each, {})

    def read(self, *, is_known: bool = True, reason: str | None = None, ends_at: int = 0) -> list[int | None]:
        resumption = Resumption(self.pauses.append, self.notices.append)
        read = []
        for frame in resumption.frames(URL, self.connect, self.cursor, lambda error: reason, is_known=is_known):
            read.append(frame.seq)
            self.cursor.has_ended = frame.seq == ends_at
        return read


def test_a_stream_that_ends_needs_no_second_connection() -> None:
    network = Network([1, 2])
    assert network.read(ends_at=2) == [1, 2]
    assert (network.pauses, network.notices) == ([], [])


def test_what_comes_behind_the_end_is_not_read() -> None:
    assert Network([1, 2, 3]).read(ends_at=2) == [1, 2]


def test_a_broken_stream_goes_on_over_another_connection() -> None:
    network = Network([1, LOST], [LOST], [2])
    assert network.read(ends_at=2) == [1, 2]
    assert network.pauses == [0.2, 0.4], "each wait is twice the last one"
    assert network.notices == [f"lost the server at {URL} (refused); reconnecting"], "the user is told once"


def test_a_stream_that_ends_early_is_connected_again() -> None:
    network = Network([1], [2])
    assert network.read(ends_at=2) == [1, 2]
    assert "the stream ended early" in network.notices[0]


def test_a_stream_that_may_end_is_not() -> None:
    network = Network([1])
    network.cursor.may_end = True
    assert network.read() == [1]
    assert network.pauses == []


def test_a_server_that_has_answered_is_waited_for_up_to_a_bound() -> None:
    network = Network()
    with pytest.raises(Failure, match="the tasks resume when it is back"):
        network.read()
    assert len(network.pauses) == RECONNECTS and max(network.pauses) == MAX_PAUSE


def test_every_frame_gives_the_server_its_whole_time_again() -> None:
    network = Network(*[[LOST]] * RECONNECTS, [1], *[[LOST]] * (RECONNECTS - 1), [2])
    assert network.read(ends_at=2) == [1, 2]
    assert len(network.notices) == 2, "each loss is told"


def test_an_address_where_nothing_answers_is_given_up_soon() -> None:
    network = Network()
    with pytest.raises(Failure, match="check the address"):
        network.read(is_known=False)
    assert len(network.pauses) == FIRST_RECONNECTS < RECONNECTS


def test_a_reason_is_told_at_once_to_a_caller_that_nothing_has_answered() -> None:
    network = Network()
    with pytest.raises(Failure, match="no such host"):
        network.read(is_known=False, reason="no such host")
    assert network.pauses == []


def test_a_reason_does_not_matter_once_the_server_has_answered() -> None:
    network = Network([1, LOST], [2])
    assert network.read(is_known=False, reason="no such host", ends_at=2) == [1, 2]


def test_an_error_without_text_is_told_by_its_type() -> None:
    network = Network([httpx2.ReadError("")], [1])
    network.read(ends_at=1)
    assert "(ReadError)" in network.notices[0]
