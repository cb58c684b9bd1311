"""The limits of one caller's requests, each at its figure and one past it, and `system.limits` (reliability, 3.3)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import pytest

from a2a_server.config import Config, load
from a2a_server.context import RequestContext
from a2a_server.limit_table import SETTINGS, limits_in_force
from core.errors import ConfigurationError
from core.jsonvalue import MAX_BYTES, json_size
from tests.a2a_server import test_app as app
from tests.a2a_server import test_connection as connection
from tests.a2a_server import test_deadlines as deadlines
from tests.a2a_server import test_inflight as inflight
from tests.a2a_server import test_limits as limits
from tests.a2a_server import test_methods_messages as methods_messages
from tests.a2a_server import test_methods_push as methods_push
from tests.a2a_server import test_overload as overload
from tests.a2a_server import test_streams as streams
from tests.a2a_server.conftest import Caller, calling, message, somebody
from tests.a2a_server.push import test_outbox as outbox
from tests.core import test_egress as egress
from tests.core import test_queue as queue
from tests.core import test_retention as retention
from tests.core import test_runner as runner
from tests.core import test_runner_limits as runner_limits
from tests.core import test_stored as stored
from tests.storage import test_guard as guard


def chain(size: int) -> list[dict[str, Any]]:
    """A tree that is as deep as it has tasks."""
    return [{"id": f"t{n}", "name": "echo"} | ({"parent_id": f"t{n - 1}"} if n else {}) for n in range(size)]


def fan(size: int) -> list[dict[str, Any]]:
    return [{"id": f"t{n}", "name": "echo"} | ({"parent_id": "t0"} if n else {}) for n in range(size)]


async def created(call: Caller, tasks: list[dict[str, Any]]) -> int | None:
    """The error's code; None for success."""
    return await outcome(call, "tasks.create", tasks)


async def with_file(call: Caller, size: int) -> int | None:
    given = message("echo", {"raw": msgspec.json.encode(bytes(size)).decode().strip('"')})
    return await outcome(call, "SendMessage", given)


async def one_by_one(call: Caller, count: int) -> int | None:
    codes = [await outcome(call, "tasks.create", {"name": "echo"}) for _ in range(count)]
    assert codes[:-1] == [None] * (count - 1)
    return codes[-1]


async def batch(call: Caller, size: int) -> int | None:
    item = {"jsonrpc": "2.0", "id": 1, "method": "system.health"}
    reply = await call.application.door.handle(msgspec.json.encode([item] * size), RequestContext())
    answer = msgspec.json.decode(reply.body)
    return answer["error"]["code"] if isinstance(answer, dict) else None


async def nested(call: Caller, levels: int) -> int | None:
    """The request is the first, its array the second, the task the third, its inputs the fourth."""
    value: Any = {}
    for _ in range(levels - 4):
        value = {"a": value}
    return await outcome(call, "tasks.create", [{"name": "echo", "inputs": value}])


async def valued(call: Caller, count: int) -> int | None:
    """The request itself counts, and each of its fields."""
    item = {"jsonrpc": "2.0", "id": 1, "method": "system.health"} | {str(n): "[,{" for n in range(count - 4)}
    return await told_of(call, msgspec.json.encode(item))


async def outcome(call: Caller, method: str, params: Any) -> int | None:
    return await told_of(call, msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))


async def told_of(call: Caller, body: bytes) -> int | None:
    reply = await call.application.door.handle(body, RequestContext())
    code: int | None = msgspec.json.decode(reply.body).get("error", {}).get("code")
    return code


Ask = Callable[[Caller, int], Awaitable[int | None]]
MET: dict[str, tuple[Ask, int]] = {  # how to come to the limit of 4, and the code of what is past it
    "max_batch": (batch, -32600),
    "max_nesting": (nested, -32700),
    "max_values": (valued, -32700),
    "max_tree_tasks": (lambda call, n: created(call, fan(n)), -32602),
    "max_depth": (lambda call, n: created(call, chain(n)), -32602),
    "max_open_tasks": (one_by_one, -32050),
    "max_file": (with_file, -32602),
}


# The others, each by the test that comes to it and past it.
TESTED: Mapping[str, Callable[..., Any]] = {
    "max_connections": connection.test_one_connection_too_many_is_told_and_closed_and_its_place_is_found_again,
    "max_connections_per_address": connection.test_connections_are_counted_in_all_and_by_address,
    "max_head": connection.test_head_at_the_limit_passes_and_the_next_request_has_a_limit_of_its_own,
    "max_header_fields": connection.test_fields_at_the_limit_pass_and_one_more_does_not,
    "max_body": app.test_body_up_to_the_limit_passes_and_one_byte_more_does_not,
    "max_http_bytes": inflight.test_all_callers_hold_so_many_bytes_and_no_more,
    "max_http_bytes_per_caller": inflight.test_one_caller_holds_so_many_bytes_and_no_more,
    "max_push_configs": methods_push.test_a_task_has_so_many_webhooks_and_no_more,
    "overload_soft": overload.test_work_is_held_to_the_soft_threshold_while_so_many_as_the_hard_one_want_something,
    "overload_hard": overload.test_burst_is_served_up_to_the_hard_threshold_and_then_hardly_anything,
    "disk_reserve": guard.test_only_small_appends_to_what_is_there_may_use_the_reserve,
    "max_stored_per_caller": stored.test_an_owner_at_its_quota_is_refused_and_others_are_not,
    "fold_after": retention.test_a_tree_is_folded_and_then_removed_each_after_its_time,
    "delete_after": retention.test_a_tree_is_folded_and_then_removed_each_after_its_time,
    "max_running": runner.test_a_process_runs_no_more_tasks_than_its_limit,
    "max_processes": runner.test_child_processes_are_limited_over_all_executors,
    "max_running_per_caller": queue.test_a_caller_gets_no_more_than_its_share_and_others_start_at_once,
    "max_task_seconds": runner_limits.test_an_attempt_takes_no_longer_than_the_process_allows,
    "max_threads": runner_limits.test_threads_that_hang_are_counted_until_they_end,
    "max_running_per_tree": runner.test_a_tree_runs_no_more_tasks_than_its_limit,
    "max_in_flight": methods_messages.test_inputs_beyond_what_the_process_may_hold_are_refused_as_overload,
    "max_in_flight_per_caller": (
        methods_messages.test_inputs_beyond_the_caller_s_share_are_refused_until_others_have_ended
    ),
    "sse_ping": streams.test_quiet_stream_is_kept_alive_by_comments,
    "head_timeout": deadlines.test_connection_that_says_nothing_is_closed_without_a_word,
    "body_timeout": deadlines.test_body_is_late_after_its_time_however_fast_it_is,
    "min_body_rate": deadlines.test_body_has_a_least_rate,
    "send_buffer": app.test_connections_keep_for_a_slow_reader_what_the_setting_says,
    "send_timeout": deadlines.test_reader_that_takes_nothing_is_reset_and_one_that_takes_little_is_not,
    "keep_alive": connection.test_connection_that_is_idle_stays_until_its_time_has_come,
    "push_timeout": egress.test_time_limit_counts_the_whole_call,
    "push_retry_initial": outbox.test_waits_double_with_full_jitter_up_to_the_longest,
    "push_retry_longest": outbox.test_waits_double_with_full_jitter_up_to_the_longest,
    "push_max_age": outbox.test_an_event_that_is_too_old_is_given_up_and_the_next_one_has_its_turn,
    "drain": app.test_work_that_does_not_stop_does_not_hold_the_end_up,
    "max_rate": limits.test_burst_passes_at_once_and_then_the_rate_holds,
    "max_burst": limits.test_burst_passes_at_once_and_then_the_rate_holds,
    "max_calls": limits.test_calls_and_streams_at_the_same_time_are_counted_apart_and_given_back,
    "max_streams": limits.test_one_stream_more_than_allowed_is_refused_and_nothing_is_begun_for_it,
}


PIECES = [{"artifactId": "x" * 36, "parts": [{"text": text}], "name": "chunks"} for text in ("one ", "two")]
GIVEN: dict[str, tuple[dict[str, Any], int, str]] = {  # a task, the bytes of what it gives, and what is said of more
    "max_artifact": ({"name": "echo", "inputs": {"a": "x"}}, len('{"a": "x"}'), "the result has 10 bytes of JSON"),
    "max_output": ({"name": "chunks"}, sum(map(json_size, PIECES)), "the artifacts of this attempt have more than"),
}


def test_every_limit_that_is_told_is_tested() -> None:
    shown = limits_in_force(Config(), is_identified=True)
    assert shown.keys() == MET.keys() | TESTED.keys() | GIVEN.keys()


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.asyncio
async def test_an_executor_may_give_so_much_and_a_byte_more_fails_its_task(name: str) -> None:
    task, size, problem = GIVEN[name]
    for limit, status in ((size, "completed"), (size - 1, "failed")):
        async with calling(**{name: limit}) as call:
            ended = await call("tasks.execute", {"tasks": [task], "wait": True})
            assert ended["status"] == status
            assert (problem in (ended["error"] or "")) is (status == "failed")


@pytest.mark.asyncio
async def test_what_is_larger_than_usual_is_told_where_it_is_allowed() -> None:
    given = {"text": "x" * MAX_BYTES}
    async with calling(max_artifact=2 * MAX_BYTES) as call:
        task = (await call("SendMessage", message("echo", {"data": given})))["task"]
        assert task["artifacts"][0]["parts"][0]["data"] == given
        assert (await call("GetTask", {"id": task["id"]}))["artifacts"] == task["artifacts"]


@pytest.mark.parametrize("name", MET)
@pytest.mark.asyncio
async def test_what_is_at_the_limit_passes_and_one_more_does_not(name: str) -> None:
    ask, code = MET[name]
    for size, expected in ((4, None), (5, code)):
        async with calling(**{name: 4}) as call:
            assert await ask(call, size) == expected


@pytest.mark.asyncio
async def test_the_limits_in_force_are_told() -> None:
    async with calling(max_file=7, max_streams=3, max_rate=10.0) as call:
        told = await call("system.limits")
        assert (told["max_file"], told["max_streams"], told["max_rate"], told["max_burst"]) == (7, 3, 10.0, 20.0)
        assert told["max_calls"] is None, "who is not identified has none"
        assert (await call("system.limits", principal=somebody("ann")))["max_calls"] == 100


def test_every_limit_of_a_setting_can_be_configured(tmp_path: Any) -> None:
    """By its own name, in the environment; and nonsense is refused."""
    given = {f"A2A_SERVER_{name.upper()}": "7" for name in SETTINGS if name != "max_batch"}
    config = load({}, given | {"A2A_SERVER_IDEMPOTENCY_KEEP": "7"}, tmp_path)
    shown = limits_in_force(config, is_identified=False)
    assert {shown[name] for name in SETTINGS if name != "max_batch"} == {7}
    for variable in given:
        with pytest.raises(ConfigurationError):
            load({}, {variable: "-1"}, tmp_path)
    assert limits_in_force(Config(), is_identified=True)["max_rate"] == 100.0
