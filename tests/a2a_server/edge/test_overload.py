"""What counts as the load, when it is too much, and which calls are refused then."""

from dataclasses import MISSING, dataclass, field
from typing import Any

import pytest

from a2a_server.app import build
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method
from a2a_server.config import Config, load
from a2a_server.edge.overload import (
    CALL,
    LATELY,
    REST,
    RUN,
    WANTED,
    CallKind,
    Classifier,
    Load,
    Thresholds,
)
from a2a_server.protocol.errors import RETRY_AFTER
from core.executors.registry import ExecutorRegistry
from core.model.errors import ConfigurationError
from core.storage.memory import MemoryStorage
from tests.a2a_server.conftest import Caller, calling

SOFT, HARD = 4, 8


@dataclass
class Scene:
    time: float = 1000.0
    load: Load = field(init=False)

    def __post_init__(self) -> None:
        self.load = Load(Thresholds(soft=SOFT, hard=HARD), Classifier({}, {}), lambda: self.time)

    def call(self, count: int) -> list[object]:
        calls = [object() for _ in range(count)]
        for each in calls:
            self.load.begin(each)
        return calls

    @property
    def refused(self) -> list[CallKind]:
        return [kind for kind in CallKind if self.load.refuses(kind)]


def test_burst_is_served_up_to_the_hard_threshold_and_then_hardly_anything() -> None:
    scene = Scene()
    scene.call(HARD - 1)
    assert scene.refused == []
    scene.call(1)
    assert scene.refused == [CallKind.OTHER, CallKind.WORK]


def test_work_is_held_to_the_soft_threshold_while_so_many_as_the_hard_one_want_something() -> None:
    scene = Scene()
    calls = scene.call(HARD)
    others = [object() for _ in range(HARD - SOFT)]
    for rejected in others:
        scene.load.reject(rejected)
    for each in calls[SOFT:]:
        scene.load.end(each)
        assert scene.refused == [CallKind.WORK]
    scene.load.end(calls[0])
    assert scene.refused == [], "there is room below the soft threshold"
    scene.load.begin(others[0])
    assert scene.refused == [], "one of those who were rejected has come in, and is not wanting any more"


def test_a_refused_caller_is_forgotten_when_it_does_not_come_again() -> None:
    scene = Scene()
    scene.call(SOFT)
    for _ in range(HARD - SOFT):
        scene.load.reject(object())
    scene.time += WANTED - 2**-10
    assert scene.refused == [CallKind.WORK]
    scene.time += 2**-10
    assert scene.refused == []
    assert WANTED > RETRY_AFTER, "else all would be let in when they come again, as they were told"


def test_who_asks_again_too_early_does_not_get_a_place_that_is_free_for_a_moment_only() -> None:
    scene = Scene()
    calls = scene.call(SOFT)
    for _ in range(HARD):
        scene.load.reject(object())
    for each in calls:
        scene.load.end(each)
    assert scene.load.busy == 0 and not scene.load.refuses(CallKind.WORK)
    assert scene.load.refuses(CallKind.WORK, early=True) and not scene.load.refuses(CallKind.OTHER, early=True)
    scene.time += LATELY
    assert scene.load.refuses(CallKind.WORK, early=True), "that was lately"
    scene.time += 2 * LATELY
    assert not scene.load.refuses(CallKind.WORK, early=True)
    scene.call(1)
    assert not scene.load.refuses(CallKind.WORK, early=True), "a server with next to nothing in flight takes it"
    scene.call(1)
    assert scene.load.refuses(CallKind.WORK, early=True) and not scene.load.refuses(CallKind.WORK)


def test_rest_after_a_refusal_grows_with_the_number_of_those_who_are_refused() -> None:
    scene = Scene()
    who = object()
    assert scene.load.reject(who) == scene.load.reject(who) == REST
    assert scene.load.reject(object()) == 2 * REST
    for _ in range(int(RETRY_AFTER / REST)):
        longest = scene.load.reject(object())
    assert longest == RETRY_AFTER


def test_calls_that_wait_for_others_are_no_load() -> None:
    scene = Scene()
    for each in scene.call(1000):
        scene.load.end(each)
    assert scene.load.busy == 0
    scene.call(1)
    scene.time += CALL - 2**-10
    assert scene.load.busy == 1, "what the server is slow with is"
    scene.time += 2**-10
    assert scene.load.busy == 0


@pytest.mark.asyncio
async def test_run_counts_for_its_first_second() -> None:
    scene = Scene()
    async with calling() as call:
        call.session.feed.watch(scene.load.committed)
        task_id = await call.begin("hold")
        assert scene.load.busy == 1
        scene.time += RUN - 2**-10
        assert scene.load.busy == 1
        scene.time += 2**-10
        assert scene.load.busy == 0
        call.lab.released["hold"].set()
        await call.session.wait(task_id, lambda head: not head.is_live)


@pytest.mark.asyncio
async def test_run_that_has_ended_is_no_load() -> None:
    scene = Scene()
    async with calling() as call:
        call.session.feed.watch(scene.load.committed)
        task_id = await call.begin("hold")
        call.lab.released["hold"].set()
        await call.session.wait(task_id, lambda head: not head.is_live)
        assert scene.load.busy == call.application.load.busy == 0


BODIES = {
    '{"method":"SendMessage","id":"a"}': (CallKind.WORK, "a"),
    '{"id":7,"params":{"method":"CancelTask"},"method":"tasks.create"}': (CallKind.WORK, 7),
    '{"jsonrpc":"2.0","method":"CancelTask","params":{"method":"SendMessage"}}': (CallKind.EXEMPT, None),
    '{"m\\u0065thod":"\\u0053endMessage"}': (CallKind.WORK, None),
    '{"method":"CancelTask","method":"SendMessage"}': (CallKind.WORK, None),
    '{"method":"GetTask","id":1}': (CallKind.OTHER, 1),
    '{"method":"no such"}': (CallKind.OTHER, None),
    "{}": (CallKind.OTHER, None),
    "[]": (CallKind.OTHER, None),
    '[{"method":"CancelTask"},{"method":"system.health"}]': (CallKind.EXEMPT, None),
    '[{"method":"CancelTask"},{"method":"message/send","id":1}]': (CallKind.WORK, None),
    '{"method":7}': (CallKind.WORK, None),
    '{"method":"SendMessage"': (CallKind.WORK, None),
    "[" * 100_000: (CallKind.WORK, None),
    "": (CallKind.WORK, None),
}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """Those of a server, made of its method table and its paths."""
    return build(Config(), registry=ExecutorRegistry(), storage=MemoryStorage()).load.classifier


@pytest.mark.parametrize("body", BODIES)
def test_method_that_a_body_calls_is_found_as_the_endpoint_finds_it(body: str, classifier: Classifier) -> None:
    assert classifier.of_body(body.encode()) == BODIES[body]


PATHS: dict[tuple[str, str], CallKind | None] = {
    ("GET", "/healthz"): CallKind.EXEMPT,
    ("GET", "/below/readyz"): CallKind.EXEMPT,
    ("GET", "/tasks/1"): CallKind.OTHER,
    ("GET", "/message:send"): CallKind.OTHER,
    ("POST", "/message:send"): CallKind.WORK,
    ("POST", "/tenant/message:stream"): CallKind.WORK,
    ("POST", "/tasks/1:cancel"): CallKind.EXEMPT,
    ("POST", "/tasks/1:subscribe"): CallKind.OTHER,
    ("POST", "/tasks/1/pushNotificationConfigs"): CallKind.OTHER,
    ("POST", "/"): None,
    ("POST", "/tasks"): None,
}


@pytest.mark.parametrize("request_line", PATHS)
def test_path_tells_what_is_asked_for_where_the_body_does_not(
    request_line: tuple[str, str], classifier: Classifier
) -> None:
    assert classifier.of_path(*request_line) == PATHS[request_line]


KINDS = {
    CallKind.EXEMPT: {"CancelTask", "tasks/cancel", "tasks.cancel", "system.health"},
    CallKind.WORK: {
        *("SendMessage", "SendStreamingMessage", "message/send", "message/stream"),
        *("tasks.create", "tasks.execute", "tasks.copy"),
    },
}


@pytest.mark.asyncio
async def test_methods_that_are_not_refused_as_all_others_are(call: Caller) -> None:
    """What stores work is held to the soft threshold, what frees something is never refused; in each version alike."""
    methods = call.application.json_rpc.methods.values()
    for kind, names in KINDS.items():
        assert {each.name for each in methods if each.kind is kind} == names


def test_a_method_does_not_come_without_its_kind() -> None:
    """One that stores work and did not say so would never be refused."""
    with pytest.raises(TypeError, match="kind"):
        Method(name="tasks.new", handler=nothing)  # type: ignore[call-arg]
    assert Method.__dataclass_fields__["kind"].default is MISSING


async def nothing(context: RequestContext, params: Any) -> None:
    """A method's handler."""


def test_hard_threshold_below_the_soft_one_stops_the_start(tmp_path: Any) -> None:
    assert load({"overload_soft": 7, "overload_hard": 7}, {}, tmp_path).overload_hard == 7
    with pytest.raises(ConfigurationError, match="overload-hard"):
        load({"overload_soft": 8, "overload_hard": 7}, {}, tmp_path)
