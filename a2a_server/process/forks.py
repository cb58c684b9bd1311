"""A child that an executor forks is no second server: it has neither our sockets nor our way to take signals.

Else a connection would not end while the child lives, the port would stay taken after the server's death, and a signal
to the child would reach the server's event loop, which shares the pipe behind it.
"""

import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.loop.forks import let_go

_ports: list[int | None] = []  # one for each server or command of this process
_DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


@contextmanager
def kept_from_children(listener: socket.socket | None = None) -> Iterator[None]:
    """Within it, forked children get the signals' defaults, and neither the listener nor what it accepted."""
    port = None if listener is None else listener.getsockname()[1]
    _ports.append(port)
    try:
        yield
    finally:
        _ports.remove(port)


def _let_go_in_child() -> None:  # pragma: no cover - runs in forked children only, where nothing is measured
    if not _ports:
        return
    signal.set_wakeup_fd(-1)
    for number, default in _DEFAULTS.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, default)
    ports = {port for port in _ports if port is not None}
    if ports:
        let_go(lambda number, found: stat.S_ISSOCK(found.st_mode) and _local_port(number) in ports)
    _ports.clear()


def _local_port(number: int) -> int | None:
    """The port of an Internet socket of this process; what was accepted has the listener's."""
    with socket.socket(fileno=os.dup(number)) as copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        port: int = copy.getsockname()[1]
        return port


os.register_at_fork(after_in_child=_let_go_in_child)
