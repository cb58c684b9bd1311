"""The webhooks of a simulated world as an outsider sees them: what was stored of each, and what its receiver was sent.

A registration is known by its token, which nobody else has; the product's own names for it are only read.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from a2a_server.push.configs import CONFIG, DEAD, DELIVERY_STATE, DeadLetter, DeliveryState, PushConfig, Secrets
from core.storage.base import Document
from tests.core.cores import EPOCH

TAKEN = "taken"
GONE = "410"
CUT = "cut"  # nobody waited for the answer any more


@dataclass(slots=True, eq=False)
class Attempt:
    """One call of the receiver."""

    message_id: str
    body: bytes
    life: int
    began: float
    ended: float | None = None
    outcome: str = CUT


@dataclass(slots=True, eq=False)
class Hook:
    """One registration, from the commit that brought it to the one that ended it."""

    token: str
    asked: float  # when
    config: PushConfig | None = None  # as it was stored
    standing: DeliveryState = field(default_factory=DeliveryState)  # with which it began
    gone: float | None = None  # when it was deleted, or another one took its place
    tree_gone: float | None = None
    attempts: list[Attempt] = field(default_factory=list)
    is_called: bool = False  # at this moment

    @property
    def key(self) -> str:
        return self.config.key if self.config is not None else ""


@dataclass(slots=True)
class Ledger:
    """All registrations that may still be called."""

    hooks: dict[str, Hook] = field(default_factory=dict)  # by token
    current: dict[str, Hook] = field(default_factory=dict)  # by the key of what is stored
    letters: dict[tuple[str, int], tuple[float, DeadLetter]] = field(default_factory=dict)  # by key and event
    troubles: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # writes that failed
    made: int = 0
    sent: int = 0

    def new_hook(self) -> Hook:
        """A registration that is about to be asked for."""
        self.made += 1
        hook = Hook(f"hook {self.made}", _now())
        self.hooks[hook.token] = hook
        return hook

    def drop_unstored(self, before: float = float("inf")) -> None:
        """Those asked for before that time that came to nothing."""
        for hook in [each for each in self.hooks.values() if each.config is None and each.asked < before]:
            del self.hooks[hook.token]

    def of_tree(self, tree_id: str) -> list[Hook]:
        """The tree's registrations, those too that are no more."""
        return [hook for hook in self.hooks.values() if hook.config is not None and hook.config.tree_id == tree_id]

    # What the storage tells, at each commit

    def stored(self, documents: Sequence[Document]) -> None:
        for document in documents:
            if document.kind == CONFIG:
                config = msgspec.json.decode(document.body, type=PushConfig)
                hook = self.hooks[msgspec.json.decode(config.sealed, type=Secrets).token]
                if (before := self.current.get(config.key)) is not None:
                    before.gone = _now()
                hook.config = config
                self.current[config.key] = hook
            elif document.kind == DEAD:
                letter = msgspec.json.decode(document.body, type=DeadLetter)
                self.letters[letter.config_key, letter.seq] = (_now(), letter)
        kinds = {document.kind for document in documents}
        for document in documents:
            if document.kind == DELIVERY_STATE and CONFIG in kinds:
                self.current[document.id].standing = msgspec.json.decode(document.body, type=DeliveryState)

    def removed(self, names: Iterable[tuple[str, str]]) -> None:
        for kind, key in names:
            if kind == CONFIG and (hook := self.current.pop(key, None)) is not None:
                hook.gone = _now()

    def tree_deleted(self, tree_id: str) -> None:
        for hook in self.of_tree(tree_id):
            self.current.pop(hook.key, None)
            hook.tree_gone = _now()

    def unsaved(self, document_ids: Iterable[str]) -> None:
        for key in document_ids:
            self.troubles[key].append(_now())

    def past(self, before: float) -> list[Hook]:
        """Those whose tree was deleted before that time."""
        return [hook for hook in self.hooks.values() if hook.tree_gone is not None and hook.tree_gone < before]

    def forget(self, hook: Hook) -> None:
        """It was judged for the last time."""
        del self.hooks[hook.token]
        self.troubles.pop(hook.key, None)
        self.letters = {name: letter for name, letter in self.letters.items() if name[0] != hook.key}


def _now() -> float:
    return EPOCH + asyncio.get_running_loop().time()
