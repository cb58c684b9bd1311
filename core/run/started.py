"""What a caller of `Session.create` or `Session.execute` gets: what was decided and is stored."""

from collections.abc import Sequence

from msgspec import Struct

from core.model.events import Recorded
from core.model.task import TreeHead


class Started(Struct, frozen=True):
    """A tree right after its creation or the start of its run, and the events that led there."""

    head: TreeHead
    events: Sequence[Recorded]

    @property
    def before(self) -> int:
        """The number after which all of them come."""
        return self.events[0].seq - 1
