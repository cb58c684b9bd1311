"""Whether the server is overloaded, and which calls it accepts even then.

Its load is what waits for the server itself: calls from their last byte until they are answered or wait for an
executor, and runs that have just begun. A call that waits for an executor is no load, however many there are.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic
from typing import Final

import msgspec
from msgspec import Struct

from a2a_server.protocol.errors import RETRY_AFTER
from core.model import events as e
from core.model.events import Recorded
from core.model.task import TreeHead

REFUSED: Final = "a2a_server.refused"  # in the scope of a request that is to be refused
TAKEN: Final = "a2a_server.taken"  # in the scope: what to call when the request waits for others than the server
CALL: Final = 10.0  # seconds that a call counts: what takes longer waits for something else
RUN: Final = 1.0  # seconds that a run counts: then its executors have it
WANTED: Final = 2.0  # seconds after which a refused caller is forgotten: longer than its Retry-After
EARLY: Final = 1 / 3  # of the soft threshold: below it, lately, a client that retries too early is accepted
LATELY: Final = 0.1  # seconds: longer than a commit and its answers take
PROBES: Final = ("/healthz", "/readyz")  # asked by address, and they tell nothing
REST: Final = 0.001  # seconds, for each that was refused of late: some fifteen times what a refusal costs


class CallKind(IntEnum):
    """What a call asks for; the largest of a batch's is the batch's."""

    EXEMPT = 0  # frees something, or tells whether the server lives: never refused
    OTHER = 1  # refused at the hard threshold of calls in flight
    WORK = 2  # may store and start new work: under overload refused from the soft threshold on


class _Envelope(Struct):
    method: str = ""
    id: str | int | None = None


_read = msgspec.json.Decoder(_Envelope | list[_Envelope]).decode


class Classifier:
    """Classifies a call before it is taken: by the method that its body names, or by its path.

    `methods`: those of JSON-RPC, by name. `posts`: what a POST to a path of HTTP+JSON asks for, by the path's end.
    """

    def __init__(self, methods: Mapping[str, CallKind], posts: Mapping[str, CallKind]) -> None:
        self._methods = methods
        self._posts = posts

    def of_body(self, body: bytes | bytearray) -> tuple[CallKind, str | int | None]:
        """What a JSON-RPC body asks for, and the id of its request; what cannot be told counts as work."""
        try:
            envelope = _read(body)
        except (ValueError, RecursionError):
            return CallKind.WORK, None
        if isinstance(envelope, list):
            return max(
                (self._methods.get(each.method, CallKind.OTHER) for each in envelope), default=CallKind.OTHER
            ), None
        return self._methods.get(envelope.method, CallKind.OTHER), envelope.id

    def of_path(self, verb: str, path: str) -> CallKind | None:
        """What a request asks for by its path; None where only the body tells."""
        if path.endswith(PROBES):
            return CallKind.EXEMPT
        if verb != "POST":
            return CallKind.OTHER
        return next((kind for end, kind in self._posts.items() if path.endswith(end)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """At `hard` calls in flight or recently refused, new work is held to `soft` until they are fewer.

    So a burst is served in full, and a flood as far as answers stay quick.
    """

    soft: int
    hard: int


class _Young:
    """Things that have begun of late and not ended."""

    def __init__(self, age: float, now: Callable[[], float]) -> None:
        self._age = age
        self._now = now
        self._begun: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        until = self._now() - self._age
        while self._begun and next(iter(self._begun.values())) <= until:
            self._begun.popitem(last=False)
        return len(self._begun)

    def begin(self, key: Hashable) -> None:
        self._begun.pop(key, None)
        self._begun[key] = self._now()

    def end(self, key: Hashable) -> None:
        self._begun.pop(key, None)


class Load:
    """What one server has to do at the moment, and what it was asked for besides."""

    def __init__(self, thresholds: Thresholds, classifier: Classifier, now: Callable[[], float] = monotonic) -> None:
        self.classifier = classifier
        self._thresholds = thresholds
        self._calls = _Young(CALL, now)
        self._runs = _Young(RUN, now)
        self._rejected = _Young(WANTED, now)
        self._now = now
        self._peak_now = self._peak_before = 0  # in the interval that ends then, and in the one before
        self._peak_until = 0.0

    # What there is to do

    def begin(self, call: Hashable) -> None:
        """A call is taken, and all of it is there."""
        self._calls.begin(call)
        self._rejected.end(call)
        self._peak()

    def end(self, call: Hashable) -> None:
        """It is answered, or waits for others, or its caller is gone."""
        self._calls.end(call)

    def reject(self, call: Hashable) -> float:
        """It is refused. Returns the seconds for which nothing more is read from there.

        The more are refused the longer, so that all refusals together take a tenth of the time.
        """
        self._rejected.begin(call)
        return min(RETRY_AFTER, REST * len(self._rejected))

    def committed(self, head: TreeHead, events: Sequence[Recorded]) -> None:
        """A watcher of the feed: what a call has begun goes on when the call only waits, or is answered."""
        for recorded in events:
            if isinstance(recorded.event, e.RunStarted):
                self._runs.begin(head.id)
            elif isinstance(recorded.event, e.TreeFinished):
                self._runs.end(head.id)

    @property
    def busy(self) -> int:
        """How much waits for the server."""
        return len(self._calls) + len(self._runs)

    def _peak(self) -> int:
        """The most that has waited for the server of late."""
        now = self._now()
        if now >= self._peak_until:
            self._peak_before = self._peak_now if now < self._peak_until + LATELY else 0
            self._peak_now, self._peak_until = 0, now + LATELY
        self._peak_now = max(self._peak_now, self.busy)
        return max(self._peak_now, self._peak_before)

    # Whether that is too much

    def is_pressed(self, *, early: bool) -> bool:
        """Whether anything is refused. `early`: for a client that was refused and retries before Retry-After.

        It gets what the others leave: a place that is free for a moment, because a commit has answered many at once,
        is theirs.
        """
        busy = self.busy
        soft = self._thresholds.soft
        is_full = self._peak() >= soft * EARLY if early else busy >= soft
        return is_full and busy + len(self._rejected) >= self._thresholds.hard

    def refuses(self, kind: CallKind, *, early: bool = False) -> bool:
        """Whether such a call is one too many."""
        if kind is CallKind.WORK:
            return self.is_pressed(early=early)
        return kind is CallKind.OTHER and self.busy >= self._thresholds.hard
