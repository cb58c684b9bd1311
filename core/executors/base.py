"""What an executor is, and what it sees of the task that it runs."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from itertools import chain, islice, repeat
from typing import Any, Protocol
from zlib import crc32

import msgspec
from msgspec.structs import replace

from core.executors.family import Family
from core.executors.files import encoded, read_file
from core.loop import large_values
from core.loop.beside import Beside
from core.loop.large_values import CHARACTERS, is_small, measured_in_pieces
from core.model.commands import AddArtifact, Command, ReportProgress, SendMessage
from core.model.content import Artifact, Part, Said
from core.model.content_json import message_object, part_object, part_of, parts_of
from core.model.errors import CallerError, ConfigurationError, StorageError
from core.model.jsonvalue import MAX_BYTES, MAX_OUTPUT, copied, to_json_value
from core.model.replay import Replay, key_of, told
from core.model.task import Task, Told
from core.outside.egress import Egress, EgressPolicy
from core.outside.fetched import Room

_OWN = ("inputs", "schemas", "params", "answers")  # what of a task an executor gets as a copy
MAX_UNSTORED = 64  # pieces of it that may be on their way to the disk
MAX_UNSTORED_SIZE = 1024 * 1024  # bytes of them; a larger one goes alone
_MESSAGES = tuple[Said | None, ...]

Piece = tuple[AddArtifact, int]  # of an artifact, and its bytes of JSON


class OutputRefused(CallerError):
    """An executor's artifact breaks a rule: it adds to one that is not there, or is too much."""


class Executor(Protocol):
    """The code that runs a task. A fresh one is made for each attempt.

    It may also have `cancel()` (plain or async), which is called when its attempt is to stop.
    """

    async def execute(self, inputs: dict[str, Any], context: "TaskContext") -> Any:
        """Do the work and return a JSON value. Raise to fail the task: the exception's text becomes its error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSpec:
    """What is known of an executor without running it."""

    id: str
    make: Callable[[], Executor]
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    input_schema: Mapping[str, Any] | None = None  # JSON Schema 2020-12, checked before the task runs
    output_schema: Mapping[str, Any] | None = None  # checked when it has run
    input_modes: tuple[str, ...] = ("application/json", "text/plain")
    output_modes: tuple[str, ...] = ("application/json", "text/plain")
    cancelable: bool = True  # whether a running attempt may be interrupted
    at_most_once: bool = False  # never run a second time when it may have run
    has_effects: bool = True  # else an attempt may begin before its start is stored, and be forgotten (decision 0002)
    concurrency: int | None = None  # running attempts in the process; None: no limit of its own
    uses_process: bool = False  # counts against the process-wide limit of child processes
    uses_thread: bool = False  # counts against that of threads
    is_skill: bool = True  # whether A2A callers may name it

    def __post_init__(self) -> None:
        if self.at_most_once and not self.has_effects:
            raise ConfigurationError(f"executor {self.id!r}: at_most_once is only for executors with effects")


QUOTA_USED_UP = "this caller's tasks use the whole storage quota (max_stored_per_caller); delete tasks"


class Rejected(Exception):
    """Raised by an executor that declines its task; the text is the reason its caller sees."""


class Suspend(BaseException):
    """Ends an attempt with a question. Not an Exception, so that an executor's own handlers let it pass."""

    def __init__(
        self,
        parts: tuple[Part, ...],
        *,
        auth: bool,
        key: str,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> None:
        self.parts = parts
        self.auth = auth
        self.key = key
        self.metadata = metadata or {}
        self.extensions = tuple(extensions)
        super().__init__("waiting for an answer")


class Parts(list[dict[str, Any]]):
    """A result that already is a list of A2A parts, such as `Parts([{"text": "hello"}])`.

    A file's `raw` may be bytes: `Parts([{"raw": b"...", "filename": "a.png", "mediaType": "image/png"}])`.
    """


def _text(value: Any, what: str, limit: int) -> str:
    """The value, if it is text that can be stored. Raises TypeError, or NotJson for text that is not valid Unicode."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be text, not {type(value).__name__}")
    return str(to_json_value(value, what, limit))


@dataclass(slots=True, kw_only=True)
class TaskContext:
    """An executor's view of its task, and its voice. Made by the runner for one attempt."""

    stored_task: Task  # what is stored, in these three, is only for reading; executors get copies
    stored_results: Mapping[str, Any]
    stored_request: Mapping[str, Any]
    run: int
    absent: tuple[str, ...] = ()  # id, or reference, of each optional dependency that did not complete
    context_id: str | None
    due_at: float | None = None  # seconds since 1970
    report: Callable[[str, Command], Awaitable[object]]  # to the tree; done when stored; raises StaleAttempt
    submit: Callable[[str, Command], Awaitable[asyncio.Future[None]]]  # done when on its way; then: when stored
    at_most_once: bool = False
    max_artifact: int = MAX_BYTES  # bytes of JSON of an artifact, a message, a question or the result
    max_output: int = MAX_OUTPUT  # bytes of JSON of all its artifacts
    make_room: Callable[[str], Room] | None = None  # in memory, for what an owner's task fetches
    egress: Egress = field(default_factory=lambda: Egress(EgressPolicy()))
    is_full: Callable[[str], bool] = lambda owner: False  # whether the owner's quota of stored bytes is used up
    family: Family = field(default_factory=Family)  # of the child processes that it starts
    beside: Beside = field(default_factory=Beside)  # where what is large is judged
    stopping: bool = False
    asked_to_stop: str | None = None  # why, where it cannot be interrupted; '' for no reason
    job: asyncio.Task[Any] | None = None  # the attempt's own; others are those that its executor started
    questions: list[Suspend] = field(default_factory=list)  # that it has asked, without an answer yet
    replay: "Replay[Piece] | None" = None  # what it says again, when it has asked before
    left: asyncio.Future[Any] | None = None  # what goes on when its attempt has been interrupted: its thread
    cancel_metadata: Mapping[str, Any] = field(default_factory=dict)  # what came with the cancel that stops it
    _answered_last: int = -1  # the place of the answer that `ask` gave last
    _answers: OrderedDict[int, str] | None = None  # place of each answer that was not taken yet -> its question's key
    _spoke: bool = False
    _given: int = 0  # bytes of JSON of its artifacts so far
    _messages: list[int] = field(default_factory=list)  # the keys of those that it said
    _artifacts: dict[str, tuple[int, int]] = field(default_factory=dict)  # id -> number and CRC of its pieces so far
    _unstored: deque[tuple[asyncio.Future[None], int]] = field(default_factory=deque)  # pieces on their way, sizes
    _unstored_size: int = 0
    _room: Room | None = None
    _lost: StorageError | None = None  # why a piece could not be stored
    _task: Task | None = None
    _dependencies: Mapping[str, Any] | None = None
    _request: Mapping[str, Any] | None = None

    @property
    def task(self) -> Task:
        """The task as it was when the attempt began; a copy of its own."""
        if self._task is None:
            task = self.stored_task
            own = {name: copied(getattr(task, name)) for name in _OWN}
            if task.answer_messages:
                own["answer_messages"] = msgspec.convert(copied(task.answer_messages), _MESSAGES)
            self._task = replace(task, **own)
        return self._task

    @property
    def dependencies(self) -> Mapping[str, Any]:
        """Id, or reference, of each completed dependency -> its result; a copy of its own."""
        if self._dependencies is None:
            self._dependencies = copied(self.stored_results)
        return self._dependencies

    @property
    def request(self) -> Mapping[str, Any]:
        """What came with the tree: `message`, `metadata` of an A2A request; a copy of its own."""
        if self._request is None:
            self._request = copied(self.stored_request)
        return self._request

    @property
    def extensions(self) -> tuple[str, ...]:
        """The A2A extensions that the request which this attempt serves activated: named by its caller and in the card.

        That is the request which brought the latest answer, else the one that began the tree. An answer that came by
        no A2A request changes nothing.
        """
        activated = self.stored_task.extensions
        return tuple(self.stored_request.get("extensions", ())) if activated is None else activated

    @property
    def answer_message(self) -> dict[str, Any] | None:
        """The A2A message that brought the answer which `ask` gave last, with its metadata and extensions.

        None before the first one, and where the answer came without a message (`tasks.answer`, the Python API).
        """
        messages = self.task.answer_messages
        said = messages[self._answered_last] if 0 <= self._answered_last < len(messages) else None
        return None if said is None else message_object(said)

    @property
    def task_id(self) -> str:
        return self.stored_task.id

    @property
    def room(self) -> Room | None:
        """What pays for the memory of what this attempt fetches and copies; None where nothing has to."""
        if self._room is None and self.make_room is not None:
            self._room = self.make_room(self.stored_task.owner)
        return self._room

    def leave_room(self, taken: int = 0) -> None:
        """Keep so many bytes of memory for what was fetched, at most, and none for copies of values."""
        if self._room is not None:
            self._room.drop_copies()
            self._room.shrink(taken)

    @property
    def deadline(self) -> datetime | None:
        """When the task must have ended: the earliest of its deadline, its groups' and the ends of their timeouts."""
        return None if self.due_at is None else datetime.fromtimestamp(self.due_at, UTC)

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.stored_task.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of one run, also after a crash: hand it to whatever has an outside effect."""
        return f"{self.stored_task.id}:{self.run}"

    @property
    def cancelled(self) -> bool:
        """Whether this attempt is to stop. What cannot be interrupted, such as a thread, looks here now and then."""
        return self.stopping or self.asked_to_stop is not None

    async def is_cancelled(self) -> bool:
        """`cancelled`, for a function in another process."""
        return self.cancelled

    async def progress(self, fraction: float, message: str | None = None) -> None:
        """Tell how far the task is: 0 to 1 (values outside are cut)."""
        fraction = float(fraction)
        if math.isnan(fraction):
            raise ValueError("the fraction is not a number")
        fraction = min(1.0, max(0.0, fraction))
        message = None if message is None else _text(message, "message", self.max_artifact)
        if self.replay is not None and not self.replay.is_over and fraction <= self.stored_task.progress:
            return  # it was told before the question
        await self.report(self.stored_task.tree_id, ReportProgress(self.task_id, self.attempt, fraction, message))

    async def message(
        self, content: Any, *, metadata: dict[str, Any] | None = None, extensions: Sequence[str] = ()
    ) -> None:
        """Say something to the caller: text, `Parts`, or a JSON value. It becomes the task's status message.

        `extensions`: the URIs of those that the message uses; their data stands in `metadata` (A2A §4.6). What was
        said before a question is not told again when the executor runs again with the answer.
        """
        await self._say(SendMessage(self.task_id, self.attempt, await self._message(content, metadata, extensions)))

    async def reply(
        self, content: Any, *, metadata: dict[str, Any] | None = None, extensions: Sequence[str] = ()
    ) -> None:
        """Answer an A2A caller with a direct Message in place of a Task. Raises CallerError once anything was said."""
        if self._spoke:
            raise CallerError("reply() must come first: this task has already sent something")
        said = await self._message(content, metadata, extensions)
        await self._say(SendMessage(self.task_id, self.attempt, said, True))

    async def artifact(
        self,
        content: Any,
        *,
        append: bool | None = None,
        last_chunk: bool = False,
        artifact_id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> None:
        """Give a piece of the output: text, `Parts`, or a JSON value.

        Pieces with the same `artifact_id` (default: the task's) are appended to each other, unless `append` is False.
        A piece may still be on its way to the disk when this returns, so that many share one write. No reader sees it
        before it is stored, and the task ends only when all pieces are. Raises OutputRefused for an `append` to a
        missing artifact, and beyond what one attempt may give; StorageError once an earlier piece could not be stored.
        """
        self._spoke = True
        # A short text, as most pieces are, costs no call more.
        is_short = content.__class__ is str and len(content) <= CHARACTERS
        parts = self._parts(content) if is_short else await self._parts_beside(content)
        task = self.stored_task
        artifact_id = task.id if artifact_id is None else _text(artifact_id, "artifact_id", self.max_artifact)
        artifact = Artifact(
            artifact_id=artifact_id,
            parts=parts,
            name=task.name if name is None else _text(name, "name", self.max_artifact),
            description=None if description is None else _text(description, "description", self.max_artifact),
            **({} if metadata is None and extensions == () else self._marks(metadata, extensions)),
        )
        is_quick = (is_short and metadata is None) or is_small(artifact)
        data = msgspec.json.encode(artifact) if is_quick else await self._encoded_beside(artifact)
        size = len(data)
        # From here on nothing else gives anything meanwhile.
        appends = artifact_id in self._artifacts if append is None else append
        # A later attempt may go on with what an earlier one gave.
        if appends and artifact_id not in self._artifacts and task.attempt == 1:
            raise OutputRefused(f"there is no artifact {artifact_id!r} to append to")
        if self._given + size > self.max_output:
            raise OutputRefused(f"the artifacts of this attempt have more than {self.max_output} bytes of JSON")
        if self.is_full(task.owner):
            raise OutputRefused(QUOTA_USED_UP)
        self._given += size
        count, crc = self._artifacts.get(artifact_id, (0, 0))
        self._artifacts[artifact_id] = given = (count + 1, crc32(data, crc ^ (2 * appends + last_chunk)))
        piece = (AddArtifact(task.id, task.attempt, artifact, appends, last_chunk), size)
        await self._give([piece] if self.replay is None else self._unrepeated(artifact_id, given, piece))

    def _marks(self, metadata: dict[str, Any] | None, extensions: Sequence[str]) -> dict[str, Any]:
        """What stands beside the parts, checked; what is empty is left out."""
        marks: dict[str, Any] = {}
        if metadata is not None:
            if not isinstance(metadata, dict):
                raise TypeError("metadata must be a dict")
            marks["metadata"] = to_json_value(metadata, "metadata", self.max_artifact)
        if isinstance(extensions, str):
            raise TypeError("extensions must be a list of URIs, not text")
        if extensions:
            marks["extensions"] = tuple(_text(uri, "extensions", self.max_artifact) for uri in extensions)
        return marks

    def _parts(self, content: Any) -> tuple[Part, ...]:
        """What the executor gives, as parts. Raises NotJson for what is no JSON value, or too large."""
        if isinstance(content, Parts):
            return tuple(map(part_of, to_json_value(encoded(content), "content", self.max_artifact)))
        return parts_of(to_json_value(content, "content", self.max_artifact))

    async def _parts_beside(self, content: Any) -> tuple[Part, ...]:
        """The same; what is large is judged beside the event loop."""
        if is_small(content):
            return self._parts(content)
        are_parts = isinstance(content, Parts)
        value, _ = await self.beside.run(
            self.stored_task.owner,
            measured_in_pieces,
            encoded(content) if are_parts else content,
            "content",
            self.max_artifact,
        )
        return tuple(map(part_of, value)) if are_parts else parts_of(value)

    async def _encoded_beside(self, told: Artifact | Said) -> bytes:
        return await self.beside.run(self.stored_task.owner, large_values.encoded, told)

    async def _message(self, content: Any, metadata: dict[str, Any] | None, extensions: Sequence[str]) -> Said:
        return Said(await self._parts_beside(content), **self._marks(metadata, extensions))

    async def _say(self, said: SendMessage) -> None:
        self._spoke = True
        message = said.message
        is_quick = is_small(message)
        data = msgspec.json.encode(message) if is_quick else await self._encoded_beside(message)
        key = key_of(data)
        self._messages.append(key)
        if self.replay is None or not self.replay.repeats(key):
            await self.report(self.stored_task.tree_id, said)

    async def _give(self, pieces: Sequence[Piece]) -> None:
        """Send the pieces to the disk, as far as there is room on the way."""
        for piece, size in pieces:
            await self._settle(MAX_UNSTORED - 1, MAX_UNSTORED_SIZE - size)
            stored = await self.submit(self.stored_task.tree_id, piece)
            self._unstored.append((stored, size))
            self._unstored_size += size

    def _unrepeated(self, artifact_id: str, given: tuple[int, int], piece: Piece) -> list[Piece]:
        """What an attempt repeats when it runs again after an answer."""
        assert self.replay is not None
        before = self.replay.end() if self.replay.is_over else []
        return before + self.replay.pieces(artifact_id, given, piece)

    async def end_replay(self) -> None:
        """What is not said until now will not be repeated any more."""
        assert self.replay is not None
        await self._give(self.replay.end())

    def told(self) -> Told:
        """What this attempt has said, for the one after the answer."""
        return told(self._messages, self._artifacts, None if self.replay is None else self.replay.left())

    async def stored(self) -> None:
        """Wait until every piece of the output is stored. Raises StorageError when one could not be."""
        if self.replay is not None and self.replay.is_over:
            await self.end_replay()
        await self._settle(0, self.max_output)

    async def _settle(self, most: int, most_bytes: int) -> None:
        """Wait until no more than so many pieces are on their way. A lost one leaves a gap: nothing may follow."""
        while self._unstored and (
            len(self._unstored) > most or self._unstored_size > most_bytes or self._unstored[0][0].done()
        ):
            stored, size = self._unstored.popleft()
            self._unstored_size -= size
            try:
                await asyncio.shield(stored)
            except StorageError as error:
                self._lost = self._lost or error
        if self._lost is not None:
            raise self._lost

    async def read_file(self, part: Mapping[str, Any]) -> bytes:
        """The content of a file part of the inputs or the request: decoded, or fetched under the egress guard.

        Raises FileUnreadable, whose text is safe to show, when it cannot be had.
        """
        return await read_file(part, self.egress, self.stored_task.owner, self.room)

    async def ask(
        self,
        question: Any,
        *,
        auth: bool = False,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> Any:
        """Ask the caller, and return the answer; the message that brought it is `answer_message`.

        No coroutine waits: without an answer the attempt ends here and the executor is run again from its top when the
        answer comes, in this process or after a restart. Raises CallerError for an `at_most_once` executor.

        Questions asked side by side (in a TaskGroup, by gather) are put together, and each gets its own answer: it is
        known by its text. Elsewhere answers also come in the order of the questions, whatever their texts are.
        """
        in_order = self.job in (None, asyncio.current_task())
        return self.ask_from(question, auth, metadata, extensions, in_order=in_order)

    def ask_from(
        self, question: Any, auth: bool, metadata: dict[str, Any] | None, extensions: Sequence[str], *, in_order: bool
    ) -> Any:
        """See `ask`. `in_order`: no other question can be asked at the same time."""
        parts = self._parts(question)
        written = [part_object(part) for part in parts]
        key = blake2b(msgspec.json.encode(written, order="deterministic"), digest_size=8).hexdigest()
        place = self._answered(key, in_order=in_order)
        if place is not None:
            self._answered_last = place
            return self.task.answers[place]
        if self.at_most_once:
            raise CallerError("an at_most_once executor cannot ask a question: it would have to run again")
        asked = Suspend(parts, auth=auth, key=key, **self._marks(metadata, extensions))
        self.questions.append(asked)
        raise asked

    def _answered(self, key: str, *, in_order: bool) -> int | None:
        """Take the question's answer, if there is one: its place."""
        task = self.stored_task
        if self._answers is None:
            self._answers = OrderedDict(enumerate(islice(chain(task.asked, repeat("")), len(task.answers))))
        first = next(iter(self._answers), None)
        place = first
        if first is not None and self._answers[first] != key:
            place = next((each for each, its in self._answers.items() if its == key), first if in_order else None)
        if place is not None:
            del self._answers[place]
            if in_order and not self._answers and self.replay is not None:
                self.replay.is_over = True
        return place
