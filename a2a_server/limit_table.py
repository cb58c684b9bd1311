"""Every limit on what a caller, a fetched answer or a remote server can make this server spend. One row each.

`system.limits` and `docs/limits.md` (scripts/limits_page.py) are made from this table. A test holds that the test that
a row names exists.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal

from msgspec import Struct

from a2a_server.auth import jwks
from a2a_server.bindings import aside, jsonrpc
from a2a_server.config import Config
from a2a_server.edge import head_bounds, inflight
from a2a_server.edge.limits import CallerLimits
from a2a_server.logs import BURST, PER_SECOND
from a2a_server.methods import cancels, content, idempotency, push, task_params, turns
from a2a_server.push import configs, parcels, schedule, undelivered, webhooks
from a2a_server.shares import part_per_caller, slots_per_caller
from a2a_server.views import selection, snapshots
from a2a_server.views.frames import CACHE_BYTES
from core.executors import judges, schema
from core.executors.builtins import rest
from core.loop import beside, large_values
from core.model import in_flight, inputs, jsonscan, plan, problems, quarantine, replay
from core.model.decide import MAX_CRASHES
from core.outside import egress, fetch_room, fetched, names, wire
from core.run import attempts, brought_schemas, lending, topic
from core.storage import base

Group = Literal[
    "connections and requests",
    "each caller",
    "messages, tasks and trees",
    "running tasks",
    "lists and logs",
    "streams",
    "webhooks",
    "outbound calls and names",
    "callers' credentials",
    "stored data and the process",
]
Unit = Literal["", "bytes", "characters", "seconds", "a second", "levels", "digits", "bytes a second"]
Value = Callable[[Config, CallerLimits], Any]


REFUSED: Final = "-32602 (400)"
LIMITED: Final = "-32050 (429) with `Retry-After`"
OVERLOADED: Final = "-32051 (503) with `Retry-After`"
FAILS: Final = "the task fails and says why"
WAITS: Final = "waits for its turn"


class Setting(Struct, frozen=True):
    """A bound that is a setting. `usual`: the default in words, where it depends on the machine or the caller."""

    group: Group
    name: str  # in `system.limits` as well, like that of the others
    what: str
    unit: Unit
    beyond: str  # what happens there: the JSON-RPC code and HTTP status, or what is done
    test: str  # file::function, below tests/
    usual: str = ""
    is_setting: ClassVar = True

    def value(self, config: Config, caller: CallerLimits) -> Any:
        return getattr(config, self.name)


class OfCaller(Struct, frozen=True):
    """A setting that is a bound of each caller: `field` has that of one."""

    name: str
    field: str
    what: str
    unit: Unit
    test: str
    usual: str
    group: ClassVar[Group] = "each caller"
    beyond: ClassVar = LIMITED
    is_setting: ClassVar = True

    def value(self, config: Config, caller: CallerLimits) -> Any:
        return getattr(caller, self.field)


class Fixed(Struct, frozen=True):
    """A bound that is the same everywhere."""

    group: Group
    name: str
    amount: Any
    what: str
    unit: Unit
    beyond: str
    test: str
    usual: ClassVar = ""
    is_setting: ClassVar = False

    def value(self, config: Config, caller: CallerLimits) -> Any:
        return self.amount


class Derived(Struct, frozen=True, kw_only=True):
    """A bound that is computed from several settings."""

    group: Group
    name: str
    what: str
    unit: Unit = ""
    beyond: str
    test: str
    value: Value
    is_setting: bool = False
    usual: str = ""


Limit = Setting | OfCaller | Fixed | Derived

_REQUESTS: Final[Group] = "connections and requests"
_TASKS: Final[Group] = "messages, tasks and trees"
_RUNNING: Final[Group] = "running tasks"
_LISTS: Final[Group] = "lists and logs"
_PUSH: Final[Group] = "webhooks"
_OUT: Final[Group] = "outbound calls and names"
_WHO: Final[Group] = "callers' credentials"
_DATA: Final[Group] = "stored data and the process"

_BESIDE: Final = "a piece at a time in a thread"
_MET: Final = "a2a_server/test_limit_table.py::test_what_is_at_the_limit_passes_and_one_more_does_not"
_GIVEN: Final = "a2a_server/test_limit_table.py::test_an_executor_may_give_so_much_and_a_byte_more_fails_its_task"
_BURST: Final = "a2a_server/edge/test_limits.py::test_burst_passes_at_once_and_then_the_rate_holds"
_FLOOD: Final = "a2a_server/test_logs.py::test_one_line_of_code_logs_a_burst_and_then_so_many_a_second"
_CONTENT: Final = "a2a_server/methods/test_content.py::test_every_limit_holds_at_its_value_and_not_beyond"
_WAITS: Final = "a2a_server/push/test_outbox.py::test_waits_double_with_full_jitter_up_to_the_longest"
_RETIRED: Final = "core/run/test_retention.py::test_a_tree_is_compacted_and_then_removed_each_after_its_time"
_LOGS: Final = "core/storage/sqlite/test_sql.py::test_pages_of_a_log_end_early_where_they_are_large"
_TOO_LONG: Final = (
    "core/storage/sqlite/test_read_pool.py"
    "::test_a_list_that_takes_too_long_is_refused_and_its_connection_serves_the_next"
)
_IN_TURN: Final = (
    "a2a_server/methods/test_methods_turns.py"
    "::test_a_caller_with_many_lists_reads_one_at_a_time_and_another_caller_is_served"
)
_HOLES: Final = (
    "a2a_server/push/test_outbox.py::test_receivers_of_one_caller_that_never_answer_delay_no_delivery_of_another"
)
_ON_THEIR_WAY: Final = "a2a_server/push/test_parcels.py::test_so_many_bytes_are_on_their_way_and_the_others_wait"
_NAMES: Final = "core/outside/test_names.py::test_slow_names_of_one_caller_delay_no_other_caller"

# fmt: off
LIMITS: Final[tuple[Limit, ...]] = (
    Setting(_REQUESTS, "max_connections", "open connections", "", "503, closed",
            "a2a_server/edge/test_connection.py::"
            "test_one_connection_too_many_is_told_and_closed_and_its_place_is_found_again"),
    Setting(_REQUESTS, "max_connections_per_address", "open connections of one address", "", "503, closed",
            "a2a_server/edge/test_connection_count.py::test_connections_are_counted_in_all_and_by_address"),
    Setting(_REQUESTS, "max_head", "head of a request", "bytes", "431; 414 for its target",
            "a2a_server/edge/test_connection.py::"
            "test_head_at_the_limit_passes_and_the_next_request_has_a_limit_of_its_own"),
    Setting(_REQUESTS, "max_header_fields", "header fields of a request", "", "431",
            "a2a_server/edge/test_connection.py::test_fields_at_the_limit_pass_and_one_more_does_not"),
    Setting(_REQUESTS, "max_body", "body of a request", "bytes", "-32600 (413)",
            "a2a_server/test_app.py::test_body_up_to_the_limit_passes_and_one_byte_more_does_not"),
    Fixed(_REQUESTS, "body_framing", head_bounds.FRAMING, "chunk headers and trailers of a request, beside `max_head` "
          "and half of its body", "bytes", "413, closed", "a2a_server/edge/test_connection.py::"
          "test_what_is_around_a_body_and_behind_it_is_bounded"),
    Setting(_REQUESTS, "max_nesting", "nesting of a body's JSON", "levels", "-32700 (400)", _MET),
    Setting(_REQUESTS, "max_values", "values of a body's JSON", "", "-32700 (400)", _MET),
    Setting(_REQUESTS, "max_batch", "requests of a batch", "", "-32600 (400)", _MET),
    Setting(_REQUESTS, "head_timeout", "time for a head to arrive", "seconds", "closed",
            "a2a_server/edge/test_deadlines.py::test_connection_that_says_nothing_is_closed_without_a_word"),
    Setting(_REQUESTS, "body_timeout", "time for a body to arrive", "seconds", "-32600 (408)",
            "a2a_server/edge/test_deadlines.py::test_body_is_late_after_its_time_however_fast_it_is"),
    Setting(_REQUESTS, "min_body_rate", "minimum rate of a body, after 5 seconds", "bytes a second", "-32600 (408)",
            "a2a_server/edge/test_deadlines.py::test_body_has_a_least_rate"),
    Setting(_REQUESTS, "keep_alive", "time that a connection may be idle", "seconds", "closed",
            "a2a_server/edge/test_connection.py::test_connection_that_is_idle_stays_until_its_time_has_come"),
    Setting(_REQUESTS, "max_http_bytes_per_caller", "bodies, their values and unsent answers of one caller", "bytes",
            LIMITED, "a2a_server/edge/test_inflight.py::test_one_caller_holds_so_many_bytes_and_no_more"),
    Setting(_REQUESTS, "max_http_bytes", "the same of all callers together", "bytes", OVERLOADED,
            "a2a_server/edge/test_inflight.py::test_all_callers_hold_so_many_bytes_and_no_more"),
    Fixed(_REQUESTS, "small_body", inflight.SMALL, "a body or answer not counted there: cancels always fit",
          "bytes", "counted", "a2a_server/edge/test_inflight.py::"
          "test_a_body_past_the_bound_is_refused_and_a_small_call_is_not"),
    Fixed(_REQUESTS, "body_on_loop", aside.LARGE, "a body that is decoded on the event loop", "bytes",
          "decoded and planned in a thread, one per caller at a time",
          "a2a_server/bindings/test_aside.py::test_a_large_body_is_decoded_and_planned_beside_the_loop"),
    Fixed(_REQUESTS, "batch_size", jsonrpc.BATCH_BYTES, "responses of one batch", "bytes",
          "-32600 instead of each further read",
          "a2a_server/bindings/test_jsonrpc.py::test_reads_of_a_batch_take_turns_and_end_where_their_responses_are_large"),
    Fixed(_REQUESTS, "number", jsonscan.LONGEST_NUMBER, "a number in a body or in fetched JSON", "digits",
          "-32700 (400); a fetched one fails its task",
          "core/model/test_jsonscan.py::test_long_numbers_are_found_outside_of_strings"),
    Fixed(_REQUESTS, "sent_ahead", head_bounds.SENT_AHEAD, "pipelined requests on one connection", "",
          "closed after them", "a2a_server/edge/test_connection_framing.py::"
          "test_so_many_requests_are_taken_ahead_and_one_more_ends_the_connection"),
    Setting(_REQUESTS, "send_buffer", "what the kernel buffers for a slow reader", "bytes", "the sender waits",
            "a2a_server/test_app.py::test_connections_keep_for_a_slow_reader_what_the_setting_says"),
    Setting(_REQUESTS, "send_timeout", "time without progress of a slow reader", "seconds", "reset; streams resume",
            "a2a_server/edge/test_deadlines.py::"
            "test_reader_that_takes_nothing_is_reset_and_one_that_takes_little_is_not"),
    Setting(_REQUESTS, "overload_hard", "calls in flight or recently refused", "", OVERLOADED,
            "a2a_server/edge/test_overload.py::test_burst_is_served_up_to_the_hard_threshold_and_then_hardly_anything"),
    Setting(_REQUESTS, "overload_soft", "calls in flight under overload", "", OVERLOADED,
            "a2a_server/edge/test_overload.py::"
            "test_work_is_held_to_the_soft_threshold_while_so_many_as_the_hard_one_want_something"),

    OfCaller("max_rate", "rate", "requests", "a second", _BURST, "100; none for the unidentified"),
    Derived(group="each caller", name="max_burst", what="requests at once", beyond=LIMITED, test=_BURST,
            is_setting=True, value=lambda config, caller: None if caller.rate is None else caller.size,
            usual="as many as come in 2 seconds"),
    OfCaller("max_calls", "calls", "concurrent calls, including waiting ones and items of batches", "",
             "a2a_server/edge/test_limits.py::"
             "test_calls_and_streams_at_the_same_time_are_counted_apart_and_given_back",
             "100; none for the unidentified, beside `max_connections` × `max_batch`"),
    OfCaller("max_streams", "streams", "open streams", "",
             "a2a_server/edge/test_limits.py::"
             "test_one_stream_more_than_allowed_is_refused_and_nothing_is_begun_for_it",
             "100; 5,000 of all the unidentified"),

    Setting(_TASKS, "max_open_tasks", "unfinished tasks of one caller", "", LIMITED, _MET),
    Setting(_TASKS, "max_tree_tasks", "tasks of one tree", "", REFUSED, _MET),
    Setting(_TASKS, "max_depth", "depth of a tree", "levels", REFUSED, _MET),
    Setting(_TASKS, "max_file", "a file in a message", "bytes", REFUSED, _MET),
    Fixed(_TASKS, "schema", brought_schemas.MAX_BYTES, "an input schema of a task", "bytes", REFUSED,
          "core/run/test_brought_schemas.py::test_schemas_of_one_request_are_bounded"),
    Fixed(_TASKS, "schema_parts", plan.MAX_SCHEMA_NODES, "parts of such a schema", "", REFUSED,
          "core/model/test_plan.py::test_the_words_of_what_is_wrong_with_a_tasks_extras"),
    Fixed(_TASKS, "schemas_parts", brought_schemas.MAX_PARTS, "parts of all different schemas of one request", "",
          REFUSED, "core/run/test_brought_schemas.py::test_schemas_of_one_request_are_bounded"),
    Fixed(_TASKS, "judged_at_once", schema.MOST_COST, "schema parts times values validated on the event loop", "",
          "validated in a child process",
          "core/executors/test_schema.py::test_what_could_take_long_is_not_judged_at_once"),
    Fixed(_TASKS, "judging", judges.SECONDS, "one validation in such a process", "seconds", FAILS + ", or " + REFUSED,
          "core/executors/test_judges.py::test_endless_judgement_is_killed_and_the_next_one_is_done"),
    Fixed(_TASKS, "judging_memory", judges.MEMORY, "memory of such a process", "bytes", FAILS + ", or " + REFUSED,
          "core/executors/test_judges.py::test_judgement_that_takes_too_much_memory_is_given_up"),
    Fixed(_TASKS, "judging_waits", judges.MOST_WAITING, "waiting validations of one caller", "", LIMITED,
          "core/executors/test_judges.py::test_one_owner_may_have_so_many_waiting"),
    Fixed(_TASKS, "problems", problems.MAX_PROBLEMS, "problems of a tree in one answer", "",
          "the rest is only counted",
          "core/model/test_plan.py::test_no_more_than_a_hundred_problems_are_told_and_the_others_are_counted"),
    Fixed(_TASKS, "parts", content.MOST_PARTS, "parts of a message", "", REFUSED, _CONTENT),
    Fixed(_TASKS, "references", content.MOST_REFERENCES, "`referenceTaskIds` of a message", "", REFUSED, _CONTENT),
    Fixed(_TASKS, "extensions", content.MOST_EXTENSIONS, "extensions of a message", "", REFUSED, _CONTENT),
    Fixed(_TASKS, "context_id", content.LONGEST_CONTEXT_ID, "a `contextId`", "characters", REFUSED, _CONTENT),
    Fixed(_TASKS, "task_ids", task_params.MOST_IDS, "ids of one `tasks.cancel` or `tasks.running.status`", "", REFUSED,
          "a2a_server/test_limit_table.py::test_one_call_names_so_many_tasks_and_no_more"),
    Fixed(_TASKS, "cancels_at_a_time", cancels.CANCELS_AT_A_TIME, "ids of one caller's `tasks.cancel` at once", "",
          WAITS + "; dropped when the caller leaves",
          "a2a_server/methods/test_cancels.py::test_many_ids_are_cancelled_so_many_at_a_time"),
    Fixed(_TASKS, "cancels", cancels.CANCELS, "the same of all callers", "", WAITS,
          "a2a_server/methods/test_cancels.py::"
          "test_all_calls_of_one_caller_share_its_cancels_and_another_caller_has_its_own"),
    Fixed(_TASKS, "idempotency_key", idempotency.LONGEST_KEY, "an `Idempotency-Key`", "characters", REFUSED,
          "a2a_server/methods/test_methods_idempotency.py::test_a_key_is_printable_ascii_of_bounded_length"),
    Setting(_TASKS, "idempotency_keep", "time that an `Idempotency-Key` is remembered", "seconds", "forgotten",
            "a2a_server/methods/test_methods_idempotency.py::"
            "test_a_key_is_forgotten_after_its_time_and_removed_with_later_ones"),

    Fixed(_RUNNING, "nested_runs", lending.MAX_NESTED, "nested runs of trees by executors", "", FAILS,
          "core/run/test_lending.py::test_an_endless_nesting_is_told"),
    Fixed(_RUNNING, "told_before_question", replay.MOST_TOLD,
          "messages, and artifacts, recognised as repeated when an executor runs again after an answer", "",
          "sent again", "core/model/test_replay.py::test_what_is_known_is_bounded"),
    Setting(_RUNNING, "max_running", "running tasks of the process", "", WAITS,
            "core/run/test_runner.py::test_a_process_runs_no_more_tasks_than_its_limit"),
    Setting(_RUNNING, "max_running_per_tree", "running tasks of one tree", "", WAITS,
            "core/run/test_runner.py::test_a_tree_runs_no_more_tasks_than_its_limit"),
    Setting(_RUNNING, "max_processes", "child processes", "", WAITS,
            "core/run/test_runner.py::test_child_processes_are_limited_over_all_executors",
            usual="4 for each processor"),
    Setting(_RUNNING, "max_threads", "threads of plain functions, also those left running after their attempt", "",
            WAITS + "; `/readyz` is 503 when half of them hang",
            "core/run/test_runner_limits.py::test_threads_that_hang_are_counted_until_they_end"),
    Derived(group=_RUNNING, name="max_running_per_caller",
            what="running tasks of one caller, whose share of threads and processes is the same", beyond=WAITS,
            is_setting=True, value=lambda config, caller: slots_per_caller(config),
            test="core/model/test_queue.py::test_a_caller_gets_no_more_than_its_share_and_others_start_at_once",
            usual="half of `max_running`; none without authentication"),
    Derived(group=_RUNNING, name="concurrency_part_per_caller",
            what="one caller's share of an executor's `concurrency`, rounded up", beyond=WAITS,
            value=lambda config, caller: part_per_caller(config),
            test="core/model/test_room.py::test_a_caller_has_its_part_of_an_executors_concurrency_rounded_up",
            usual="`max_running_per_caller` / `max_running`"),
    Setting(_RUNNING, "max_task_seconds", "time of one attempt", "seconds", "it fails with the cause `timeout`",
            "core/run/test_runner_limits.py::test_an_attempt_takes_no_longer_than_the_process_allows"),
    Fixed(_RUNNING, "abandoned_after", attempts.ABANDON_AFTER, "wait for a cancelled coroutine to stop", "seconds",
          "it keeps its slot of the executor; the task goes on without it",
          "core/run/test_runner_limits.py::"
          "test_a_coroutine_that_does_not_let_itself_be_stopped_holds_up_no_retry_for_ever"),
    Setting(_RUNNING, "watchdog", "time that one callback may block the event loop", "seconds",
            "the log names the executor or request, with its stack",
            "a2a_server/process/test_watchdog.py::test_an_executor_that_holds_the_loop_is_named_with_its_stack"),
    Setting(_RUNNING, "max_in_flight_per_caller",
            "memory of one caller's open tasks, fetched answers, and copies of large inputs and results", "bytes",
            LIMITED + "; a result that does not fit fails its task (`no_room`)",
            "a2a_server/methods/test_methods_messages.py::"
            "test_inputs_beyond_the_caller_s_share_are_refused_until_others_have_ended"),
    Setting(_RUNNING, "max_in_flight", "the same of all callers together", "bytes", OVERLOADED,
            "a2a_server/methods/test_methods_messages.py::"
            "test_inputs_beyond_what_the_process_may_hold_are_refused_as_overload"),
    Fixed(_RUNNING, "small_result", in_flight.SMALL, "a result that may use a reserve of one fourth beyond these",
          "bytes", FAILS, "core/model/test_in_flight.py::test_small_result_may_use_the_reserve"),
    Fixed(_RUNNING, "inputs_from", inputs.MOST_SOURCES, "inputs of an attempt whose source is recorded",
          "", "the others are not recorded",
          "core/model/test_inputs.py::test_as_many_sources_are_recorded_as_are_worth_reading"),
    Setting(_RUNNING, "max_artifact", "one artifact, message or result of an executor", "bytes", FAILS, _GIVEN),
    Setting(_RUNNING, "max_output", "all artifacts of one attempt", "bytes", FAILS, _GIVEN),
    Fixed(_RUNNING, "values_beside", beside.PER_CALLER, "large inputs, results, artifacts or messages of one caller's "
          "attempts that are copied or judged at a time", "", WAITS,
          "core/loop/test_beside.py::test_a_caller_with_many_jobs_has_one_thread_and_another_one_is_served"),
    Fixed(_RUNNING, "values_on_loop", large_values.VALUES,
          "values of inputs, results, artifacts, messages and `tasks.*` answers that the event loop handles", "",
          _BESIDE, "core/loop/test_large_values.py::test_what_is_large_is_known_as_such_and_told_as_ever"),
    Fixed(_RUNNING, "text_on_loop", large_values.CHARACTERS, "characters of text in them, and digits",
          "characters", _BESIDE,
          "a2a_server/test_beside.py::test_answers_are_encoded_beside_the_loop_where_they_are_large"),
    Fixed(_RUNNING, "suspects_hold", quarantine.LONGEST_HOLD,
          "time that others wait after a start for tasks that ran in several crashes", "seconds", "the others start",
          "core/model/test_quarantine.py::test_others_wait_for_suspects_but_not_for_ever"),
    Fixed(_RUNNING, "crashes", MAX_CRASHES, "crashes of the process while only this task runs", "",
          FAILS,
          "core/run/test_runner.py::test_a_task_that_takes_five_processes_down_is_poison"),
    Fixed(_RUNNING, "transaction", base.TRANSACTION_ROWS,
          "rows of several writes in one transaction; callers take turns", "", WAITS,
          "core/storage/sqlite/test_writer_thread.py::"
          "test_behind_one_callers_large_trees_another_callers_write_waits_for_one_of_them"),

    Fixed(_LISTS, "lists", turns.MOST_LISTS, "lists and whole trees read at the same time", "", WAITS, _IN_TURN),
    Fixed(_LISTS, "lists_per_caller", turns.MOST_LISTS_PER_CALLER, "of these, one caller's", "", WAITS, _IN_TURN),
    Fixed(_LISTS, "reads_per_caller", base.READS_PER_CALLER, "concurrent reads of one caller", "", WAITS,
          "core/storage/test_connections.py::test_a_caller_with_many_reads_leaves_a_connection_to_another"),
    Fixed(_LISTS, "nodes", snapshots.MOST_NODES, "`metadata.nodes` of a tree's root", "", "counted in `nodesLeftOut`",
          "a2a_server/test_conversation.py::test_only_so_many_nodes_are_told_and_how_many_there_are_besides"),
    Fixed(_LISTS, "page", 100, "tasks on a page of `ListTasks`", "", REFUSED,
          "a2a_server/methods/test_methods_a2a.py::test_wrong_param_is_named"),
    Fixed(_LISTS, "limit", 1_000, "`limit` of `tasks.list`, `tasks.running.list` and `push.deliveries`", "", REFUSED,
          "a2a_server/methods/test_methods_tasks.py::test_wrong_param_is_named"),
    Fixed(_LISTS, "list_time", base.LIST_SECONDS, "one read of a list", "seconds", REFUSED, _TOO_LONG),
    Fixed(_LISTS, "list_size", base.LIST_BYTES, "JSON of a list", "bytes",
          "a page ends early, where there are pages; else " + REFUSED,
          "core/storage/sqlite/test_sql.py::test_a_list_of_tasks_that_is_too_large_is_refused"),
    Fixed(_LISTS, "total_size", base.COUNTED, "rows that `totalSize` and `tasks.running.count` count", "",
          "the count ends there",
          "core/storage/sqlite/test_sql.py::test_lists_count_so_far_and_no_further"),
    Fixed(_LISTS, "snapshot", selection.SNAPSHOT_BYTES, "JSON of one task in an A2A answer", "bytes",
          "artifacts and messages are left out, and `metadata.cut` says so",
          "a2a_server/views/test_selection.py::test_what_is_worth_most_is_read"),
    Fixed(_LISTS, "history", selection.HISTORY_BYTES, "of these, its history; the latest message may be larger",
          "bytes", "older ones are left out, and `metadata.cut` says so",
          "a2a_server/views/test_selection.py::test_the_latest_messages_are_kept_and_one_at_least"),
    Fixed(_LISTS, "long_logs", snapshots.AT_A_TIME, "tasks with long logs (1 MiB) read at the same time", "", WAITS,
          "a2a_server/views/test_snapshots.py::test_of_one_caller_one_long_log_is_read_at_a_time"),
    Fixed(_LISTS, "log_page", base.LOG_BYTES, "JSON of one page of a log with several events", "bytes",
          "the page ends early", _LOGS),

    Setting("streams", "sse_ping", "silence on a stream", "seconds", "a comment is sent",
            "a2a_server/views/test_streams.py::test_quiet_stream_is_kept_alive_by_comments"),
    Fixed("streams", "follower_events", topic.PAGE, "events held for a follower that does not read", "",
          "the rest is read from the log later",
          "core/run/test_feed.py::test_a_slow_follower_delays_nobody"),
    Fixed("streams", "tail", topic.TAIL_BYTES, "JSON of a followed tree's latest events in memory", "bytes",
          "followers read the log",
          "core/run/test_feed.py::test_large_events_outgrow_the_tail_and_are_read_from_the_storage"),
    Fixed("streams", "tails", topic.TAILS_BYTES, "the same of all trees together", "bytes", "followers read the log",
          "core/run/test_feed.py::test_the_tails_of_all_trees_together_are_bounded_and_nobody_misses_anything"),
    Fixed("streams", "frames", CACHE_BYTES, "encoded frames that followers share", "bytes", "encoded again",
          "a2a_server/views/test_frames.py::test_cache_drops_what_was_used_longest_ago"),

    Setting(_PUSH, "max_push_configs", "webhooks of one task", "", REFUSED,
            "a2a_server/methods/test_methods_push.py::test_a_task_has_so_many_webhooks_and_no_more"),
    Setting(_PUSH, "max_webhooks", "webhooks of one caller with pending deliveries", "", LIMITED,
            "a2a_server/methods/test_methods_push.py::"
            "test_a_caller_has_so_many_webhooks_that_are_not_at_rest_and_no_more"),
    Fixed(_PUSH, "webhooks", webhooks.MOST_ACTIVE, "the same of all callers together", "", OVERLOADED,
          "a2a_server/methods/test_methods_push.py::test_all_callers_together_have_so_many_webhooks_that_are_not_at_rest"),
    Setting(_PUSH, "push_concurrency", "concurrent deliveries", "", WAITS,
            "a2a_server/push/test_outbox.py::test_no_more_deliveries_run_at_a_time_than_may"),
    Derived(group=_PUSH, name="push_concurrency_per_caller", what="of these, to one caller's webhooks", beyond=WAITS,
            test=_HOLES, value=lambda config, caller: config.deliveries_per_caller, is_setting=True,
            usual="half of `push_concurrency`; all of it without authentication"),
    Fixed(_PUSH, "delivery_turn", schedule.TURN, "time that a webhook keeps its slot while others wait", "seconds",
          WAITS,
          "a2a_server/push/test_outbox.py::"
          "test_a_webhook_with_much_to_send_gives_its_place_to_the_next_one_of_its_caller"),
    Fixed(_PUSH, "delivery_bytes", parcels.ON_THEIR_WAY, "bytes of running deliveries, counted twice", "bytes",
          WAITS, _ON_THEIR_WAY),
    Fixed(_PUSH, "delivery_bytes_per_caller", parcels.OF_ONE_CALLER, "of these, to one caller's webhooks", "bytes",
          WAITS, "a2a_server/push/test_parcels.py::"
          "test_large_deliveries_of_one_caller_leave_room_for_anothers_and_small_ones_need_none"),
    Fixed(_PUSH, "small_delivery", parcels.SMALL, "a delivery that does not count there", "bytes",
          "counted", "a2a_server/push/test_parcels.py::"
          "test_large_deliveries_of_one_caller_leave_room_for_anothers_and_small_ones_need_none"),
    Fixed(_PUSH, "delivery_ahead", parcels.AHEAD, "events read ahead for one webhook", "bytes",
          "read when their turn comes",
          "a2a_server/push/test_parcels.py::test_events_are_read_ahead_in_small_pages"),
    Fixed(_PUSH, "deliveries_made", parcels.MADE_AT_A_TIME, "delivery bodies made at the same time", "",
          WAITS, "a2a_server/push/test_parcels.py::test_bodies_are_made_so_many_at_a_time"),
    Setting(_PUSH, "push_timeout", "one delivery", "seconds", "retried",
            "core/outside/test_egress.py::test_time_limit_counts_the_whole_call"),
    Setting(_PUSH, "push_retry_initial", "longest wait after the first failure", "seconds", "doubles", _WAITS),
    Setting(_PUSH, "push_retry_longest", "longest wait between two attempts", "seconds", "stays there", _WAITS),
    Setting(_PUSH, "push_max_age", "age of an event that is still retried", "seconds", "a dead letter",
            "a2a_server/push/test_outbox.py::"
            "test_an_event_that_is_too_old_is_given_up_and_the_next_one_has_its_turn"),
    Fixed(_PUSH, "resent", push.MOST_RESENT, "dead letters of one `push.resend`", "", REFUSED,
          "a2a_server/test_limit_table.py::test_one_call_sends_so_many_dead_letters_again_and_no_more"),
    Fixed(_PUSH, "resent_at_a_time", undelivered.RESENT_AT_A_TIME, "dead letters resent at the same time", "", WAITS,
          "a2a_server/methods/test_methods_push.py::test_dead_letters_are_sent_again_so_many_at_a_time_by_caller"),
    Fixed(_PUSH, "webhook_url", configs.LONGEST_URL, "a webhook's URL", "characters", REFUSED,
          "a2a_server/methods/test_methods_push.py::test_what_is_wrong_with_a_webhook_is_named_and_nothing_is_stored"),
    Fixed(_PUSH, "webhook_secret", configs.LONGEST_SECRET, "a webhook's token or credentials", "characters", REFUSED,
          "a2a_server/methods/test_methods_push.py::test_what_is_wrong_with_a_webhook_is_named_and_nothing_is_stored"),

    Fixed(_OUT, "fetched", egress.EgressPolicy().max_bytes, "a fetched answer, decoded", "bytes", FAILS,
          "core/outside/test_egress.py::test_body_beyond_the_limit_is_refused"),
    Fixed(_OUT, "fetched_parts", fetched.MAX_PARTS, "chunks of a fetched answer", "", FAILS,
          "core/outside/test_fetched.py::test_body_comes_in_a_bounded_number_of_parts"),
    Fixed(_OUT, "fetched_head", wire.MAX_HEAD, "head of a fetched answer", "bytes", FAILS,
          "core/outside/test_egress.py::test_answer_of_which_nothing_is_read_has_a_bounded_head_too"),
    Fixed(_OUT, "fetched_fields", egress.MAX_FIELDS, "header fields of a fetched answer", "", FAILS,
          "core/outside/test_egress.py::test_head_has_a_bounded_number_of_fields"),
    Fixed(_OUT, "fetched_values", fetched.MAX_VALUES, "values of a fetched JSON document", "", FAILS,
          "core/outside/test_fetched.py::test_json_has_a_bounded_number_of_values"),
    Fixed(_OUT, "fetched_free", fetch_room.FREE, "a fetched answer not counted in `max_in_flight`", "bytes",
          "waits for room, else fails with the cause `no_room`", "core/outside/test_fetch_room.py::"
          "test_small_answers_need_no_room"),
    Fixed(_OUT, "fetch_time", egress.EgressPolicy().timeout, "one fetch, redirects included", "seconds", FAILS,
          "core/outside/test_egress.py::test_time_limit_counts_the_whole_call"),
    Fixed(_OUT, "redirects", egress.EgressPolicy().max_redirects, "redirects of one fetch", "", FAILS,
          "core/outside/test_egress.py::test_redirects_without_end_are_given_up"),
    Fixed(_OUT, "params", rest.MOST_PARAMS, "names in `params` of `rest_executor`, and values of each", "", FAILS,
          "core/executors/builtins/test_rest.py::test_schema_says_how_many_names_there_may_be"),
    Fixed(_OUT, "headers", rest.MOST_HEADERS, "its `headers`", "", FAILS,
          "core/executors/builtins/test_rest.py::test_schema_says_how_many_names_there_may_be"),
    Fixed(_OUT, "query", rest.MOST_TEXT, "text of its `params`, and of its `headers`", "bytes", FAILS,
          "core/executors/builtins/test_rest.py::test_what_is_too_long_for_a_query_or_for_headers_fails_for_good_"
          "before_anything_is_made_of_it"),
    Fixed(_OUT, "lookups", names.LOOKUPS, "concurrent DNS lookups, for executors and webhooks each", "",
          WAITS, _NAMES),
    Fixed(_OUT, "lookups_per_caller", names.LOOKUPS_PER_CALLER, "of these, one caller's", "", WAITS, _NAMES),
    Fixed(_OUT, "lookup_time", names.LOOKUP_SECONDS, "one DNS lookup", "seconds",
          "could not connect: the task fails, a delivery is retried",
          "core/outside/test_names.py::test_a_name_that_is_not_found_in_time_could_not_be_connected_to"),

    Setting(_WHO, "max_keys", "API keys of one tenant", "", REFUSED,
            "a2a_server/auth/test_apikeys.py::"
            "test_a_tenant_has_so_many_good_keys_and_no_more_and_others_are_not_counted"),
    Fixed(_WHO, "issuer_keys", jwks.MOST_BYTES, "an issuer's key set", "bytes", "the previous keys stay in force",
          "a2a_server/auth/test_authenticator.py::test_the_issuers_keys_are_fetched_in_small_and_not_for_long"),
    Fixed(_WHO, "issuer_reads", jwks.BETWEEN, "time between two fetches of it", "seconds", "the known keys are used",
          "a2a_server/auth/test_jwks.py::test_an_unknown_key_asks_the_issuer_at_most_once_a_minute"),

    Setting(_DATA, "max_stored_per_caller", "stored bytes of one caller's tasks and events; 0: no limit", "bytes",
            "-32050 (429), until tasks are deleted",
            "core/run/test_stored.py::test_an_owner_at_its_quota_is_refused_and_others_are_not"),
    Setting(_DATA, "disk_reserve", "free disk space reserved for finishing, cancelling and deleting tasks", "bytes",
            OVERLOADED + "; `/readyz` is 503",
            "core/storage/sqlite/test_guard.py::test_only_small_appends_to_what_is_there_may_use_the_reserve"),
    Fixed(_DATA, "log_burst", BURST, "log records of one line of code at once (not at `debug`)", "",
          "left out; a record says how many", _FLOOD),
    Fixed(_DATA, "log_rate", PER_SECOND, "log records of one line of code after that (not at `debug`)", "a second",
          "left out; a record says how many", _FLOOD),
    Setting(_DATA, "compact_after", "time after a task's end until its log is compacted", "seconds", "compacted",
            _RETIRED),
    Setting(_DATA, "delete_after", "time after a task's end until it is deleted", "seconds", "deleted", _RETIRED),
    Setting(_DATA, "drain_delay", "time to go on serving calls after SIGTERM", "seconds",
            "the listener closes", "a2a_server/test_drain.py::test_calls_are_served_while_readyz_says_draining"),
    Setting(_DATA, "drain", "time for running attempts to finish, after that", "seconds",
            "they are interrupted, and resumed at the next start",
            "a2a_server/test_app.py::test_work_that_does_not_stop_does_not_hold_the_end_up"),
)
# fmt: on


def limits_in_force(config: Config, *, is_identified: bool) -> dict[str, Any]:
    """The limits by name; None: there is none. Those of one caller depend on whether it is identified."""
    caller = config.caller_limits(is_identified=is_identified)
    return {limit.name: limit.value(config, caller) for limit in LIMITS}
