"""In which trees other members have said interest, and how far those are. Pure: time is an argument.

A hint wakes every listener of the database, so only trees that somebody follows elsewhere have theirs sent.
"""

KEPT = 25.0  # seconds after which interest that was not renewed is forgotten
SWEPT = 1_000  # trees of interest from which on what was not renewed is looked for
LATEST = 4_096  # trees whose version is remembered for those who say interest a moment after a commit


class Interest:
    """Of the others in trees that this member writes."""

    def __init__(self, kept: float = KEPT, latest: int = LATEST) -> None:
        self._kept = kept
        self._most = latest
        self._until: dict[str, float] = {}
        self._sweep_at = SWEPT
        self._latest: dict[str, int] = {}  # the one that changed longest ago first

    def __len__(self) -> int:
        return len(self._until)

    def said(self, tree_id: str, now: float) -> int | None:
        """Somebody follows the tree from now on, or still does; its version, where it is known here."""
        self._until[tree_id] = now + self._kept
        if len(self._until) > self._sweep_at:
            self._until = {each: until for each, until in self._until.items() if until > now}
            self._sweep_at = max(SWEPT, 2 * len(self._until))
        return self._latest.get(tree_id)

    def changed(self, tree_id: str, version: int, now: float) -> bool:
        """Remember the tree's version; whether others want to hear of it."""
        self._latest.pop(tree_id, None)
        self._latest[tree_id] = version
        if len(self._latest) > self._most:
            del self._latest[next(iter(self._latest))]
        return self._until.get(tree_id, now) > now

    def deleted(self, tree_id: str, now: float) -> bool:
        """The tree is no more; whether others want to hear of it."""
        self._latest.pop(tree_id, None)
        return self._until.pop(tree_id, now) > now
