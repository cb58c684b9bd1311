"""Which executors come with the core."""

from core.executors.builtins.command import CommandPolicy
from core.executors.builtins.registration import register_builtins
from core.executors.function import executor
from core.executors.registry import ExecutorRegistry
from core.executors.schema import check_schema
from core.outside.egress import EgressPolicy

WITHOUT_COMMANDS = ["aggregate_results_executor", "rest_executor", "system_info_executor"]


def test_command_executor_is_off_unless_programs_are_named() -> None:
    registry = ExecutorRegistry()
    register_builtins(registry, egress=EgressPolicy(), command=None)
    assert registry.ids() == WITHOUT_COMMANDS
    registry = ExecutorRegistry()
    register_builtins(registry, egress=EgressPolicy(), command=CommandPolicy(programs=("uname",)))
    assert registry.ids() == sorted([*WITHOUT_COMMANDS, "command_executor"])


def test_each_declares_usable_schemas_and_says_what_it_does() -> None:
    registry = ExecutorRegistry()
    register_builtins(registry, egress=EgressPolicy(), command=CommandPolicy(programs=("uname",)))
    for spec in registry:
        assert spec.description and spec.name and spec.tags and spec.examples
        assert spec.input_schema is not None and spec.output_schema is not None
        assert spec.input_schema["additionalProperties"] is False
        check_schema(spec.input_schema, spec.id)
        check_schema(spec.output_schema, spec.id)


def test_executor_of_the_users_own_stays() -> None:
    registry = ExecutorRegistry()
    executor("rest_executor", description="mine", registry=registry)(lambda: None)
    register_builtins(registry, egress=EgressPolicy(), command=None)
    spec = registry.get("rest_executor")
    assert spec is not None and spec.description == "mine"
