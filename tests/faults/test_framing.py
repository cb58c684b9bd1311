"""R8: where requests begin and end, in odd streams cut at every place, beside h11.

FRAMING_CASES says how many, FUZZ_SEED which. A case is one stream, cut in one way. From a million cases on each stream
is cut at every place, else at so many as give more streams.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Any

import httptools
import pytest

from a2a_server.edge.connection import Connection, RequestReader
from a2a_server.edge.head_bounds import HeadBounds
from tests.faults.framing import Read, Server, Stream, fault, splits, stream, theirs
from tests.faults.report import report

CASES = int(os.environ.get("FRAMING_CASES", "100000"))
FEW = 14  # places at which a stream is cut, so that there are many streams
PLACES = 10_000 if CASES >= 1_000_000 else FEW
CONTROL = 500_000  # a planted bug shows within 6,000 cases on average: the search ends there, not by chance


def the_seed() -> int:
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
    print(f"seed={seed}")
    return seed


def cases(seed: int, places: int = FEW) -> Iterator[tuple[Stream, Read, tuple[bytes, ...], bool]]:
    """Without an end: a stream, what h11 reads in it, its pieces, and whether the client waits between them."""
    for number in count():
        given = stream(seed, number)
        expected = theirs(given.data)
        for n, pieces in enumerate(splits(given.data, number, places)):
            yield given, expected, pieces, n % 2 == 1


async def first_fault(seed: int, most: int) -> tuple[int, str]:
    """The number of the first case in which something is wrong, and what; 0 where nothing is."""
    server = Server()
    for number, (given, expected, pieces, waits) in enumerate(islice(cases(seed), most), 1):
        if wrong := fault(given, await server.ours(pieces, waits=waits), expected):
            return number, wrong
    return 0, ""


@pytest.mark.asyncio
async def test_no_byte_of_a_body_becomes_a_request_however_a_stream_is_cut() -> None:
    """Found from outside: behind a head with `Upgrade`, a request inside a body was served."""
    seed = the_seed()
    server = Server()
    counted = Counter[str]()
    streams: set[bytes] = set()
    for given, expected, pieces, waits in islice(cases(seed, PLACES), CASES):
        read = await server.ours(pieces, waits=waits)
        assert not (wrong := fault(given, read, expected)), (wrong, pieces, read, expected)
        counted["served as by h11" if read == expected else "closed earlier than by h11"] += 1
        counted["requests"] += len(read.requests)
        counted["plain"] += given.is_plain
        streams.add(given.data)
    assert counted["served as by h11"] > CASES / 2
    assert counted["plain"] > CASES / 10
    report(
        "R8",
        "framing: odd streams, cut at every place, beside h11",
        f"{CASES} cases of {len(streams)} streams, {counted['requests']} requests served: "
        f"{counted['served as by h11']} as by h11, {counted['closed earlier than by h11']} closed earlier, "
        "0 requests that h11 does not read, 0 connections left open behind what cannot be read",
        seed=seed,
    )


def stop_at_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's own way: what follows such a head is no body."""

    def feed(self: RequestReader, data: bytes) -> None:
        with suppress(httptools.HttpParserUpgrade):
            self._connection.parser.feed_data(data)

    def complete(self: HeadBounds, *told: Any, is_upgrade: bool) -> bool:
        self.is_in_head = False
        return True

    monkeypatch.setattr(RequestReader, "feed", feed)
    monkeypatch.setattr(HeadBounds, "complete", complete)


def forget_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What came with the head in one piece is lost."""

    def read_head_again(self: RequestReader) -> None:
        self._connection.parser.feed_data(b"")
        self._is_set_aside = False

    monkeypatch.setattr(RequestReader, "_read_head_again", read_head_again)


def take_other_codings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadBounds, "field", lambda self, name, value: True)


def read_on_behind_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection stays open, and a new parser reads what comes next."""

    def end_with(self: Connection, status: int = 0, text: str = "") -> None:
        self.parser = httptools.HttpRequestParser(self._reader)

    monkeypatch.setattr(Connection, "end_with", end_with)


def take_other_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2a_server.edge.head_bounds._VERSIONS", ("0.9", "1.0", "1.1", "2.0"))


BUGS = (stop_at_upgrade, forget_the_rest, take_other_codings, read_on_behind_an_error, take_other_versions)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
@pytest.mark.asyncio
async def test_a_connection_that_frames_wrongly_is_found(bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = the_seed()
    assert (await first_fault(seed, 1_000))[0] == 0
    bug(monkeypatch)
    number, wrong = await first_fault(seed, CONTROL)
    assert number, "the planted bug was not found"
    name = bug.__name__.replace("_", " ")
    report("R8", f"control: framing, {name}", f"found at case {number}: {wrong}", seed=seed)


def test_a_seed_and_a_number_give_the_same_stream() -> None:
    """Each failure can be sent again."""
    assert [stream(1, n) for n in range(200)] == [stream(1, n) for n in reversed(range(200))][::-1]
    assert [stream(1, n) for n in range(200)] != [stream(2, n) for n in range(200)]
