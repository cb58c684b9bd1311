"""The error table: codes, payloads, and what becomes of the core's errors."""

import json
import logging
from collections.abc import Iterator

import pytest

from a2a_server.protocol import errors
from a2a_server.protocol.codec import encode
from a2a_server.protocol.versions import check_version
from core.model import errors as core_errors
from core.model.errors import Problem

# A2A v1.0.1 §5.4, and our own two.
TABLE = [
    (errors.TaskNotFound, -32001, "TASK_NOT_FOUND"),
    (errors.TaskNotCancelable, -32002, "TASK_NOT_CANCELABLE"),
    (errors.PushNotificationNotSupported, -32003, "PUSH_NOTIFICATION_NOT_SUPPORTED"),
    (errors.UnsupportedOperation, -32004, "UNSUPPORTED_OPERATION"),
    (errors.ContentTypeNotSupported, -32005, "CONTENT_TYPE_NOT_SUPPORTED"),
    (errors.InvalidAgentResponse, -32006, "INVALID_AGENT_RESPONSE"),
    (errors.ExtendedAgentCardNotConfigured, -32007, "EXTENDED_AGENT_CARD_NOT_CONFIGURED"),
    (errors.ExtensionSupportRequired, -32008, "EXTENSION_SUPPORT_REQUIRED"),
    (errors.VersionNotSupported, -32009, "VERSION_NOT_SUPPORTED"),
]


@pytest.mark.parametrize(("type_", "code", "reason"), TABLE)
def test_an_a2a_error_carries_its_code_and_reason(type_: type[errors.A2AError], code: int, reason: str) -> None:
    answer = errors.to_object(type_(metadata={"taskId": "t"}))

    assert answer["code"] == code
    assert answer["message"]
    assert answer["data"] == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "a2a-protocol.org",
            "metadata": {"taskId": "t"},
        }
    ]


def every_error(type_: type[errors.A2AError] = errors.A2AError) -> Iterator[type[errors.A2AError]]:
    for each in type_.__subclasses__():
        yield each
        yield from every_error(each)


# The HTTP statuses that google.rpc.Code maps to, with the ones that HTTP itself has and A2A gives (§5.4).
STATUSES = {
    "INVALID_ARGUMENT": {400, 413, 415, 421},
    "FAILED_PRECONDITION": {400},
    "NOT_FOUND": {404},
    "UNIMPLEMENTED": {404, 405},
    "UNAUTHENTICATED": {401},
    "PERMISSION_DENIED": {403},
    "DEADLINE_EXCEEDED": {408},
    "RESOURCE_EXHAUSTED": {429},
    "UNAVAILABLE": {503},
    "INTERNAL": {500},
}


def test_every_error_has_all_columns_of_the_table() -> None:
    groups = (errors.PlainError, errors.RetryLater)
    for type_ in every_error():
        if type_ not in groups:
            assert type_.code and type_.text and type_.reason
            assert type_.http_status in STATUSES[type_.status], type_


def test_over_http_json_an_error_is_a_status_whose_code_is_that_of_http() -> None:
    answer = errors.to_status(errors.InvalidParams.of([Problem("id", "is required")]))

    details = answer["error"].pop("details")
    assert answer == {
        "error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "Invalid parameters: id: is required"}
    }
    assert details == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "INVALID_PARAMS",
            "domain": "a2a-protocol.org",
        },
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "id", "description": "is required"}],
        },
    ]


@pytest.mark.parametrize(
    ("type_", "code"),
    [(errors.ParseError, -32700), (errors.InvalidRequest, -32600), (errors.MethodNotFound, -32601)],
)
def test_a_plain_json_rpc_error_has_no_data(type_: type[errors.A2AError], code: int) -> None:
    assert errors.to_object(type_()) == {"code": code, "message": type_.text}


def test_violations_are_listed_one_by_one() -> None:
    answer = errors.to_object(errors.InvalidParams.of([Problem("message.parts", "is required"), Problem("", "no")]))

    assert answer["code"] == -32602
    assert answer["message"] == "Invalid parameters: message.parts: is required; no"
    assert answer["data"] == [
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [
                {"field": "message.parts", "description": "is required"},
                {"field": "", "description": "no"},
            ],
        }
    ]


def test_a_long_list_of_violations_is_complete_in_the_data_and_short_in_the_message() -> None:
    answer = errors.to_object(errors.InvalidParams.of([Problem(f"tasks[{n}].name", "is required") for n in range(500)]))
    assert len(answer["message"]) < 700
    assert len(answer["data"][0]["fieldViolations"]) == 500


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (core_errors.TaskNotFound("t"), -32001),
        (core_errors.TaskNotCancelable("t", "Task t is already completed, cannot cancel"), -32002),
        (core_errors.TreeIsRunning("t", "The tree runs"), -32004),
        (core_errors.IllegalCommand("t", "Task t waits for nothing"), -32004),
        (core_errors.InvalidPlan([Problem("tasks[0].name", "is required")]), -32602),
        (core_errors.CallerError("no"), -32602),
        (core_errors.QuotaExceeded(5, 4), -32050),
        (core_errors.StorageUnavailable("disk full"), -32051),
        (core_errors.DatabaseLost("tasks.db was removed"), -32051),
        (core_errors.DiskReserved("no room"), -32051),
        (core_errors.VersionConflict("t"), -32051),
    ],
)
def test_the_core_s_errors_have_their_place(error: Exception, code: int) -> None:
    assert errors.translate(error).code == code


def test_a_plan_s_problems_reach_the_caller() -> None:
    problem = Problem("tasks[0].dependencies", "a -> b -> a")
    assert errors.translate(core_errors.InvalidPlan([problem])).violations == (problem,)


def test_refusal_for_a_moment_says_when_to_come_back() -> None:
    error = errors.translate(core_errors.StorageUnavailable("the database is 10000 writes behind"))

    assert isinstance(error, errors.Overloaded)
    assert (error.http_status, error.retry_after) == (503, 1)
    assert errors.RateLimited().http_status == 429
    info = errors.to_object(error)["data"][0]
    assert (info["reason"], info["metadata"]) == ("OVERLOADED", {"retryAfter": "1"})


def test_a_database_s_words_do_not_reach_the_caller() -> None:
    error = errors.translate(core_errors.StorageUnavailable("/secret/path.db is full"))
    assert "secret" not in json.dumps(errors.to_object(error))


def test_an_unforeseen_exception_becomes_an_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = errors.translate(RuntimeError("password=hunter2"))
    answer = errors.to_object(error)

    assert answer["code"] == -32603
    assert answer["message"] == "Internal error"
    assert "hunter2" not in json.dumps(answer)
    error_id = answer["data"][0]["metadata"]["errorId"]
    assert error_id in caplog.text
    assert "hunter2" in caplog.text, "the traceback is the operator's"


def test_every_error_can_be_written() -> None:
    for type_, _, _ in TABLE:
        assert encode(errors.to_object(type_()))


def test_a_corrupt_row_is_an_internal_error_with_an_id(caplog: pytest.LogCaptureFixture) -> None:
    error = errors.translate(core_errors.StorageError("The stored task t is corrupt"))

    answer = errors.to_object(error)
    assert (answer["code"], answer["message"]) == (-32603, "Internal error")
    assert answer["data"][0]["metadata"]["errorId"] in caplog.text
    assert "task t is corrupt" in caplog.text


@pytest.mark.parametrize("version", [None, "", "1.0", "1", "1.0.7", " 1.0 "])
def test_a_version_fits_by_its_major_and_minor_numbers(version: str | None) -> None:
    check_version(version, "1.0")


@pytest.mark.parametrize("version", [None, "", "0.3", "0.3.0", "0.3.26"])
def test_an_absent_version_is_that_of_the_method(version: str | None) -> None:
    check_version(version, "0.3")


@pytest.mark.parametrize("version", ["0.3", "99.0", "1.7", "x", "1.0.0.0", "1.", "-1", "٠١.0", "1.0,0.3", "9" * 5000])
def test_another_version_is_refused_with_the_ones_we_speak(version: str) -> None:
    with pytest.raises(errors.VersionNotSupported) as refused:
        check_version(version, "1.0")
    assert refused.value.metadata == {"supportedVersions": "0.3,1.0"}
