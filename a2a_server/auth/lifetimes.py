"""A stream lasts no longer than the credential it was opened with."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from a2a_server.auth.principal import Principal
from core.outside.clock import Clock

Item = TypeVar("Item")


_ENDED: Any = object()  # in place of an item: there are no more, or the credential is not good any more


class _Lifetime:
    """Of one open stream: when it ends, and the wait that is to be broken off then."""

    def __init__(self, ends_at: float | None) -> None:
        self.ends_at = ends_at  # on the clock; None: when the stream does
        self.waiting: asyncio.Timeout | None = None

    def left(self, now: float) -> float | None:
        return None if self.ends_at is None else max(0.0, self.ends_at - now)

    def shorten(self, ends_at: float, now: float) -> None:
        if self.ends_at is None or ends_at < self.ends_at:
            self.ends_at = ends_at
            if self.waiting is not None:
                self.waiting.reschedule(asyncio.get_running_loop().time() + max(0.0, ends_at - now))


class Lifetimes:
    """The open streams of callers who have shown a credential."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: defaultdict[str, set[_Lifetime]] = defaultdict(set)  # by the key's id

    def credentials(self) -> list[str]:
        """The ids of the keys that streams are open with."""
        return [credential for credential in self._open if credential]

    def end(self, credential: str, grace: float = 0.0) -> None:
        """End every stream that was opened with this key, after so many seconds at the latest."""
        now = self._clock.now()
        for lifetime in self._open.get(credential, ()):
            lifetime.shorten(now + grace, now)

    async def guarded(self, items: AsyncGenerator[Item, None], principal: Principal) -> AsyncGenerator[Item, None]:
        """The items until the caller's credential ends; a reader with a fresh one resumes where this one stopped."""
        lifetime = _Lifetime(principal.expires_at)
        self._open[principal.credential].add(lifetime)
        try:
            while (item := await self._next(items, lifetime)) is not _ENDED:
                yield item
                del item  # which may be large, and the next one may not come for long
        finally:
            others = self._open[principal.credential]
            others.discard(lifetime)
            if not others:
                del self._open[principal.credential]
            await items.aclose()

    async def _next(self, source: AsyncGenerator[Item, None], lifetime: _Lifetime) -> Item:
        """The next item; _ENDED when there is none, or the credential ends before it comes."""
        left = lifetime.left(self._clock.now())
        if left == 0.0:
            return _ENDED  # type: ignore[no-any-return]
        # Around the wait alone: what the reader does between two items must not be cancelled.
        waiting = asyncio.timeout(left)
        try:
            async with waiting:
                lifetime.waiting = waiting
                return await anext(source, _ENDED)
        except TimeoutError:
            if waiting.expired():
                return _ENDED  # type: ignore[no-any-return]
            raise
        finally:
            lifetime.waiting = None
