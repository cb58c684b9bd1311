"""Tests of a2a_server.edge.head_bounds, without a connection: each bound at its last good value and one beyond."""

from collections.abc import Callable
from typing import Any

import pytest

from a2a_server.edge.head_bounds import (
    FEW_CHUNKS,
    FRAMING,
    LEAST_CHUNK,
    SENT_AHEAD,
    HeadBounds,
    HeadLimits,
    HeadNotTaken,
    path_of,
)

SIZE, FIELDS = 100, 5


def begun() -> HeadBounds:
    """The bounds of a head whose first line has come."""
    bounds = HeadBounds(HeadLimits(size=SIZE, fields=FIELDS))
    bounds.begin(waiting=0)
    bounds.target(1)
    return bounds


def in_body() -> HeadBounds:
    """The bounds of a body whose head came in data before."""
    bounds = begun()
    assert bounds.complete(b"POST", "1.1", is_upgrade=False)
    bounds.read(50, 0)
    return bounds


def refused(step: Callable[[], Any]) -> int:
    """The status with which the step is refused; 0 where it is not."""
    try:
        step()
    except HeadNotTaken as error:
        return error.status
    return 0


@pytest.mark.parametrize(("waiting", "status"), [(0, 0), (SENT_AHEAD - 1, 0), (SENT_AHEAD, 400)])
def test_requests_wait_up_to_a_number(waiting: int, status: int) -> None:
    assert refused(lambda: begun().begin(waiting)) == status


@pytest.mark.parametrize(("sizes", "status"), [([SIZE - 1], 0), ([SIZE], 414), ([40, SIZE - 41], 0), ([40, 60], 414)])
def test_target_is_bounded_in_one_piece_and_in_many(sizes: list[int], status: int) -> None:
    bounds = begun()
    assert refused(lambda: [bounds.target(size) for size in sizes]) == status


@pytest.mark.parametrize(("size", "status"), [(SIZE - 1 - 4 - 1, 0), (SIZE - 1 - 4, 431)])
def test_target_and_fields_are_bounded_together(size: int, status: int) -> None:
    assert refused(lambda: begun().field(b"a", b"b" * size)) == status


@pytest.mark.parametrize(("count", "status"), [(FIELDS, 0), (FIELDS + 1, 431)])
def test_fields_are_counted(count: int, status: int) -> None:
    bounds = begun()
    assert refused(lambda: [bounds.field(b"a", b"") for _ in range(count)]) == status


def test_each_head_has_a_bound_of_its_own() -> None:
    bounds = begun()
    for _ in range(3):
        for _ in range(FIELDS):
            assert bounds.field(b"a", b"b" * 10)
        assert bounds.complete(b"GET", "1.1", is_upgrade=False)
        bounds.begin(waiting=0)
        bounds.target(1)


def test_trailer_is_no_header_field_whatever_it_says() -> None:
    bounds = in_body()
    assert not bounds.field(b"Transfer-Encoding", b"gzip")
    assert not any(bounds.field(b"host", b"x" * SIZE) for _ in range(2 * FIELDS))


CODINGS = {
    b"chunked": 0,
    b" Chunked ": 0,
    b"identity": 400,
    b"gzip": 400,
    b"chunked, gzip": 400,
    b"xchunked": 400,
    b"chunked, chunked": 400,
    b"": 400,
    b"gzip, chunked": 501,
    b"gzip,chunked": 501,
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("name", [b"transfer-encoding", b"Transfer-Encoding"])
def test_no_coding_is_taken_that_cannot_be_undone(coding: bytes, name: bytes) -> None:
    assert refused(lambda: begun().field(name, coding)) == CODINGS[coding]


@pytest.mark.parametrize(
    ("method", "version", "is_upgrade", "found"),
    [
        (b"POST", "1.1", False, True),
        (b"GET", "1.0", False, True),
        (b"POST", "1.1", True, False),
        (b"GET", "1.0", True, False),
        (b"CONNECT", "1.1", True, 400),
        (b"CONNECT", "1.0", True, 400),
        (b"POST", "0.9", False, 400),
        (b"POST", "2.0", True, 400),
        (b"POST", "1.2", False, 400),
    ],
)
def test_whole_head_is_a_request_or_is_read_again_or_is_refused(
    method: bytes, version: str, is_upgrade: bool, found: bool | int
) -> None:
    bounds = begun()
    if found is not True and found is not False:
        assert refused(lambda: bounds.complete(method, version, is_upgrade=is_upgrade)) == found
    else:
        assert bounds.complete(method, version, is_upgrade=is_upgrade) is found
    assert not bounds.is_in_head


def test_chunks_are_refused_in_http_1_0_and_only_of_the_request_that_has_them() -> None:
    bounds = begun()
    bounds.field(b"transfer-encoding", b"chunked")
    assert refused(lambda: bounds.complete(b"POST", "1.0", is_upgrade=False)) == 400
    bounds.begin(waiting=0)
    assert bounds.complete(b"POST", "1.0", is_upgrade=False)
    bounds.begin(waiting=0)
    bounds.field(b"transfer-encoding", b"chunked")
    assert bounds.complete(b"POST", "1.1", is_upgrade=False)


@pytest.mark.parametrize("average", [LEAST_CHUNK, LEAST_CHUNK - 1])
def test_chunks_are_few_or_not_tiny(average: int) -> None:
    bounds = in_body()
    for number in range(FEW_CHUNKS + 1):
        bounds.chunk(average * number)
    assert refused(lambda: bounds.chunk(average * (FEW_CHUNKS + 1))) == (0 if average == LEAST_CHUNK else 400)


@pytest.mark.parametrize(("sizes", "status"), [([SIZE], 0), ([SIZE + 1], 431), ([60, 40], 0), ([60, 41], 431)])
def test_middle_of_a_head_is_bounded_that_the_parser_does_not_report(sizes: list[int], status: int) -> None:
    bounds = begun()
    bounds.read(10 * SIZE, None)  # the data in which it began holds other requests, too
    assert refused(lambda: [bounds.read(size, None) for size in sizes]) == status


@pytest.mark.parametrize("body", [0, 1, 1000])
def test_what_is_around_a_body_is_bounded_by_what_is_in_it(body: int) -> None:
    most = FRAMING + SIZE + body + body // 2
    assert refused(lambda: in_body().read(most, body)) == 0
    assert refused(lambda: in_body().read(most + 1, body)) == 413
    bounds = in_body()
    bounds.read(most - 1, body)
    assert refused(lambda: bounds.read(2, body)) == 413


def test_what_comes_between_requests_counts_for_none() -> None:
    """Empty lines: the deadline of a head ends them."""
    bounds = in_body()
    for _ in range(10):
        bounds.read(FRAMING, None)
    assert refused(lambda: bounds.read(FRAMING, 0)) == 0


TARGETS: dict[tuple[bytes, bytes], bytes] = {
    (b"GET", b"/a?b=c"): b"/a?b=c",
    (b"GET", b"http://other/a?b"): b"/a?b",
    (b"GET", b"http://other"): b"/",
    (b"OPTIONS", b"*"): b"/",
    (b"GET", b"*"): b"",
    (b"GET", b"/a#b"): b"",
    (b"GET", b"http://other/#b"): b"",
    (b"GET", b"other:80"): b"",
    (b"GET", b"a"): b"",
}


@pytest.mark.parametrize(("method", "target"), TARGETS)
def test_target_is_a_path_below_this_server_or_is_refused(method: bytes, target: bytes) -> None:
    scope: dict[str, Any] = {"headers": [(b"host", b"h")]}
    expected = TARGETS[method, target]
    if expected:
        assert path_of(method, target, "1.1", scope) == expected
        assert scope["headers"] == [(b"host", b"other" if b"other" in target else b"h")]
    else:
        assert refused(lambda: path_of(method, target, "1.1", scope)) == 400
