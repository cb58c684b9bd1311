"""Snapshots of tasks, read from their logs within a bound of bytes.

A short log is read whole, on the spot. Of a long one it is decided what is worth reading (`selection`) before anything
of it is read; that is then read, put together and encoded beside the event loop, one at a time for each caller.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from msgspec import Raw
from msgspec.structs import replace

from a2a_server.edge.inflight import SMALL
from a2a_server.edge.limits import Permit
from a2a_server.protocol import types as wire
from a2a_server.protocol.bare import bare_task
from a2a_server.protocol.codec import encode_in_pieces
from a2a_server.protocol.dialect import A2A_1_0, A2ADialect
from a2a_server.protocol.errors import RetryLater
from a2a_server.views.selection import PLACES, SNAPSHOT_BYTES, Selection, last_said, select, select_output
from a2a_server.views.translate import OUTPUT, WHOLE, Shown, event_kinds, is_output, last_word, snapshot
from core.loop.turns import Turns
from core.model.events import KINDS, Recorded
from core.model.node_status import FAILURES
from core.model.task import TaskStatus, TreeHead
from core.session import Session
from core.storage.base import EventPlace, EventQuery, Storage

FEW: Final = 10_000  # events of a log that is read whole
SHORT: Final = 1024 * 1024  # bytes of JSON that it may have
WORD_BYTES: Final = 16 * 1024  # of JSON of what says the status of a bare task, each error of which is shorter
AT_A_TIME: Final = 2  # long logs that are read at a time
MANY: Final = 500  # events from which on they are judged, or told, beside the event loop
MOST_NODES: Final = 100  # of a tree that its root's metadata tells

Made = TypeVar("Made", wire.Task, wire.SendMessageResponse, wire.StreamResponse)
Choice = Callable[[Sequence[EventPlace]], Selection]


class Excerpt(NamedTuple):
    """What is read of a log, and what of it is left out (`selection`)."""

    events: Sequence[Recorded]
    shown: Shown = WHOLE


class Reading(NamedTuple):
    """Who reads a task, and what of it."""

    owner: str
    permit: Permit
    dialect: A2ADialect = A2A_1_0
    history_length: int | None = None
    with_artifacts: bool = True
    with_nodes: bool = False  # a root tells the nodes of its tree
    is_told_anyway: bool = False  # where there is no room for it, the bare task is told


class Told(NamedTuple):
    """The first frame of a stream, which is a task in that state."""

    state: wire.TaskState
    value: wire.StreamResponse | Raw  # JSON, in the stream's dialect, where it is large


class Snapshots:
    """The snapshots of one session's tasks."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turns = Turns(AT_A_TIME, 1)

    async def tell(
        self, head: TreeHead, task_id: str, reading: Reading, shape: Callable[[wire.Task, Sequence[Recorded]], Made]
    ) -> Made | Raw:
        """What `shape` makes of the task at the head's version and of the events that it is made of; JSON if large.

        Raises RateLimited or Overloaded where there is no room for it.
        """
        about = await self._about(head, task_id, with_nodes=reading.with_nodes)

        def made(excerpt: Excerpt) -> Made:
            task = snapshot(
                head,
                task_id,
                excerpt.events,
                history_length=reading.history_length,
                with_artifacts=reading.with_artifacts,
                shown=excerpt.shown,
            )
            return shape(replace(task, metadata=task.metadata | about) if about else task, excerpt.events)

        def encoded(excerpt: Excerpt) -> Raw:
            return Raw(encode_in_pieces(reading.dialect.shape(made(excerpt))))

        excerpt = await self._few(head, task_id, reading)
        if excerpt is not None:
            if len(excerpt.events) < MANY:
                return made(excerpt)
            return await self._session.beside.run(reading.owner, encoded, excerpt)
        async with self._turns.of(reading.owner):
            try:
                excerpt = await self._excerpt(head, task_id, reading)
            except RetryLater:
                if not reading.is_told_anyway:
                    raise
                return shape(await self._bare(head, task_id, about), ())
            return await self._session.beside.run(reading.owner, encoded, excerpt)

    async def task(self, head: TreeHead, task_id: str, reading: Reading) -> wire.Task | Raw:
        """The task itself."""
        return await self.tell(head, task_id, reading, lambda task, _: task)

    async def opening(self, head: TreeHead, task_id: str, reading: Reading) -> Told:
        """The task as the first frame of a stream."""
        state = wire.TaskState.WORKING

        def shape(task: wire.Task, events: Sequence[Recorded]) -> wire.StreamResponse:
            nonlocal state
            state = task.status.state
            return wire.StreamResponse(task=task)

        value = await self.tell(head, task_id, reading, shape)
        return Told(state, value)

    async def said(self, head: TreeHead, task_id: str, reading: Reading) -> wire.Message | None:
        """The message of the task's status."""
        alone = reading._replace(history_length=0, with_artifacts=False)
        excerpt = await self._few(head, task_id, alone) or await self._excerpt(head, task_id, alone)
        task = snapshot(head, task_id, excerpt.events, history_length=0, with_artifacts=False, shown=excerpt.shown)
        return task.status.message

    async def _about(self, head: TreeHead, task_id: str, *, with_nodes: bool) -> dict[str, Any]:
        """What the metadata tells of the task's place in its tree, beside what its events tell."""
        storage = self._session.storage
        if task_id != head.id:
            node = await storage.node(task_id)
            return {} if node is None else {"parentTaskId": node.parent_id}
        if not with_nodes or head.size <= 1:
            return {}
        below = [node for node in await storage.nodes(head.id, MOST_NODES + 1) if node.id != head.id][:MOST_NODES]
        nodes = [{"id": node.id, "name": node.name, "status": node.status.value} for node in below]
        left_out = head.size - 1 - len(nodes)
        return {"nodes": nodes} | ({"nodesLeftOut": left_out} if left_out else {})

    async def _bare(self, head: TreeHead, task_id: str, about: dict[str, Any]) -> wire.Task:
        """The task without what may be large; its status's message where that is short."""
        if task_id == head.id or (task := await self._session.storage.task(task_id)) is None:
            told = snapshot(head, head.id, ())
        else:
            then = replace(head, status=task.status, updated_at=task.updated_at)
            own = {"rootTaskId": head.id, "seq": head.version}
            told = replace(snapshot(then, head.id, ()), id=task_id, metadata=own | about)
        reading = Reading("", Permit(), history_length=0, with_artifacts=False)
        word = await self._excerpt(head, task_id, reading, WORD_BYTES)
        said = snapshot(head, task_id, word.events, history_length=0, with_artifacts=False, shown=word.shown).status
        return bare_task(replace(told, status=replace(told.status, message=said.message)))

    async def _excerpt(self, head: TreeHead, task_id: str, reading: Reading, most: int = SNAPSHOT_BYTES) -> Excerpt:
        """What a snapshot of a long log is made of, for which room is taken; at most so many bytes."""
        is_root = task_id == head.id

        def choose(places: Sequence[EventPlace]) -> Selection:
            return select(
                places,
                task_id,
                status=head.status if is_root else None,
                history_length=reading.history_length,
                with_artifacts=reading.with_artifacts,
                most=most,
            )

        def reserve(selection: Selection) -> None:
            if selection.size > SMALL:
                reading.permit.reserve(selection.size)

        only = None if is_root else task_id
        # Output tells, also where it is not read, whether the status says something.
        wanted = event_kinds(head, task_id, with_artifacts=True, with_history=reading.history_length != 0)
        return await chosen(self._session.storage, head.id, head.version, only, wanted, choose, reserve)

    async def _few(self, head: TreeHead, task_id: str, reading: Reading) -> Excerpt | None:
        """What a snapshot is made of, where that is not much."""
        has_history = reading.history_length != 0
        wanted = event_kinds(head, task_id, with_artifacts=True, with_history=has_history)
        if wanted is not None and (told := self._session.feed.told(head.id, head.version)) is not None:
            return Excerpt([recorded for recorded in told if KINDS[type(recorded.event)] in wanted])
        wanted = event_kinds(head, task_id, with_artifacts=reading.with_artifacts, with_history=has_history)
        only = None if task_id == head.id else task_id
        # As `few` does, without a call more for each task of a list.
        events = await self._session.storage.few_events(
            EventQuery(tree_id=head.id, until=head.version, task_id=only, kinds=wanted, limit=FEW, max_bytes=SHORT)
        )
        if events is None:
            return None
        if not reading.with_artifacts and only is None and head.status.is_terminal and last_word(events, is_over=True):
            return await self._with_output(head, events)
        return Excerpt(events)

    async def _with_output(self, head: TreeHead, events: Sequence[Recorded]) -> Excerpt:
        """The conversation of a tree that is over, and whether output came after its last word."""
        storage = self._session.storage
        places = await storage.event_places(
            EventQuery(tree_id=head.id, until=head.version, kinds=("message_sent", *OUTPUT), limit=FEW)
        )
        said = last_said(places, is_over=True)
        if said:
            found = await storage.events_at(head.id, [place.seq for place in said[:-1]])
            if not any(is_output(recorded.event) for recorded in found):
                return Excerpt(events)
        return Excerpt(events, Shown(word=head.version + 1))


async def few(
    storage: Storage, tree_id: str, until: int, task_id: str | None, kinds: Collection[str] | None
) -> Sequence[Recorded] | None:
    """All events that match, up to that one and in order; None where they are many or large."""
    return await storage.few_events(
        EventQuery(tree_id=tree_id, until=until, task_id=task_id, kinds=kinds, limit=FEW, max_bytes=SHORT)
    )


async def latest(
    storage: Storage, tree_id: str, until: int, task_id: str | None, kinds: Collection[str]
) -> Recorded | None:
    """The latest event that matches, up to that one."""
    places = await storage.event_places(EventQuery(tree_id=tree_id, until=until, task_id=task_id, kinds=kinds, limit=1))
    found = await storage.events_at(tree_id, [place.seq for place in places])
    return found[0] if found else None


async def chosen(
    storage: Storage,
    tree_id: str,
    until: int,
    task_id: str | None,
    kinds: Collection[str] | None,
    choose: Choice,
    reserve: Callable[[Selection], None] | None = None,
) -> Excerpt:
    """The events that are chosen among those that match. `reserve` gets the choice before they are read."""
    while True:
        compacted = await storage.compacted(tree_id)
        places = await storage.event_places(
            EventQuery(tree_id=tree_id, until=until, task_id=task_id, kinds=kinds, limit=PLACES)
        )
        selection = choose(places) if len(places) < MANY else await asyncio.to_thread(choose, places)
        if reserve is not None:
            reserve(selection)
        found = await storage.events_at(tree_id, selection.seqs)
        if await storage.compacted(tree_id) == compacted:  # else what was looked at is not what was read
            return Excerpt(found, selection.shown)


async def tree_errors(storage: Storage, tree_id: str, until: int) -> Sequence[Recorded]:
    """What says why a tree ended there."""
    events = await few(storage, tree_id, until, None, FAILURES)
    if events is not None:
        return events

    def choose(places: Sequence[EventPlace]) -> Selection:
        return select(places, tree_id, status=TaskStatus.FAILED, history_length=0, with_artifacts=False)

    return (await chosen(storage, tree_id, until, None, FAILURES, choose)).events


async def output_events(storage: Storage, tree_id: str, until: int, task_id: str) -> Sequence[Recorded]:
    """What the artifacts of a node are made of."""
    events = await few(storage, tree_id, until, task_id, OUTPUT)
    if events is not None:
        return events
    return (await chosen(storage, tree_id, until, task_id, OUTPUT, select_output)).events
