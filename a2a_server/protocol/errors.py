"""Every error that a caller can see, in one place: JSON-RPC code, HTTP status, reason (A2A v1.0 §5.4, §9.5).

Messages are our own words. An unexpected exception becomes `Internal`: its text and traceback go to the log under an
error id, and only the id goes to the caller.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self
from uuid import uuid4

from core import errors as core_errors
from core.errors import Problem

logger = logging.getLogger(__name__)

A2A_DOMAIN = "a2a-protocol.org"
OWN_DOMAIN = "a2a-server"
LONGEST_MESSAGE = 600  # characters; every problem is in the data, whatever the message has room for


class A2AError(Exception):
    """An error with a place in the protocol. `metadata` and `violations` go to the caller in `error.data`."""

    code: ClassVar[int]
    text: ClassVar[str]
    reason: ClassVar[str] = ""  # of the ErrorInfo; errors of plain JSON-RPC have none
    domain: ClassVar[str] = A2A_DOMAIN
    http_status: ClassVar[int] = 200  # JSON-RPC answers errors with 200, save when the server turns callers away

    def __init__(
        self,
        message: str | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Problem] = (),
    ) -> None:
        self.message = message or self.text
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        super().__init__(self.message)

    @classmethod
    def of(cls, violations: Sequence[Problem]) -> Self:
        """The error whose message says what is wrong, too."""
        return cls(f"{cls.text}: {_sentence(violations)}", violations=violations)

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers that go with it, in any binding."""
        return {}


class TaskNotFound(A2AError):
    """No such task, or not the caller's."""

    code, text, reason = -32001, "Task not found", "TASK_NOT_FOUND"


class TaskNotCancelable(A2AError):
    """The task has ended already."""

    code, text, reason = -32002, "Task cannot be canceled", "TASK_NOT_CANCELABLE"


class PushNotificationNotSupported(A2AError):
    """The agent card does not offer push notifications."""

    code, text, reason = -32003, "Push notifications are not supported", "PUSH_NOTIFICATION_NOT_SUPPORTED"


class UnsupportedOperation(A2AError):
    """The operation is not offered, or not for a task in this state."""

    code, text, reason = -32004, "This operation is not supported", "UNSUPPORTED_OPERATION"


class ContentTypeNotSupported(A2AError):
    """A media type that the agent does not take or give."""

    code, text, reason = -32005, "Content type not supported", "CONTENT_TYPE_NOT_SUPPORTED"


class InvalidAgentResponse(A2AError):
    """The executor gave something that is no A2A content."""

    code, text, reason = -32006, "The agent gave an invalid response", "INVALID_AGENT_RESPONSE"


class ExtendedAgentCardNotConfigured(A2AError):
    """The card promises an extended card, but there is none."""

    code, text, reason = -32007, "No extended agent card is configured", "EXTENDED_AGENT_CARD_NOT_CONFIGURED"


class ExtensionSupportRequired(A2AError):
    """The card requires an extension that the client did not declare."""

    code, text, reason = -32008, "A required extension was not declared", "EXTENSION_SUPPORT_REQUIRED"


class VersionNotSupported(A2AError):
    """The A2A-Version that the client asks for is not spoken here."""

    code, text, reason = -32009, "This A2A protocol version is not supported", "VERSION_NOT_SUPPORTED"


class TurnedAway(A2AError):
    """The server has no room at this moment; the same request may succeed after `retry_after` seconds."""

    domain = OWN_DOMAIN

    def __init__(self, message: str | None = None, *, retry_after: float = 1.0) -> None:
        self.retry_after = max(1, round(retry_after))
        super().__init__(message, metadata={"retryAfter": str(self.retry_after)})

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class RateLimited(TurnedAway):
    """This caller asks too often."""

    code, text, reason, http_status = -32050, "Too many requests", "RATE_LIMITED", 429


class Overloaded(TurnedAway):
    """Too much work is waiting, or the database is not available."""

    code, text, reason, http_status = -32051, "The server is overloaded", "OVERLOADED", 503


class Unauthenticated(A2AError):
    """The caller has not shown who he is, or what he showed is not valid (any more). Says no more than that."""

    code, text, reason, domain = -32052, "Authentication is required", "UNAUTHENTICATED", OWN_DOMAIN
    http_status = 401

    def __init__(self, *challenges: str) -> None:
        self._challenges = challenges or ("Bearer",)
        super().__init__()

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": ", ".join(self._challenges)}


class PermissionDenied(A2AError):
    """The caller is known, and may not do this."""

    code, text, reason, domain = -32053, "This is not allowed", "PERMISSION_DENIED", OWN_DOMAIN
    http_status = 403


class ParseError(A2AError):
    """The body is not JSON."""

    code, text = -32700, "Invalid JSON payload"


class InvalidRequest(A2AError):
    """The body is JSON, but no JSON-RPC 2.0 request."""

    code, text = -32600, "Request payload validation error"


class MethodNotFound(A2AError):
    """No method of this name."""

    code, text = -32601, "Method not found"


class InvalidParams(A2AError):
    """The params break the method's rules; `violations` names every field."""

    code, text = -32602, "Invalid parameters"


class Internal(A2AError):
    """A bug of ours."""

    code, text, reason, domain = -32603, "Internal error", "INTERNAL", OWN_DOMAIN


def translate(error: Exception) -> A2AError:
    """What the caller is told of an exception. An unforeseen one is logged with its traceback under an error id."""
    match error:
        case A2AError():
            return error
        case core_errors.InvalidPlan():
            return InvalidParams.of(error.problems)
        case core_errors.TaskNotFound():
            return TaskNotFound(metadata={"taskId": error.task_id})
        case core_errors.TaskNotCancelable():
            return TaskNotCancelable(str(error), metadata={"taskId": error.task_id})
        case core_errors.IllegalCommand():
            return UnsupportedOperation(str(error), metadata={"taskId": error.task_id})
        case core_errors.CallerError():
            return InvalidParams(f"{InvalidParams.text}: {error}")
        case core_errors.StorageUnavailable() | core_errors.VersionConflict():
            logger.warning("a caller is turned away: %s", error)
            return Overloaded("The database is not available at this moment")
    error_id = uuid4().hex
    logger.error("internal error %s", error_id, exc_info=error)
    return Internal(metadata={"errorId": error_id})


def to_object(error: A2AError) -> dict[str, Any]:
    """The `error` member of a JSON-RPC response."""
    details: list[dict[str, Any]] = []
    if error.reason:
        info: dict[str, Any] = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.reason}
        info["domain"] = error.domain
        if error.metadata:
            info["metadata"] = error.metadata
        details.append(info)
    if error.violations:
        fields = [{"field": problem.field, "description": problem.message} for problem in error.violations]
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields})
    answer: dict[str, Any] = {"code": error.code, "message": error.message}
    return answer | {"data": details} if details else answer


def _sentence(violations: Iterable[Problem]) -> str:
    """The violations in one line, cut where it gets too long to read."""
    text = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in violations)
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
