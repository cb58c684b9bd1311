"""The `system.*` methods: how the server is, and what it can run."""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from a2a_server.auth.principal import NOBODY
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method, NoParams
from a2a_server.edge.overload import CallKind
from core.outside.clock import Clock
from core.session import Session


class Health(TypedDict):
    """How the server is; `uptime` is in seconds."""

    status: str
    version: str
    uptime: float
    running_tasks: int


class ExecutorObject(TypedDict):
    """What tasks may name as their executor, and messages as their skill where it is one."""

    id: str
    name: str
    description: str
    tags: list[str]
    input_schema: Any
    output_schema: Any
    cancelable: bool
    at_most_once: bool
    has_effects: bool
    is_skill: bool


class SystemMethods:
    """The methods, over one session. `limits` gives those of callers who are identified, or of the others."""

    def __init__(
        self, session: Session, *, version: str, clock: Clock, limits: Callable[[bool], Mapping[str, Any]]
    ) -> None:
        self._session = session
        self._version = version
        self._clock = clock
        self._limits = limits
        self._started_at = clock.now()

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        return [
            Method(
                name="system.health",
                handler=self.health,
                kind=CallKind.EXEMPT,
                result_type=Health,
                is_open=True,
                summary="Server status, version and uptime (seconds), and the caller's running tasks.",
            ),
            Method(
                name="system.limits",
                handler=self.limits,
                kind=CallKind.OTHER,
                result_type=dict[str, float | None],
                is_open=True,
                summary="The limits in force for this caller, by name; null: no limit.",
            ),
            Method(
                name="system.executors",
                handler=self.executors,
                kind=CallKind.OTHER,
                result_type=list[ExecutorObject],
                summary="List the executors with their schemas.",
            ),
        ]

    async def health(self, context: RequestContext, params: NoParams) -> Health:
        return {
            "status": "healthy",
            "version": self._version,
            "uptime": round(self._clock.now() - self._started_at, 3),
            "running_tasks": self._session.runner.books.running_of(context.principal.oversees),
        }

    async def limits(self, context: RequestContext, params: NoParams) -> dict[str, Any]:
        return dict(self._limits(context.principal is not NOBODY))

    async def executors(self, context: RequestContext, params: NoParams) -> list[ExecutorObject]:
        return [
            {
                "id": spec.id,
                "name": spec.name or spec.id,
                "description": spec.description,
                "tags": list(spec.tags),
                "input_schema": spec.input_schema,
                "output_schema": spec.output_schema,
                "cancelable": spec.cancelable,
                "at_most_once": spec.at_most_once,
                "has_effects": spec.has_effects,
                "is_skill": spec.is_skill,
            }
            for spec in self._session.registry
        ]
