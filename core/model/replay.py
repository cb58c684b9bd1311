"""What an executor repeats when it runs again after an answer: its caller saw it before the question. Pure.

An executor that asks is run again from its top. What it says until it is past its last answered question is known
already, if it is the same: messages are compared one by one, an artifact as a whole, since a piece by itself means
nothing. Values are compared by their length and CRC-32.
"""

from typing import Generic, TypeVar
from zlib import crc32

from core.model.task import Told

MOST_TOLD = 1_000  # messages, and artifacts, that are known after an answer; what is beyond is told again

T = TypeVar("T")


def key_of(message: bytes) -> int:
    """By what a message is known."""
    return len(message) << 32 | crc32(message)


class Replay(Generic[T]):
    """What one attempt has still to repeat of what was told before. `T` is a piece of an artifact."""

    def __init__(self, told: Told) -> None:
        self._messages = list(told.messages)
        self._artifacts = dict(told.artifacts)
        self._held: dict[str, list[T]] = {}  # of artifacts that have been the same so far
        self.is_over = False  # past the last answered question: what is said now is new

    def repeats(self, message: int) -> bool:
        """Whether the message was told before; once for each time that it was."""
        if self.is_over or message not in self._messages:
            return False
        self._messages.remove(message)
        return True

    def pieces(self, artifact_id: str, given: tuple[int, int], piece: T) -> list[T]:
        """Which pieces are to be told now that this one is there. `given`: as `Told.artifacts`, with this piece.

        None while they may be what was told before; all from the first one on when they are not.
        """
        before = self._artifacts.get(artifact_id)
        if before is None:
            return [piece]
        held = self._held.setdefault(artifact_id, [])
        held.append(piece)
        if given[0] < before[0]:
            return []
        del self._artifacts[artifact_id], self._held[artifact_id]
        return [] if given == before else held

    def end(self) -> list[T]:
        """It is over: the pieces of artifacts that are shorter now than they were, to be told as they are now."""
        self.is_over = True
        rest = [piece for held in self._held.values() for piece in held]
        self._messages, self._artifacts, self._held = [], {}, {}
        return rest

    def left(self) -> Told:
        """What was told before and has not been repeated."""
        return Told() if self.is_over else Told(tuple(self._messages), self._artifacts)


def told(messages: list[int], artifacts: dict[str, tuple[int, int]], left: Told | None) -> Told:
    """What is to be known after the next answer: what the attempt said, and what was left to repeat."""
    if left is not None:
        messages, artifacts = [*messages, *left.messages], artifacts | left.artifacts
    return Told(tuple(messages[:MOST_TOLD]), dict(list(artifacts.items())[:MOST_TOLD]))
