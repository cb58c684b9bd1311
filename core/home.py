"""To which event loop of which process a session belongs: it is open from its first use there until the loop ends.

A program may make a loop for each job, fork, or forget its session. Whoever uses the session next, in whatever loop,
finds it closed properly and opens it anew; what keeps it from that is told before anything is done.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from core.model.errors import CoreError, DatabaseInUse, StorageUnavailable

PATIENCE = 5.0  # seconds to wait for one other loop of this process, or for a forgotten session, to let go
LOOK = 0.02  # seconds between two looks at that
ABSENT = 1.0  # seconds without a look after which a waiter loses its place: its loop is stopped, or blocked
LINGER = 5.0  # seconds after its last use in which a session is not thrown away: the next call finds it open


class Place:
    """The loop and the process in which it is open. Apart from `Home`, so that nothing here keeps a session alive."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.process = 0

    def collected(self, abandon: Callable[[], None]) -> None:
        """The session was thrown away: let go of its storage, unless its loop can do it (the keeper's end)."""
        if self.loop is not None and self.loop.is_closed() and self.process == os.getpid():
            threading.Thread(target=abandon, name="let-go", daemon=True).start()


class _Queue:
    """The loops that wait for another, in their order: else a thread that makes loop after loop is always first.

    Not for two threads at a time.
    """

    def __init__(self) -> None:
        self._looked_at: dict[asyncio.AbstractEventLoop, float] = {}  # in seconds of `time.monotonic`

    def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take a place behind the others, or keep the one that it has."""
        self._looked_at[loop] = time.monotonic()

    def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """May be called twice."""
        self._looked_at.pop(loop, None)

    def is_first(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether there was no caller before."""
        now = time.monotonic()
        self._looked_at = {one: at for one, at in self._looked_at.items() if one is loop or now - at < ABSENT}
        return next(iter(self._looked_at), loop) is loop


class Lingering:
    """Keeps a session alive for a while: a program that makes a session in each call has one of them open."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._used_at = 0.0

    def keep(self, owner: object) -> None:
        """The owner was used now, in this loop."""
        loop = asyncio.get_running_loop()
        self._used_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(LINGER, self._keep_on, owner)

    def _keep_on(self, owner: object) -> None:
        loop = asyncio.get_running_loop()
        left = self._used_at + LINGER - loop.time()
        self._timer = loop.call_later(left, self._keep_on, owner) if left > 0 else None

    def stop(self) -> None:
        """Let go of the owner. Called in the loop in which it was kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget(self) -> None:
        """A timer of another loop rings no more."""
        self._timer = None


class Home:
    """Opens and closes one session.

    `open` and `close` are called in its loop; `abandon`, which may block, when that loop is gone.
    """

    def __init__(
        self, open: Callable[[], Awaitable[None]], close: Callable[[], Awaitable[None]], abandon: Callable[[], None]
    ) -> None:
        self._open = open
        self._close = close
        self._abandon = abandon
        self._claim = threading.Lock()  # two threads may want it at the same time
        self._queue = _Queue()
        self._opening: asyncio.Future[None] | None = None
        self._opener: asyncio.Task[None] | None = None
        self._keeper: AsyncGenerator[None, None] | None = None
        self.lingering = Lingering()
        self.place = Place()

    @property
    def is_open(self) -> bool:
        """Whether it is, or is about to be, in whatever loop."""
        return self._opening is not None

    async def enter(self, *, until_loop_ends: bool) -> None:
        """Open, unless that was done in this loop, and wait for it. With `until_loop_ends` the loop's end closes it.

        Raises what `open` raises, and StorageUnavailable while another running loop has it and keeps it.
        """
        loop = asyncio.get_running_loop()
        opening = self._claimed(loop, until_loop_ends=until_loop_ends)
        if opening is None:
            opening = await self._awaited(loop, until_loop_ends=until_loop_ends)
        await asyncio.shield(opening)

    async def _awaited(self, loop: asyncio.AbstractEventLoop, *, until_loop_ends: bool) -> asyncio.Future[None]:
        """The opening in this loop, as soon as it is its turn."""
        holder, gives_up_at = self.place.loop, loop.time() + PATIENCE
        try:
            while (opening := self._claimed(loop, until_loop_ends=until_loop_ends)) is None:
                if holder is not self.place.loop:  # it goes from hand to hand
                    holder, gives_up_at = self.place.loop, loop.time() + PATIENCE
                elif loop.time() >= gives_up_at:
                    raise StorageUnavailable(
                        "this session belongs to another event loop, which runs in another thread: use it there "
                        "(asyncio.run_coroutine_threadsafe), or end that loop first"
                    )
                await asyncio.sleep(LOOK)
            return opening
        finally:
            with self._claim:
                self._queue.leave(loop)

    async def leave(self) -> None:
        """Close, if it is open."""
        self.lingering.stop()
        if self._opening is not None:
            await self._leave(self._opening)
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.aclose()

    def _claimed(self, loop: asyncio.AbstractEventLoop, *, until_loop_ends: bool) -> asyncio.Future[None] | None:
        """The opening in this loop, which begins here where there is none; None while it is another loop's turn."""
        with self._claim:
            opening, place = self._opening, self.place
            if opening is not None and place.process == os.getpid() and place.loop is not None:
                if place.loop is loop:
                    return opening
                if place.loop.is_running():
                    self._queue.wait(loop)
                    return None
            if not self._queue.is_first(loop):
                self._queue.wait(loop)
                return None
            is_stale = opening is not None  # of a loop that is gone, or of this process's parent
            self._opening = opening = loop.create_future()
            place.loop, place.process = loop, os.getpid()
            self.lingering.forget()
        self._opener = loop.create_task(self._begin(opening, is_stale=is_stale, until_loop_ends=until_loop_ends))
        return opening

    async def _begin(self, opening: asyncio.Future[None], *, is_stale: bool, until_loop_ends: bool) -> None:
        """Tell all who wait. When it cannot be opened, it may be tried again."""
        try:
            if is_stale:
                await asyncio.to_thread(self._abandon)
            await _patiently(self._open)
        except (CoreError, OSError) as error:
            self._fail(opening, error)
            return
        except BaseException:
            self._fail(opening, StorageUnavailable("this session could not be opened"))
            raise
        if until_loop_ends:
            self._keeper = self._keep(opening)
            await anext(self._keeper)
        opening.set_result(None)

    def _fail(self, opening: asyncio.Future[None], error: Exception) -> None:
        self._opening = None
        opening.set_exception(error)
        opening.exception()  # seen, even if no caller waits

    async def _keep(self, opening: asyncio.Future[None]) -> AsyncGenerator[None, None]:
        """Waits for the loop's end, which closes generators (`loop.shutdown_asyncgens`), or to be thrown away with all.

        A task would be told to be "destroyed but pending" where a loop ends without that.
        """
        try:
            yield
        finally:
            await self._leave(opening)

    async def _leave(self, opening: asyncio.Future[None]) -> None:
        if self._opening is not opening:
            return
        self.lingering.stop()
        try:
            await self._close()
        finally:
            if self._opening is opening:
                self._opening = None


async def _patiently(open: Callable[[], Awaitable[None]]) -> None:
    """Open; a session of this process that was forgotten may be about to let go."""
    loop = asyncio.get_running_loop()
    gives_up_at = loop.time() + PATIENCE
    while True:
        try:
            return await open()
        except DatabaseInUse as refusal:
            if not refusal.is_own or loop.time() >= gives_up_at:
                raise
        await asyncio.sleep(LOOK)
