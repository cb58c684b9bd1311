"""Hints by LISTEN and NOTIFY.

A NOTIFY wakes every member of the database. So hints are gathered, and of those trees only a version is told that
somebody follows elsewhere.
"""

import asyncio
import uuid
from collections.abc import Callable

from core.cluster.bus import DELETED, INTEREST, NEWLY, VERSION, Heard, HintValue
from core.cluster.interest import KEPT, Interest
from core.cluster.postgres.hints import Hint, Waiting, read_notice
from core.cluster.postgres.line import ECHO, LOOK, Line
from core.loop.jobs import Jobs
from core.storage.postgres.connect import Place

GAP = 0.002  # seconds between two NOTIFYs, in which hints gather


class Outgoing:
    """Sends the hints of one member over a line, gathered."""

    def __init__(self, line: Line, sender: str) -> None:
        self._line = line
        self._waiting = Waiting(sender)
        self._is_sending = False
        self.jobs = Jobs()

    def add(self, hint: Hint) -> None:
        """It is sent soon, or when the line is there again."""
        self._waiting.add(hint)
        self.send_soon()

    def send_soon(self) -> None:
        """Send what waits, if there is a line."""
        if not self._is_sending and self._line.is_up:
            self._is_sending = True
            self.jobs.start(self._send())

    async def _send(self) -> None:
        """One NOTIFY after the other, until nothing waits. One that is under way when the line is lost may be, too."""
        try:
            while len(self._waiting) and self._line.is_up:
                if payload := self._waiting.take():
                    await self._line.notify(payload)
                await asyncio.sleep(GAP)
        finally:
            self._is_sending = False


class PostgresBus:
    """`core.cluster.bus.Bus` in a database of PostgreSQL. `look`, `echo` and `kept` (of interest) are seconds."""

    is_alone = False

    def __init__(self, url: str, *, look: float = LOOK, echo: float = ECHO, kept: float = KEPT) -> None:
        self._place = Place(url)
        self._look = look
        self._echo = echo
        self._kept = kept
        self._heard: dict[str, Heard] = {INTEREST: self._interest_said}
        self._returned: Callable[[], None] | None = None
        self._line: Line | None = None
        self._outgoing: Outgoing | None = None
        self._interest = Interest(kept)

    async def open(self) -> None:
        self._id = uuid.uuid4().hex
        self._interest = Interest(self._kept)
        self._loop = asyncio.get_running_loop()
        line = Line(self._place, self._hear, self._come_back, look=self._look, echo=self._echo)
        await line.open()
        self._line, self._outgoing = line, Outgoing(line, self._id)

    def abandon(self) -> None:
        line, self._line, self._outgoing = self._line, None, None
        if line is not None:
            line.abandon()

    async def close(self) -> None:
        line, self._line = self._line, None
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            await outgoing.jobs.cancel()
        if line is not None:
            await line.close()

    def on(self, kind: str, heard: Heard) -> None:
        self._heard[kind] = heard

    def on_return(self, returned: Callable[[], None]) -> None:
        self._returned = returned

    def hint(self, kind: str, key: str, value: HintValue = None) -> None:
        if self._outgoing is not None:
            self._outgoing.add(Hint(kind, key, value))

    def changed(self, tree_id: str, version: int) -> None:
        if self._line is not None and self._interest.changed(tree_id, version, self._loop.time()):
            self.hint(VERSION, tree_id, version)

    def deleted(self, tree_id: str) -> None:
        if self._line is not None and self._interest.deleted(tree_id, self._loop.time()):
            self.hint(DELETED, tree_id)

    def _interest_said(self, tree_id: str, value: HintValue) -> None:
        """Somebody follows the tree: what was committed a moment before that was heard is told at once."""
        version = self._interest.said(tree_id, self._loop.time())
        if version is not None and value == NEWLY:
            self.hint(VERSION, tree_id, version)

    def _hear(self, payload: str) -> None:
        notice = read_notice(payload)
        if notice is None or notice.sender == self._id:
            return
        for kind, key, value in notice.hints:
            if (heard := self._heard.get(kind)) is not None:
                heard(key, value)

    def _come_back(self) -> None:
        if self._outgoing is not None:
            self._outgoing.send_soon()
        if self._returned is not None:
            self._returned()
