"""A forked child of the server (`a2a_server.process.forks`) has neither its sockets nor its way to take signals."""

import os
import signal
import socket
from collections.abc import Callable

import pytest

from a2a_server.process.forks import kept_from_children
from tests.core.loop.test_forks import told_by_child


def kinds(*sockets: socket.socket) -> str:
    """What the descriptors are."""
    return " ".join(os.path.realpath(f"/proc/self/fd/{each.fileno()}").partition(":")[0] for each in sockets)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_child_has_neither_the_listener_nor_what_it_accepted(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener, socket.create_server(("127.0.0.1", 0)) as other:
        client = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
        pair = socket.socketpair()
        everything = (listener, accepted, client, other, *pair)
        assert "null" not in told_by_child(lambda: kinds(*everything)), "nobody serves"
        with kept_from_children(listener):
            seen = told_by_child(lambda: kinds(*everything)).split()
        assert [each.endswith("/dev/null") for each in seen] == [True, True, False, False, False, False]
        client.settimeout(10)
        accepted.sendall(b"x")
        assert client.recv(1) == b"x", "the server's own stay open"
        for each in (client, accepted, *pair):
            each.close()


@pytest.mark.parametrize(
    ("number", "handler", "expected"),
    [
        (signal.SIGTERM, lambda *_: None, signal.SIG_DFL),
        (signal.SIGHUP, lambda *_: None, signal.SIG_DFL),
        (signal.SIGINT, lambda *_: None, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_IGN, signal.SIG_IGN),
    ],
)
def test_a_child_takes_signals_as_any_program(number: int, handler: Callable[..., None], expected: object) -> None:
    before = signal.signal(number, handler)
    try:
        assert told_by_child(lambda: str(signal.getsignal(number) is handler)) == "True", "nobody serves"
        with kept_from_children():
            assert told_by_child(lambda: str(signal.getsignal(number) is expected)) == "True"
    finally:
        signal.signal(number, before)
