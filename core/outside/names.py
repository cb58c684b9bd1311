"""Look-ups of host names: bounded in number and time, and shared fairly by caller.

A look-up cannot be broken off: it holds its thread until the operating system gives up, however long ago its caller
did. So it keeps its place until then, and a caller whose names answer slowly waits for itself only.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread

from core.loop.turns import Turns

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]  # (host, port) -> every address of it, as text

LOOKUPS = 32  # at a time
LOOKUPS_PER_CALLER = 8
LOOKUP_SECONDS = 5.0  # how long one is waited for, once it has begun


async def system_resolver(host: str, port: int) -> Sequence[str]:
    """Every address the operating system knows for the host. Raises OSError when it knows none, ValueError for no name.

    In a thread of its own, which does not keep the process from ending.
    """
    found: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
    try:
        Thread(target=_look_up, args=(found, host, port), name="name-lookup", daemon=True).start()
    except RuntimeError as error:
        raise OSError("no thread can be started for a DNS lookup") from error
    return await found


def _look_up(found: "asyncio.Future[Sequence[str]]", host: str, port: int) -> None:
    addresses: Sequence[str] = ()
    failure: Exception | None = None
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    except (OSError, ValueError) as error:
        failure = error
    with suppress(RuntimeError):  # the loop is closed: no caller waits any more
        found.get_loop().call_soon_threadsafe(_tell, found, addresses, failure)


def _tell(found: "asyncio.Future[Sequence[str]]", addresses: Sequence[str], failure: Exception | None) -> None:
    if not found.done():
        found.set_result(addresses) if failure is None else found.set_exception(failure)


class NameLookups:
    """The look-ups of one client. `seconds`: how long one is waited for."""

    def __init__(
        self,
        resolve: Resolver = system_resolver,
        *,
        total: int = LOOKUPS,
        each: int = LOOKUPS_PER_CALLER,
        seconds: float = LOOKUP_SECONDS,
    ) -> None:
        self._resolve = resolve
        self._turns = Turns(total, each)
        self._seconds = seconds
        self._under_way: set[asyncio.Future[Sequence[str]]] = set()

    async def find(self, owner: str, host: str, port: int) -> Sequence[str]:
        """Every address of the host, when it is the owner's turn.

        Raises OSError when there is none, TimeoutError when none was found in time, and ValueError for no name.
        """
        await self._turns.enter(owner)
        lookup = asyncio.ensure_future(self._resolve(host, port))
        self._under_way.add(lookup)
        lookup.add_done_callback(partial(self._ended, owner))
        async with asyncio.timeout(self._seconds):
            return await asyncio.shield(lookup)

    def _ended(self, owner: str, lookup: asyncio.Future[Sequence[str]]) -> None:
        self._under_way.discard(lookup)
        if not lookup.cancelled():
            lookup.exception()  # seen, even if no longer waited for
        self._turns.leave(owner)
