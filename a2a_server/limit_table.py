"""The limits that a caller can meet, with their values in force, for `system.limits`. A new limit is one line."""

from typing import Any, Final

from a2a_server.config import Config
from a2a_server.shares import slots_per_caller

# Settings, under their own names (bytes, seconds, or how many).
SETTINGS: Final = (
    "max_connections",
    "max_connections_per_address",
    "max_head",
    "max_header_fields",
    "max_body",
    "max_nesting",
    "max_values",
    "max_http_bytes",
    "max_http_bytes_per_caller",
    "max_batch",
    "max_tree_tasks",
    "max_depth",
    "max_open_tasks",
    "max_file",
    "disk_reserve",
    "max_stored_per_caller",
    "max_push_configs",
    "fold_after",
    "delete_after",
    "overload_soft",
    "overload_hard",
    "max_running",
    "max_task_seconds",
    "max_threads",
    "max_processes",
    "max_running_per_tree",
    "max_artifact",
    "max_output",
    "max_in_flight",
    "max_in_flight_per_caller",
    "sse_ping",
    "head_timeout",
    "body_timeout",
    "min_body_rate",
    "send_buffer",
    "send_timeout",
    "keep_alive",
    "push_timeout",
    "push_retry_initial",
    "push_retry_longest",
    "push_max_age",
    "drain",
)


def limits_in_force(config: Config, *, is_identified: bool) -> dict[str, Any]:
    """The limits by name; None: there is none. Those of one caller hang on whether he is identified."""
    caller = config.caller_limits(is_identified=is_identified)
    return {
        **{name: getattr(config, name) for name in SETTINGS},
        "max_rate": caller.rate,
        "max_burst": None if caller.rate is None else caller.size,
        "max_calls": caller.calls,
        "max_streams": caller.streams,
        "max_running_per_caller": slots_per_caller(config),
    }
