"""What has been decided on the way to the storage: one append for what a turn of the event loop decides on a tree."""

import asyncio
from collections.abc import Callable, Sequence

from core.model.events import Recorded
from core.model.task import TreeHead
from core.model.tree import TaskTree
from core.storage.base import OF_NOBODY, Append, Document, Storage

Answered = Callable[["Turn", TreeHead, BaseException | None], None]


class Turn:
    """What a turn of the event loop has decided on a tree, and the moment when it is durable."""

    def __init__(self, tree: TaskTree, documents: tuple[Document, ...] = (), *, is_new: bool = False) -> None:
        self.tree = tree
        self.documents = documents
        self.is_new = is_new
        self.decisions = 0
        self.events: list[Recorded] = []
        self.stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters: list[asyncio.Future[None]] = []

    def waiter(self) -> asyncio.Future[None]:
        """`stored` for one caller, which may go away: what `asyncio.shield` gives, with a tenth of the objects."""
        if self.stored.done():
            return self.stored
        waiter: asyncio.Future[None] = self.stored.get_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def settle(self, error: BaseException | None = None) -> None:
        """It is durable, or never will be."""
        for future in (self.stored, *self._waiters):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # seen, even if no caller waits


class Appends:
    """The appends of one process, in the order of each tree's decisions. `answered` hears of each how it went."""

    def __init__(self, storage: Storage, answered: Answered) -> None:
        self._storage = storage
        self._answered = answered
        self._turns: dict[str, dict[Turn, None]] = {}  # by tree, those not answered, oldest first
        self._open: dict[str, Turn] = {}  # by tree, the one that is not handed to the storage yet
        self.apart: set[str] = set()  # trees of which each decision is an append by itself
        self.leased: set[str] = set()  # where members share the database: trees that carry this one's lease

    def latest(self, tree_id: str) -> Turn | None:
        """The tree's last turn, if it has not been answered yet."""
        return next(reversed(self._turns.get(tree_id, {})), None)

    def last_turn(self, tree: TaskTree) -> Turn:
        """The turn after which all that was decided on the tree is durable: the latest one, or one that is settled."""
        turn = self.latest(tree.id)
        if turn is None:
            turn = Turn(tree)
            turn.settle()
        return turn

    def add(
        self, tree: TaskTree, recorded: Sequence[Recorded], documents: tuple[Document, ...], *, is_new: bool
    ) -> Turn:
        """Let these events become durable with the tree's open turn, or in one of their own."""
        turn = self._turn(tree, documents, is_new=is_new)
        turn.events += recorded
        turn.decisions += 1
        if is_new or documents or tree.id in self.apart:
            self._hand_over(turn)
        return turn

    def _turn(self, tree: TaskTree, documents: tuple[Document, ...], *, is_new: bool) -> Turn:
        """The tree's open turn. Documents may be refused, so they go with the decision that brings them alone."""
        turn = self._open.get(tree.id)
        if turn is not None and documents:
            self._hand_over(turn)
            turn = None
        if turn is None:
            turn = Turn(tree, documents, is_new=is_new)
            if not self._open:
                asyncio.get_running_loop().call_soon(self._hand_over_all)
            self._open[tree.id] = turn
            self._turns.setdefault(tree.id, {})[turn] = None
        return turn

    def _hand_over_all(self) -> None:
        """Append what the last turn of the event loop has decided on any tree."""
        for turn in list(self._open.values()):
            self._hand_over(turn)
        self._storage.flush()

    def _hand_over(self, turn: Turn) -> None:
        """Append what was decided, unless that has been done."""
        tree = turn.tree
        if self._open.get(tree.id) is not turn:
            return
        del self._open[tree.id]
        head = tree.head
        append = Append(
            head=head,
            events=tuple(turn.events),
            tasks=tree.take_changed(),
            is_new=turn.is_new,
            documents=turn.documents,
            lease=self._fence(head) if self._storage.lease else OF_NOBODY,
        )
        self._storage.append(append).add_done_callback(lambda done: self._answered(turn, head, done.exception()))

    def _fence(self, head: TreeHead) -> str:
        """Whose the stored tree must be: this member's since it lives, else nobody's."""
        before = self._storage.lease if head.id in self.leased else OF_NOBODY
        if head.is_live:
            self.leased.add(head.id)
        else:
            self.leased.discard(head.id)
        return before

    def take_open(self, tree_id: str) -> Turn | None:
        """The tree's turn that is not handed over, which then never is."""
        return self._open.pop(tree_id, None)

    def leave(self, turn: Turn) -> None:
        """The turn was answered."""
        waiting = self._turns[turn.tree.id]
        del waiting[turn]
        if not waiting:
            del self._turns[turn.tree.id]
