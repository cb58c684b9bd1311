"""What a method knows of the request beside its params: who asks, in which dialect, from where."""

from dataclasses import dataclass, field

import msgspec
from msgspec import Struct

from a2a_server.dialect import A2A_1_0, A2ADialect
from a2a_server.limits import Permit
from core.errors import Problem
from core.task import ANONYMOUS


class Principal(Struct, frozen=True, kw_only=True):
    """Who calls. `owner` is what every row that he makes belongs to, and all that he can see."""

    id: str
    tenant: str = ""
    is_operator: bool = False  # may use `tasks.*`, `push.*` and every registered executor
    skills: frozenset[str] | None = None  # the skills that he may use; None: all that are exposed
    expires_at: float | None = None  # seconds since 1970; his streams end then
    credential: str = ""  # the id of the key that he showed: his streams end when it is revoked, too
    owner: str = ANONYMOUS


def owner_of(tenant: str, principal: str) -> str:
    """Whose rows those of this principal are: JSON of both names, so that no two pairs and no other owner share it."""
    return msgspec.json.encode((tenant, principal)).decode()


def tenant_of(owner: str) -> str:
    """The tenant of these rows' owner; '' for whatever no identified caller owns."""
    try:
        return msgspec.json.decode(owner, type=tuple[str, str])[0]
    except msgspec.DecodeError:
        return ""


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

    @property
    def owner(self) -> str:
        """Whose rows the caller makes and sees."""
        return self.principal.owner
