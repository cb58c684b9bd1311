"""The caller of a request, and whose rows it sees and makes."""

from msgspec import Struct

from core.model.owners import tenant_of
from core.model.task import ANONYMOUS


class Principal(Struct, frozen=True, kw_only=True):
    """The caller. `owner` marks every row that it creates, and all that it can see."""

    id: str
    tenant: str = ""
    is_operator: bool = False  # may use `tasks.*`, `push.*` and every registered executor
    skills: frozenset[str] | None = None  # the skills that it may use; None: all that are exposed
    expires_at: float | None = None  # seconds since 1970; its streams end then
    credential: str = ""  # the id of the key that it showed: its streams end when it is revoked, too
    owner: str = ANONYMOUS

    @property
    def scope(self) -> "Scope":
        """What the caller sees and may act on through `tasks.*`: an operator its tenant's rows, the server's all.

        Without authentication, every caller sees what such callers created, and nothing of an owner's.
        """
        if not self.is_operator or self.owner == ANONYMOUS:
            return Scope(owner=self.owner)
        return Scope(tenant=self.tenant) if self.tenant else Scope()

    def manages(self, tenant: str) -> bool:
        """Whether an operator may act for this tenant: its own; for every one if it is the server's, of tenant ''."""
        return self.is_operator and self.tenant in ("", tenant)

    def oversees(self, owner: str) -> bool:
        """Whether what belongs to this owner counts for the caller: its own, and for an operator its tenant's."""
        return owner == self.owner or self.manages(tenant_of(owner))


class Scope(Struct, frozen=True, kw_only=True):
    """Whose rows: an owner's, a tenant's, or with neither everybody's."""

    owner: str | None = None
    tenant: str | None = None


# Every caller, where authentication is off: on loopback, or behind --insecure.
NOBODY = Principal(id=ANONYMOUS, is_operator=True)
