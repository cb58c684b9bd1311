"""Plays a case, step by step, and says at the first thing that is not as it should be where that was (§4 to §9)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx2

from tests.acceptance.acts.bindings import (
    ERRORS,
    JSONRPC_ERRORS,
    STREAMS,
    Answer,
    Binding,
    call,
    data_of,
    normal,
    opened,
)
from tests.acceptance.acts.corpus import Case, captured, kind_of, resolved
from tests.acceptance.acts.matching import CaseError, at, fits, is_true, problems, state_problems

STREAM_KEYS = frozenset(("min_count", "max_count", "timeout_ms", "ordering", "events", "final_event", "each_event"))
ERROR_NAMES = frozenset(ERRORS) | frozenset(JSONRPC_ERRORS.values()) | {"StreamingNotSupportedError"}


@dataclass(slots=True, kw_only=True)
class Player:
    """One case on its way. `anonymous` is who calls without credentials, for the cases about that."""

    case: Case
    binding: Binding
    anonymous: httpx2.Client
    given: Mapping[str, Any]  # variables of the one who runs it
    adds_message_ids: bool = False  # to raw requests as well; §12.4 wants it of the others
    answers: dict[str, Answer] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)

    def play(self) -> None:
        """Raises AssertionError when the server is wrong, CaseError when the case cannot be played."""
        self.variables = {**self.case.variables, **self.given}
        for step in self.case.steps:
            match kind_of(step):
                case "operation":
                    self._operation(step)
                case "raw":
                    self._raw(step)
                case "assertion":
                    self._assert(step["assertion"], step["id"])
                case kind:
                    raise CaseError(f"{step['id']}: {kind} is for a client")
            self._assert_all(step.get("assertions", ()), step["id"])
        self._assert_all(self.case.assertions, "the test")

    def _operation(self, step: Mapping[str, Any]) -> None:
        params = resolved(step["params"], self.variables)
        answer = call(self.binding, step["operation"], params)
        if (repeat := step.get("repeat")) is not None and not is_true(repeat["until"], answer.body):
            answer = self._repeated(step, params)
        is_stream = normal(step["operation"], params)[0] in STREAMS
        if is_stream and answer.error is None and "expect_stream" not in step:
            raise AssertionError(f"{step['id']}: a stream came")
        events = [_open(event) for event in answer.events]
        self._judge(step, answer, events, answer.body)

    def _repeated(self, step: Mapping[str, Any], params: dict[str, Any]) -> Answer:
        """Ask again (§9), after each change of the task, which its stream tells, in place of after a pause."""
        until = step["repeat"]["until"]
        with opened(self.binding, "subscribe_to_task", {"id": params["id"]}) as (_, changes):
            for _ in changes:
                answer = call(self.binding, step["operation"], params)
                if is_true(until, answer.body):
                    return answer
        raise AssertionError(f"{step['id']}: never {until}")

    def _raw(self, step: Mapping[str, Any]) -> None:
        raw = resolved(step["raw"], self.variables)
        if unknown := set(raw) - {"method", "path", "headers", "body", "body_raw"}:
            raise CaseError(f"raw has {', '.join(sorted(unknown))}")
        if self.adds_message_ids:
            raw["body"]["params"]["message"].setdefault("messageId", str(uuid4()))
        http = self.anonymous if "auth" in self.case.tags else self.binding.http
        content = {"content": raw["body_raw"]} if "body_raw" in raw else {"json": raw["body"]} if "body" in raw else {}
        response = http.request(raw["method"], raw["path"], headers=raw.get("headers"), **content)
        is_stream = response.headers["content-type"].startswith("text/event-stream")
        events = list(data_of(iter(response.text.splitlines()))) if is_stream else []
        body = None if is_stream else response.json()
        answer = Answer(status=response.status_code, body=body, headers=response.headers, events=events)
        self._judge(step, answer, events, body)

    def _judge(self, step: Mapping[str, Any], answer: Answer, events: list[Any], body: Any) -> None:
        """Hold the answer against what the step expects, and keep what later steps need."""
        name = step["id"]
        if "expect_error" in step:
            _no_problem(_error_problems(self._wanted(step, "expect_error"), answer), name)
        elif "expect" in step or "expect_stream" not in step:
            _no_problem(_answer_problems(self._wanted(step, "expect"), answer), name)
        if "expect_stream" in step:
            _no_problem(_stream_problems(self._wanted(step, "expect_stream"), events), name)
        self.answers[name] = answer
        self.variables[f"{name}.response"] = body
        for variable, value in captured(body, step.get("capture", {})):
            self.variables[f"{name}.{variable}"] = value

    def _wanted(self, step: Mapping[str, Any], key: str) -> dict[str, Any]:
        wanted: dict[str, Any] = resolved(step.get(key, {}), self.variables)
        return wanted

    def _assert_all(self, assertions: Iterable[Mapping[str, Any]], where: str) -> None:
        for each in assertions:
            self._assert(each, where)

    def _assert(self, assertion: Mapping[str, Any], where: str) -> None:
        """A named or an inline assertion (§5.5)."""
        wanted = resolved(assertion, self.variables)
        if unknown := set(wanted) - {"id", "description", "source", "path", "match", "any", "all", "none"}:
            raise CaseError(f"an assertion has {', '.join(sorted(unknown))}")
        source = wanted["source"]
        if "path" in wanted:
            source = next(iter(at(source, wanted["path"])), None)
        if "match" in wanted:
            _no_problem(problems(wanted["match"], source), where)
        for quantifier, holds in (("any", any), ("all", all), ("none", _none)):
            if quantifier in wanted:
                found = at(source, wanted[quantifier]["path"])
                right = holds(fits(wanted[quantifier]["match"], each) for each in found)
                assert right, f"{where}: {quantifier} of {found!r} does not fit {wanted[quantifier]['match']!r}"


def _none(each: Iterable[bool]) -> bool:
    return not any(each)


def _no_problem(found: Iterator[str], where: str) -> None:
    first = next(found, None)
    assert first is None, f"{where}: {first}"


def _answer_problems(wanted: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    """`expect` (§6.1). The published cases also leave `body` out, and expect an error as a status and a field."""
    body = {name: value for name, value in wanted.items() if name not in ("status", "body")} | wanted.get("body", {})
    failed = answer.error is not None
    expected = wanted.get("status", "error" if "error" in body else 200)
    yield from problems(expected, "error" if failed else answer.status, "status")
    yield from problems(body, {"error": answer.error} if failed else answer.body)


def _error_problems(wanted: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    """`expect_error` (§6.2). The published cases call the error's type `code` and its details `data`."""
    if unknown := set(wanted) - {"error_type", "code", "message", "details", "data"}:
        raise CaseError(f"expect_error has {', '.join(sorted(unknown))}")
    if answer.error is None:
        yield f"no error came but {answer.body!r}"
        return
    for key, name in (
        ("error_type", "name"),
        ("code", "name"),
        ("message", "message"),
        ("details", "data"),
        ("data", "data"),
    ):
        if key in wanted:
            if name == "name" and isinstance(wanted[key], str) and wanted[key] not in ERROR_NAMES:
                raise CaseError(f"ACTS has no error {wanted[key]!r}")
            yield from problems(wanted[key], answer.error[name], name)


def _stream_problems(wanted: Mapping[str, Any], events: list[Any]) -> Iterator[str]:
    """`expect_stream` (§7)."""
    if unknown := set(wanted) - STREAM_KEYS:
        raise CaseError(f"expect_stream has {', '.join(sorted(unknown))}")
    if not wanted.get("min_count", 1) <= len(events) <= wanted.get("max_count", len(events)):
        yield f"{len(events)} events came"
        return
    if (ordering := wanted.get("ordering")) is not None:
        if ordering != "monotonic_state":
            raise CaseError(f"ACTS has no ordering {ordering!r}")
        yield from state_problems([each["status"]["state"] for each in events if "status" in each])
    for each in events:
        yield from problems(wanted.get("each_event", {}), each, "each_event")
    yield from problems(wanted.get("final_event", {}), events[-1], "final_event")
    for position, expected in enumerate(wanted.get("events", ())):
        yield from _event_problems(expected, events, position)


def _event_problems(expected: Mapping[str, Any], events: list[Any], position: int) -> Iterator[str]:
    assertion = {key: value for key, value in expected.items() if key not in ("description", "match", "index")}
    match expected.get("match", "exact_position"):
        case "any_position":
            if not any(fits(assertion, each) for each in events):
                yield f"no event fits {assertion!r}"
        case "exact_position":
            index = expected.get("index", position)
            yield from problems(assertion, events[index] if index < len(events) else None, f"events[{index}]")
        case unknown:
            raise CaseError(f"ACTS has no match {unknown!r}")


def _open(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event as cases look at it: by the name of its kind (§7), and, in the published ones, its fields themselves."""
    names = {"statusUpdate": "status_update", "artifactUpdate": "artifact_update"}
    ((kind, payload),) = event.items()
    return {**payload, kind: payload, names.get(kind, kind): payload}
