"""Whether the server takes work, and the two probes that ask: `/healthz` and `/readyz`."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from a2a_server.protocol.errors import Overloaded

NOT_READY_RETRY_AFTER = 5.0  # seconds: a start or a stop takes longer than a moment


class Readiness:
    """A server starts, is ready, and drains. `problem` says why one that is ready cannot take work at the moment."""

    def __init__(self, problem: Callable[[], str | None]) -> None:
        self._problem = problem
        self.is_ready = False
        self.is_draining = False

    def refusal(self) -> Overloaded:
        """What a request is answered with while the server is not ready."""
        return Overloaded(
            f"The server is {'stopping' if self.is_draining else 'starting'}", retry_after=NOT_READY_RETRY_AFTER
        )

    async def healthz(self, request: Request) -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether it takes work; if not, why."""
        status = "draining" if self.is_draining else "ready" if self.is_ready else "starting"
        if status == "ready" and (reason := self._problem()):
            return JSONResponse({"status": "unready", "reason": reason}, status_code=503)
        return JSONResponse({"status": status}, status_code=200 if status == "ready" else 503)
