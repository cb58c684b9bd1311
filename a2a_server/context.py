"""What a method knows of the request beside its params: who asks, in which dialect, from where."""

from dataclasses import dataclass

from core.errors import Problem
from core.task import ANONYMOUS


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The surroundings of one HTTP request, the same for every item of a batch."""

    owner: str = ANONYMOUS
    a2a_version: str | None = None  # of the header or the query parameter `A2A-Version`, as it came
    extensions: tuple[str, ...] = ()  # URIs of the header `A2A-Extensions`
    last_event_id: int | None = None  # where a broken stream is to be taken up
    event_id_problem: Problem | None = None  # what is wrong with the one that was given; for streams only
    base_url: str = ""  # the address the caller used, with a slash at its end
