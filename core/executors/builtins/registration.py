"""Which executors come with the core."""

from core.executors.builtins.aggregate import aggregate_results_spec
from core.executors.builtins.command import CommandPolicy, command_executor_spec
from core.executors.builtins.rest import rest_executor_spec
from core.executors.builtins.system_info import system_info_spec
from core.executors.registry import ExecutorRegistry
from core.outside.egress import EgressPolicy


def register_builtins(registry: ExecutorRegistry, *, egress: EgressPolicy, command: CommandPolicy | None) -> None:
    """Make the built-in executors known; `command_executor` only where a policy names its programs.

    An executor that has one of their ids already stays: users may put their own in place.
    """
    specs = [system_info_spec, aggregate_results_spec, rest_executor_spec(egress)]
    if command is not None:
        specs.append(command_executor_spec(command))
    for spec in specs:
        if spec.id not in registry:
            registry.register(spec)
