"""Every error that a caller can see, in one place: JSON-RPC code, HTTP status, reason (A2A v1.0 §5.4, §9.5, §11.6).

Messages are our own words. An unexpected exception becomes `Internal`: its text and traceback go to the log under an
error id, and only the id goes to the caller.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self
from uuid import uuid4

from core.model import errors as core_errors
from core.model.errors import Problem

logger = logging.getLogger(__name__)

A2A_DOMAIN = "a2a-protocol.org"
OWN_DOMAIN = "a2a-server"
RETRY_AFTER = 1.0  # seconds: what is full for a moment has room in the next
DISK_RETRY_AFTER = 60.0  # seconds: a disk that is nearly full has no room in a moment
LONGEST_MESSAGE = 600  # characters; every problem is in the data, whatever the message has room for


class A2AError(Exception):
    """An error with a place in the protocol. `metadata` and `violations` go to the caller as the error's details."""

    code: ClassVar[int]
    text: ClassVar[str]
    reason: ClassVar[str]  # of the ErrorInfo
    domain: ClassVar[str] = A2A_DOMAIN
    http_status: ClassVar[int] = 400
    status: ClassVar[str] = "INVALID_ARGUMENT"  # its name in google.rpc.Code
    is_http: ClassVar[bool] = False  # whether JSON-RPC tells it by the HTTP status, too; it answers others with 200

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
    http_status, status = 404, "NOT_FOUND"


class TaskNotCancelable(A2AError):
    """The task has ended already."""

    code, text, reason = -32002, "Task cannot be canceled", "TASK_NOT_CANCELABLE"
    status = "FAILED_PRECONDITION"


class PushNotificationNotSupported(A2AError):
    """The agent card does not offer push notifications."""

    code, text, reason = -32003, "Push notifications are not supported", "PUSH_NOTIFICATION_NOT_SUPPORTED"
    status = "FAILED_PRECONDITION"


class UnsupportedOperation(A2AError):
    """The operation is not offered, or not for a task in this state."""

    code, text, reason = -32004, "This operation is not supported", "UNSUPPORTED_OPERATION"
    status = "FAILED_PRECONDITION"


class ContentTypeNotSupported(A2AError):
    """A media type that the agent does not accept or produce."""

    code, text, reason = -32005, "Content type not supported", "CONTENT_TYPE_NOT_SUPPORTED"


class InvalidAgentResponse(A2AError):
    """The executor returned something that is not A2A content."""

    code, text, reason = -32006, "The agent gave an invalid response", "INVALID_AGENT_RESPONSE"
    http_status, status = 500, "INTERNAL"


class ExtendedAgentCardNotConfigured(A2AError):
    """The card promises an extended card, but there is none."""

    code, text, reason = -32007, "No extended agent card is configured", "EXTENDED_AGENT_CARD_NOT_CONFIGURED"
    status = "FAILED_PRECONDITION"


class ExtensionSupportRequired(A2AError):
    """The card requires an extension that the client did not declare."""

    code, text, reason = -32008, "A required extension was not declared", "EXTENSION_SUPPORT_REQUIRED"
    status = "FAILED_PRECONDITION"


class VersionNotSupported(A2AError):
    """The A2A-Version of the request is not supported."""

    code, text, reason = -32009, "This A2A protocol version is not supported", "VERSION_NOT_SUPPORTED"
    status = "FAILED_PRECONDITION"


class RetryLater(A2AError):
    """The server has no room at this moment; the same request may succeed after `retry_after` seconds."""

    domain, is_http = OWN_DOMAIN, True

    def __init__(self, message: str | None = None, *, retry_after: float = RETRY_AFTER) -> None:
        self.retry_after = max(1, round(retry_after))
        super().__init__(message, metadata={"retryAfter": str(self.retry_after)})

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self.retry_after)}


class RateLimited(RetryLater):
    """This caller sends too many requests."""

    code, text, reason = -32050, "Too many requests", "RATE_LIMITED"
    http_status, status = 429, "RESOURCE_EXHAUSTED"


class QuotaExceeded(A2AError):
    """This caller has stored as much as one caller may. Waiting does not help; deleting tasks does."""

    code, text, reason, domain = -32050, "The storage quota is used up", "STORED_BYTES_EXCEEDED", OWN_DOMAIN
    http_status, status, is_http = 429, "RESOURCE_EXHAUSTED", True


class Overloaded(RetryLater):
    """Too much work is waiting, or the database is not available."""

    code, text, reason = -32051, "The server is overloaded", "OVERLOADED"
    http_status, status = 503, "UNAVAILABLE"


class Unauthenticated(A2AError):
    """The request has no valid credential. Says no more than that."""

    code, text, reason, domain = -32052, "Authentication is required", "UNAUTHENTICATED", OWN_DOMAIN
    http_status, status, is_http = 401, "UNAUTHENTICATED", True

    def __init__(self, *challenges: str) -> None:
        self._challenges = challenges or ("Bearer",)
        super().__init__()

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": ", ".join(self._challenges)}


class PermissionDenied(A2AError):
    """The caller is known, and may not do this."""

    code, text, reason, domain = -32053, "This is not allowed", "PERMISSION_DENIED", OWN_DOMAIN
    http_status, status, is_http = 403, "PERMISSION_DENIED", True


class OperatorsOnly(PermissionDenied):
    """What was asked for is for operators, and the caller is none."""

    text = "This is not allowed: the method is for operators, so use the key or token of one"


class PlainError(A2AError):
    """An error of JSON-RPC itself: there its code says all, so that its reason is told over HTTP+JSON only."""


class ParseError(PlainError):
    """The body is not JSON."""

    code, text, reason = -32700, "Invalid JSON payload", "PARSE_ERROR"


class InvalidRequest(PlainError):
    """The body is JSON, but no JSON-RPC 2.0 request; or no request of this kind is taken at all."""

    code, text, reason = -32600, "Request payload validation error", "INVALID_REQUEST"


class MethodNotFound(PlainError):
    """No method of this name."""

    code, text, reason = -32601, "Method not found", "METHOD_NOT_FOUND"
    http_status, status = 404, "UNIMPLEMENTED"


class InvalidParams(PlainError):
    """The params break the method's rules; `violations` names every field."""

    code, text, reason = -32602, "Invalid parameters", "INVALID_PARAMS"


class Internal(A2AError):
    """A bug of the server."""

    code, text, reason, domain = -32603, "Internal error", "INTERNAL", OWN_DOMAIN
    http_status, status = 500, "INTERNAL"


# What HTTP itself refuses, before any method is looked for.


class BadHeaders(InvalidRequest):
    """A header that matters is ambiguous."""

    is_http = True


class ForeignOrigin(InvalidRequest):
    """A web page of another origin calls."""

    http_status, status, is_http = 403, "PERMISSION_DENIED", True


class Misdirected(InvalidRequest):
    """The request is meant for a host that this server is not."""

    http_status, is_http = 421, True


class BodyTooLarge(InvalidRequest):
    """The body is larger than the server takes."""

    http_status, is_http = 413, True


class BodyTimeout(InvalidRequest):
    """The body did not arrive in time."""

    http_status, status, is_http = 408, "DEADLINE_EXCEEDED", True


class UnsupportedMediaType(ContentTypeNotSupported):
    """The Content-Type is not JSON."""

    http_status, is_http = 415, True

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Accept": "application/json, application/a2a+json"}  # RFC 9110 §15.5.16


class UnsupportedCoding(UnsupportedMediaType):
    """The body is encoded."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Accept-Encoding": "identity"}  # RFC 9110 §12.5.3


class PathNotFound(MethodNotFound):
    """Nothing is served at this path."""

    status, is_http = "NOT_FOUND", True

    def __init__(self) -> None:
        super().__init__("Nothing is served at this path")


class HttpMethodNotAllowed(MethodNotFound):
    """The path is served, but not for this HTTP method."""

    http_status, is_http = 405, True

    def __init__(self, allowed: str) -> None:
        self._allowed = allowed
        super().__init__(f"This path supports {allowed}")

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": self._allowed}


def translate(error: Exception) -> A2AError:
    """The caller's error for an exception. An unforeseen one is logged with its traceback under an error id."""
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
        case core_errors.QuotaExceeded():
            return QuotaExceeded(str(error))
        case core_errors.DiskReserved():
            return Overloaded(str(error), retry_after=DISK_RETRY_AFTER)
        case core_errors.CallerError():
            return InvalidParams(f"{InvalidParams.text}: {error}")
        case core_errors.NoRoom():
            return RateLimited(str(error)) if error.of_caller else Overloaded(str(error))
        case core_errors.StorageUnavailable() | core_errors.VersionConflict():
            logger.warning("a call was rejected: %s", error)
            return Overloaded("The database is temporarily unavailable")
    error_id = uuid4().hex
    logger.error("internal error %s", error_id, exc_info=error)
    return Internal(metadata={"errorId": error_id})


def to_object(error: A2AError) -> dict[str, Any]:
    """The `error` member of a JSON-RPC response (A2A §9.5)."""
    details = [*([] if isinstance(error, PlainError) else _info(error)), *_bad_request(error)]
    answer: dict[str, Any] = {"code": error.code, "message": error.message}
    return answer | {"data": details} if details else answer


def to_status(error: A2AError) -> dict[str, Any]:
    """The body of an HTTP+JSON answer: a google.rpc.Status (A2A §11.6)."""
    details = [*_info(error), *_bad_request(error)]
    status = {"code": error.http_status, "status": error.status, "message": error.message, "details": details}
    return {"error": status}


def _info(error: A2AError) -> list[dict[str, Any]]:
    info: dict[str, Any] = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.reason}
    info["domain"] = error.domain
    return [info | {"metadata": error.metadata} if error.metadata else info]


def _bad_request(error: A2AError) -> list[dict[str, Any]]:
    if not error.violations:
        return []
    fields = [{"field": problem.field, "description": problem.message} for problem in error.violations]
    return [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields}]


def _sentence(violations: Iterable[Problem]) -> str:
    """The violations in one line, cut where it gets too long to read."""
    text = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in violations)
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
