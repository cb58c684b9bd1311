"""What a method knows of the request beside its params: who asks, in which dialect, from where."""

from dataclasses import dataclass, field

from msgspec import Struct

from a2a_server.bindings.aside import Aside
from a2a_server.edge.limits import Permit
from a2a_server.protocol.dialect import A2A_1_0, A2ADialect
from core.model.errors import Problem
from core.model.owners import tenant_of
from core.model.task import ANONYMOUS


class Principal(Struct, frozen=True, kw_only=True):
    """Who calls. `owner` is what every row that he makes belongs to, and all that he can see."""

    id: str
    tenant: str = ""
    is_operator: bool = False  # may use `tasks.*`, `push.*` and every registered executor
    skills: frozenset[str] | None = None  # the skills that he may use; None: all that are exposed
    expires_at: float | None = None  # seconds since 1970; his streams end then
    credential: str = ""  # the id of the key that he showed: his streams end when it is revoked, too
    owner: str = ANONYMOUS

    @property
    def scope(self) -> "Scope":
        """What the caller sees and may act on through `tasks.*`: an operator its tenant's rows, the server's all.

        Where nobody is identified, everybody sees what such callers made, and nothing of an owner's.
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


# Everybody, where nobody is asked who he is: on loopback, or behind --insecure.
NOBODY = Principal(id=ANONYMOUS, is_operator=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The surroundings of one HTTP request, the same for every item of a batch."""

    principal: Principal = NOBODY
    dialect: A2ADialect = A2A_1_0  # in which an A2A method is called, and its stream is told
    a2a_version: str | None = None  # of the header or the query parameter `A2A-Version`, as it came
    extensions: tuple[str, ...] = ()  # the URIs that the client activates
    idempotency_key: str | None = None  # of the header `Idempotency-Key`
    last_event_id: int | None = None  # where a broken stream is to be taken up
    event_id_problem: Problem | None = None  # what is wrong with the one that was given; for streams only
    permit: Permit = field(default_factory=Permit, compare=False)  # what the caller may still do
    aside: Aside | None = None  # where a large body is judged; None: it is small, and judged on the spot

    @property
    def owner(self) -> str:
        """Whose rows the caller makes, and sees through A2A."""
        return self.principal.owner

    def acts_for(self, owner: str) -> str | None:
        """Who acts on a row of that owner's, for its log; None: the owner."""
        return None if owner == self.owner else self.owner
