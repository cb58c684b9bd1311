"""Who owns a live tree: the member whose lease it carries."""

from typing import Protocol


class Membership(Protocol):
    """This process among those that share its database."""

    @property
    def lease(self) -> str:
        """Its right to run trees, new at every start; empty where the database is its own."""
        ...


class Alone:
    """The database is this process's own: it owns whatever is live."""

    lease = ""
