"""A stream over one connection after the other: where one breaks, the next one resumes it."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import httpx2

from a2a_server.cli.answers import Frame
from a2a_server.cli.output import Failure, say

RECONNECTS = 14  # in a row, without an event in between: 53 seconds
FIRST_RECONNECTS = 5  # while nothing has answered there yet: 6 seconds
MAX_PAUSE = 5.0  # seconds between two of them


@dataclass(slots=True)
class Cursor:
    """How far a stream was read: the task, the number of the last event, whether that may or does end it."""

    task_id: str = ""
    after: int = 0
    may_end: bool = False
    has_ended: bool = False


def _to_the_end(frames: Iterator[Frame], cursor: Cursor) -> Iterator[Frame]:
    """The frames up to the one with which, as the reader of each finds, the stream has ended."""
    for frame in frames:
        yield frame
        if cursor.has_ended:
            return


@dataclass(frozen=True, slots=True)
class Resumption:
    """How lost connections are replaced: how to wait in between, and how the user is told."""

    pause: Callable[[float], None] = time.sleep
    notice: Callable[[str], None] = say

    def frames(
        self,
        url: str,
        connect: Callable[[], Iterator[Frame]],
        cursor: Cursor,
        reason: Callable[[httpx2.HTTPError], str | None],
        *,
        is_known: bool,
    ) -> Generator[Frame, None, None]:
        """The frames of all connections, until the cursor has ended.

        `is_known`: the server has answered before, so it is waited for when it is away; else `reason` says why it will
        not answer. Raises Failure.
        """
        broken = 0
        while True:
            try:
                for frame in _to_the_end(connect(), cursor):
                    broken, is_known = 0, True
                    yield frame
                if cursor.has_ended or cursor.may_end:
                    return
                why = "the stream ended early"
            except httpx2.HTTPError as error:
                if not is_known and (told := reason(error)) is not None:
                    raise Failure(told) from error
                why = str(error) or type(error).__name__
            broken += 1
            if broken == 1:
                self.notice(f"lost the server at {url} ({why}); reconnecting")
            if broken > FIRST_RECONNECTS and not is_known:
                raise Failure(f"what listens at {url} does not answer as a web server ({why}); check the address")
            if broken > RECONNECTS:
                raise Failure(f"lost the server at {url}: {why}; the tasks resume when it is back")
            self.pause(min(MAX_PAUSE, 0.1 * 2**broken))
