"""What one caller may ask: the bucket, what is held at the same time, and how it is told in each shape."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from a2a_server.config import Config
from a2a_server.edge.limits import NO_LIMITS, OF_THE_IDENTIFIED, CallerLimits, Callers, Permit
from a2a_server.protocol.errors import RateLimited
from tests.a2a_server.conftest import message, running, until
from tests.a2a_server.test_app import HEALTH

SLOW = CallerLimits(rate=2.0, burst=3)


@dataclass
class FakeClock:
    time: float = 1000.0

    def __call__(self) -> float:
        return self.time


def ask(callers: Callers, limits: CallerLimits = SLOW, owner: str = "ada", *, more: int = 0) -> Permit:
    permit = callers.permit()
    permit.admit(owner, limits)
    permit.extend(more)
    return permit


def refusal(callers: Callers, limits: CallerLimits = SLOW, owner: str = "ada", *, more: int = 0) -> RateLimited:
    with pytest.raises(RateLimited) as refused:
        ask(callers, limits, owner, more=more)
    return refused.value


def test_burst_passes_at_once_and_then_the_rate_holds() -> None:
    callers = Callers(clock := FakeClock())
    for _ in range(3):
        ask(callers)
    assert refusal(callers).retry_after == 1
    for passed, then in ((0.49, False), (0.01, True), (0.0, False), (0.5, True), (60.0, True)):
        clock.time += passed
        if then:
            ask(callers)
        else:
            refusal(callers)
    for _ in range(2):
        ask(callers)
    refusal(callers)  # a long silence gives one burst, not more


def test_burst_that_is_not_set_is_what_comes_in_two_seconds() -> None:
    assert [CallerLimits(rate=rate).size for rate in (100.0, 2.5, 0.1)] == [200.0, 5.0, 1.0]
    assert CallerLimits(rate=100.0, burst=None, calls=100, streams=100) == OF_THE_IDENTIFIED
    assert OF_THE_IDENTIFIED.size == 200


def test_retry_after_is_the_time_until_the_request_would_pass() -> None:
    callers = Callers(clock := FakeClock())
    slow = CallerLimits(rate=0.1, burst=1)
    ask(callers, slow)
    told = refusal(callers, slow)
    assert told.headers == {"Retry-After": "10"}
    clock.time += told.retry_after
    ask(callers, slow)


def test_callers_do_not_share_a_bucket() -> None:
    callers = Callers(FakeClock())
    for _ in range(3):
        ask(callers)
    refusal(callers)
    ask(callers, owner="grace")


def test_batch_counts_per_item_and_one_larger_than_the_burst_is_paid_for_afterwards() -> None:
    callers = Callers(clock := FakeClock())
    ask(callers, more=1)
    refusal(callers, more=1)  # the one that was left went to the first of the batch
    clock.time += 60
    permit = ask(callers)
    clock.time += 60
    permit.extend(9)  # of a bucket that holds 3
    clock.time += 3.0
    refusal(callers)
    clock.time += 0.5
    ask(callers)


def test_calls_and_streams_at_the_same_time_are_counted_apart_and_given_back() -> None:
    callers, limits = Callers(FakeClock()), CallerLimits(calls=2, streams=1)
    first, second = ask(callers, limits), ask(callers, limits)
    assert refusal(callers, limits).http_status == 429
    first.stream()
    third = ask(callers, limits)
    with pytest.raises(RateLimited) as refused:
        second.stream()
    assert refused.value.retry_after == 5
    first.release()
    second.stream()
    third.release()
    ask(callers, limits, more=1)
    refusal(callers, limits)


def test_streams_of_callers_who_are_not_identified_are_counted_although_their_calls_are_not() -> None:
    callers, limits = Callers(FakeClock()), CallerLimits(streams=2)
    streams = [ask(callers, limits, "anonymous", more=3) for _ in range(3)]
    assert len(callers) == 0, "a call costs them nothing"
    for each in streams[:2]:
        each.stream()
    with pytest.raises(RateLimited, match="At most 2 concurrent streams"):
        streams[2].stream()
    streams[0].release()
    streams[2].stream()
    for each in streams:
        each.release()
    assert [each.streams for each in callers._known.values()] == [0]


def test_releasing_twice_gives_nothing_back_twice() -> None:
    callers, limits = Callers(FakeClock()), CallerLimits(calls=1)
    first = ask(callers, limits)
    first.release()
    first.release()
    ask(callers, limits)
    refusal(callers, limits)


def test_refused_request_holds_nothing() -> None:
    callers, limits = Callers(FakeClock()), CallerLimits(calls=1)
    first = ask(callers, limits)
    refused = callers.permit()
    with pytest.raises(RateLimited):
        refused.admit("ada", limits)
    refused.release()
    first.release()
    ask(callers, limits)


def test_callers_who_say_nothing_any_more_are_forgotten_and_those_who_hold_something_are_not() -> None:
    callers = Callers(clock := FakeClock())
    holding = ask(callers, owner="holds a stream")
    holding.stream()
    for number in range(10_000):
        ask(callers, owner=f"visitor {number}").release()
        clock.time += 0.1
    assert len(callers) < 20
    limits = CallerLimits(rate=2.0, burst=3, streams=1)
    again = ask(callers, limits, owner="holds a stream")
    holding.release()
    again.release()


def test_without_limits_nothing_is_kept() -> None:
    callers = Callers(FakeClock())
    for _ in range(1000):
        permit = ask(callers, NO_LIMITS, more=49)
        permit.stream()
    assert len(callers) == 0
    Permit().admit("ada", SLOW)


@pytest.mark.parametrize(
    ("settings", "is_identified", "limits"),
    [
        ({}, False, CallerLimits(streams=5_000)),
        ({}, True, OF_THE_IDENTIFIED),
        ({"max_rate": 5.0}, False, CallerLimits(rate=5.0, streams=5_000)),
        ({"max_rate": 5.0, "max_burst": 7}, True, CallerLimits(rate=5.0, burst=7, calls=100, streams=100)),
        ({"max_calls": 60, "max_streams": 3}, False, CallerLimits(calls=60, streams=3)),
    ],
)
def test_limits_are_on_for_the_identified_and_for_others_when_they_are_set(
    settings: dict[str, Any], is_identified: bool, limits: CallerLimits
) -> None:
    assert Config(**settings).caller_limits(is_identified=is_identified) == limits


# Over HTTP


@pytest.mark.asyncio
async def test_too_many_requests_are_told_with_429_and_retry_after_before_the_body_is_read() -> None:
    async with running(max_rate=0.01, max_burst=2) as server, server.client() as client:
        for _ in range(2):
            assert (await client.post("/", json=HEALTH)).status_code == 200
        refused = await client.post("/", json=HEALTH)
        events = await client.get("/tasks/x/events")
        assert (await client.get("/.well-known/agent-card.json")).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
    for response in (refused, events):
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["data"][0]["reason"]) == (429, -32050, "RATE_LIMITED")
        assert 0 < int(response.headers["retry-after"]) <= 100


@pytest.mark.asyncio
async def test_http_json_has_its_own_shape_and_the_same_limits() -> None:
    stream = message("hold")
    async with running(max_rate=0.01, max_burst=3, max_streams=1) as server, server.client() as client:
        async with client.stream("POST", "/message:stream", json=stream) as first:
            assert first.status_code == 200
            second = await client.post("/message:stream", json=stream)
        server.lab.released["hold"].set()
        assert (await client.get("/tasks", headers={"A2A-Version": "1.0"})).status_code == 200
        third = await client.get("/tasks", headers={"A2A-Version": "1.0"})
    for refused in (second, third):
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["details"][0]["reason"]) == (429, 429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) > 0


@pytest.mark.asyncio
async def test_batch_is_refused_as_a_whole() -> None:
    async with running(max_rate=0.01, max_burst=5) as server, server.client() as client:
        batch = [HEALTH | {"id": number} for number in range(4)]
        assert len((await client.post("/", json=batch)).json()) == 4
        refused = await client.post("/", json=batch)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, -32050)


@pytest.mark.asyncio
async def test_one_stream_more_than_allowed_is_refused_and_nothing_is_begun_for_it() -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": message("hold")}
    async with running(max_streams=2) as server, server.client() as client:
        count = {"jsonrpc": "2.0", "id": 1, "method": "tasks.running.count"}
        async with (
            client.stream("POST", "/", json=request) as first,
            client.stream("POST", "/", json=request) as second,
        ):
            assert (first.status_code, second.status_code) == (200, 200)
            refused = await client.post("/", json=request)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
            assert (await client.post("/", json=count)).json()["result"]["count"] == 2
        await until(lambda: not server.server.server_state.tasks)
        async with client.stream("POST", "/", json=request) as third:
            assert third.headers["content-type"].startswith("text/event-stream")
        server.lab.released["hold"].set()


@pytest.mark.asyncio
async def test_calls_that_wait_count_until_they_are_answered() -> None:
    blocking = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("hold")}
    async with running(max_calls=2, max_batch=2) as server, server.client() as client:
        waiting = [asyncio.create_task(client.post("/", json=blocking)) for _ in range(2)]
        await server.lab.started["hold"].wait()
        await until(lambda: len(server.server.server_state.tasks) == 2)
        assert (await client.post("/", json=HEALTH)).status_code == 429
        server.lab.released["hold"].set()
        assert [(await each).status_code for each in waiting] == [200, 200]
        assert (await client.post("/", json=HEALTH)).status_code == 200
