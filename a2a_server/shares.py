"""What the settings say of running tasks, as the core wants it: limits, and how callers share them."""

from a2a_server.config import Config
from core.model.owners import tenant_of
from core.run.runner_limits import RunnerLimits

SHARE = 2  # an identified caller may hold one slot of so many


def slots_per_caller(config: Config) -> int | None:
    """How many tasks of one caller may run at a time; None: as many as the process has slots."""
    if config.max_running_per_caller is not None:
        return config.max_running_per_caller
    return max(1, config.max_running // SHARE) if config.identifies_callers else None


def part_per_caller(config: Config) -> float | None:
    """The part of the slots that one caller may hold, above 0 and below 1; None: it may hold all."""
    slots = slots_per_caller(config)
    return None if slots is None or slots >= config.max_running else slots / config.max_running


def runner_limits(config: Config) -> RunnerLimits:
    """The runner's limits."""
    weights = config.tenant_weights
    return RunnerLimits(
        tasks=config.max_running,
        threads=config.max_threads,
        processes=config.max_processes,
        caller=slots_per_caller(config),
        weigh=lambda owner: weights.get(tenant_of(owner), 1.0),
        tree=config.max_running_per_tree,
        seconds=config.max_task_seconds or None,
        artifact=config.max_artifact,
        output=config.max_output,
        in_flight=config.max_in_flight,
        in_flight_per_owner=config.max_in_flight_per_caller,
        stored=config.max_stored_per_caller,
        error_texts=config.error_texts or ("type" if config.identifies_callers else "full"),
    )
