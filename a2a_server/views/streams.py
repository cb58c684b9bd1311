"""Streams of a tree's log, in every dialect. A follower reads the log from a cursor of its own."""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, cast

from msgspec import Raw

from a2a_server.bindings.jsonrpc import Frame
from a2a_server.edge.inflight import SMALL
from a2a_server.edge.limits import Permit
from a2a_server.protocol import types as wire
from a2a_server.protocol.bare import bare_task
from a2a_server.protocol.codec import encode
from a2a_server.protocol.errors import RetryLater
from a2a_server.protocol.states import STATUSES
from a2a_server.views.frames import EventFrames, View
from a2a_server.views.snapshots import Reading, Snapshots, Told
from core.model import events as e
from core.model.errors import LogCompacted, TaskNotFound
from core.model.events import Recorded
from core.model.node_status import node_status
from core.model.streaming import compacted_event
from core.model.task import TaskStatus, TreeHead
from core.run.log_page import log_page
from core.session import Session, has_ended

PAGE = 500
ENVELOPE = 1024  # bytes around a frame, at most

STREAM_END = Raw(b'{"type":"stream_end"}')


class Streams:
    """The streams of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._frames = EventFrames(session.storage, session.beside)
        self.snapshots = Snapshots(session)

    async def a2a(
        self, head: TreeHead, view: View, after: int, *, first: Told | None, until_input: bool, permit: Permit
    ) -> AsyncGenerator[Frame, None]:
        """A2A frames after that event, to the end of the task, and with `until_input` to a question at the latest.

        `first` is the snapshot at `after` that opens the stream; None where a broken stream resumes. `permit` is
        that of the stream's caller.
        """
        if first is not None:
            state, opening = first.state, [_opening(first, view, permit)]
            first = None  # with its messages it may be large, and the stream may last
            yield Frame(opening.pop(), after)
            if STATUSES[state].is_terminal:
                return
            if until_input and state is wire.TaskState.INPUT_REQUIRED:
                return
        try:
            async with aclosing(self._log(head, after)) as log:
                async for recorded, _ in log:
                    closes = _ends(recorded, view) or (
                        until_input and recorded.tree_status is TaskStatus.INPUT_REQUIRED
                    )
                    frames, seq = await self._frames.a2a(recorded, view, closes), recorded.seq
                    del recorded  # it may be large, and the next one may not come for long
                    for frame in frames[:-1]:
                        yield Frame(Raw(frame))
                    if frames:
                        # Only the last of an event's frames has its number: whoever has seen that has seen them all.
                        yield Frame(Raw(frames[-1]), seq)
                    frames, frame = (), b""
                    if closes:
                        return
        except LogCompacted:
            now = await self._head(view.tree_id)
            task = await self.snapshots.opening(now, view.task_id, Reading(now.owner, permit, view.dialect))
        else:
            return
        # In place of the events that are compacted: the task as they left it.
        following = self.a2a(now, view, now.version, first=task, until_input=until_input, permit=permit)
        del task
        async with aclosing(following) as rest:
            async for frame_of_rest in rest:
                yield frame_of_rest
                del frame_of_rest

    async def tasks(self, head: TreeHead, view: View, after: int, *, first: Any = None) -> AsyncGenerator[Frame, None]:
        """Frames of the `tasks.*` dialect after that event; `first` is the result of the call that opens the stream."""
        if first is not None:
            yield Frame(first)
        is_over = has_ended(head) and after >= head.version
        try:
            async with aclosing(self._log(head, after)) as log:
                async for recorded, is_last in log:
                    is_over = is_last
                    frames = await self._frames.tasks(recorded) if _is_told(recorded, view) else ()
                    seq = recorded.seq
                    del recorded
                    for frame in frames:
                        yield Frame(Raw(frame), seq, is_response=False)
                    frames, frame = (), b""
        except LogCompacted as gap:
            compacted = compacted_event(await self._head(view.tree_id), gap.until)
            yield Frame(Raw(encode(compacted)), gap.until, is_response=False)
            async with aclosing(self.tasks(head, view, gap.until)) as rest:
                async for frame_of_rest in rest:
                    yield frame_of_rest
            return
        if is_over:
            yield Frame(STREAM_END, is_response=False)

    async def peek_reply(self, tree_id: str, after: int) -> Recorded | None:
        """The direct reply, when that is the first thing the tree's executor says; waits until it says something."""
        with suppress(LogCompacted):
            async with aclosing(self._follow(tree_id, after)) as log:
                async for recorded in log:
                    match recorded.event:
                        case e.MessageSent() as said:
                            return recorded if said.is_reply else None
                        case e.RunStarted() | e.TaskStarted() | e.MessageReceived():
                            continue
                        case _:
                            return None
        return None

    async def until_settled(self, head: TreeHead, task_id: str) -> None:
        """Wait until that node has ended or asks, or its tree has ended, or the server stops."""
        view = View(head.id, task_id, "")
        with suppress(LogCompacted):  # it has ended
            async with aclosing(self._log(head, head.version)) as log:
                async for recorded, _ in log:
                    asks = recorded.task_id == task_id and isinstance(recorded.event, e.InputRequested)
                    if asks or _ends(recorded, view):
                        return

    async def _log(self, head: TreeHead, after: int) -> AsyncGenerator[tuple[Recorded, bool], None]:
        """The tree's events after that one, each with whether it is the last of the latest run.

        Of a tree at rest what is there; of a live or pending tree everything up to the end of its run, or, when the
        server stops, up to there. Raises LogCompacted where an event is no longer stored.
        """
        if has_ended(head):
            while after < head.version:
                page = await log_page(self._session.storage, head.id, after, until=head.version, limit=PAGE)
                if not page:
                    raise TaskNotFound(head.id)  # it was deleted meanwhile
                after = page[-1].seq
                rest = deque(page)
                del page
                while rest:
                    yield rest[0], rest.popleft().seq == head.version
            return
        async with aclosing(self._follow(head.id, after)) as events:
            async for recorded in events:
                # One with a lower number ended an earlier run.
                is_last = isinstance(recorded.event, e.TreeFinished) and recorded.seq > head.version
                yield recorded, is_last
                del recorded
                if is_last:
                    return

    def _follow(self, tree_id: str, after: int) -> AsyncGenerator[Recorded, None]:
        return cast("AsyncGenerator[Recorded, None]", self._session.follow(tree_id, after))

    async def _head(self, tree_id: str) -> TreeHead:
        head = await self._session.storage.head(tree_id)
        if head is None:
            raise TaskNotFound(tree_id)
        return head


def _is_told(recorded: Recorded, view: View) -> bool:
    """Whether a stream of that view tells the event."""
    return view.is_root or recorded.task_id == view.task_id or isinstance(recorded.event, e.TreeFinished)


def _ends(recorded: Recorded, view: View) -> bool:
    """Whether nothing can come after this event for the task whose stream it is."""
    if isinstance(recorded.event, e.TreeFinished):
        return True
    if view.is_root or recorded.task_id != view.task_id:
        return False
    status = node_status(recorded.event)
    return status is not None and status.is_terminal


def _opening(first: Told, view: View, permit: Permit) -> Raw:
    """The first frame, for which there is room; else the bare task, so that its id is known."""
    if isinstance(first.value, Raw):
        return first.value
    opening = Raw(view.dialect.event(first.value, False))
    if len(opening) > SMALL:
        try:
            permit.hold(2 * (len(opening) + ENVELOPE))
        except RetryLater:
            assert first.value.task is not None, "a stream opens with a task"
            return Raw(view.dialect.event(wire.StreamResponse(task=bare_task(first.value.task)), False))
    return opening
