"""What a method knows of the request beside its params: the caller, the dialect, the address."""

from dataclasses import dataclass, field

from a2a_server.auth.principal import NOBODY, Principal
from a2a_server.bindings.aside import Aside
from a2a_server.edge.limits import Permit
from a2a_server.protocol.dialect import A2A_1_0, A2ADialect
from core.model.errors import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The surroundings of one HTTP request, the same for every item of a batch."""

    principal: Principal = NOBODY
    dialect: A2ADialect = A2A_1_0  # in which an A2A method is called, and its stream is told
    a2a_version: str | None = None  # of the header or the query parameter `A2A-Version`, as it came
    extensions: tuple[str, ...] = ()  # the URIs that the client activates
    idempotency_key: str | None = None  # of the header `Idempotency-Key`
    last_event_id: int | None = None  # where a broken stream resumes
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
