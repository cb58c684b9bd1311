"""Tests of a2a_server.edge.connection_count: how many connections there may be, and what is left for the rest."""

import resource

import pytest

from a2a_server.edge.connection_count import Connections, room
from a2a_server.edge.proxies import exempt


def test_connections_are_counted_in_all_and_by_address() -> None:
    it = Connections(4, 2, lambda address: address == "10.0.0.1")
    assert [it.enter("203.0.113.7") for _ in range(3)] == [True, True, False]
    assert [it.enter("10.0.0.1") for _ in range(3)] == [True, True, False], "many callers, but the whole has a limit"
    assert not it.enter("203.0.113.8")
    it.leave("203.0.113.7")
    assert it.enter("203.0.113.7") and not it.enter("203.0.113.7")


@pytest.mark.parametrize(
    ("peer", "is_exempt"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("", True),
        ("203.0.113.7", False),
        ("2001:db8::1", False),
    ],
)
def test_this_machine_and_trusted_proxies_stand_for_many_callers(peer: str, is_exempt: bool) -> None:
    assert exempt(("10.0.0.0/8",))(peer) is is_exempt


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "found", "raised"),
    [
        (1024, 4096, 800, 800, None),
        (1024, 4096, 2000, 2000, 2128),
        (1024, 4096, 10_000, 3968, 4096),
        (1024, 1024, 10_000, 896, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10_000, 10_000, None),
        (256, resource.RLIM_INFINITY, 10_000, 10_000, 10_128),
        (16, 16, 10_000, 1, None),
    ],
)
def test_connections_leave_open_files_for_the_rest(
    soft: int, hard: int, wanted: int, found: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: done.append(limits))
    assert room(wanted) == found
    assert done == ([] if raised is None else [(raised, hard)])
