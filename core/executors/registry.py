"""Where executors are known by name. `default_registry` is the one global of the core: the decorators fill it."""

from collections.abc import Container, Iterator, Mapping
from typing import Any

from core.executors.base import ExecutorSpec
from core.executors.hooks import Hooks
from core.model.errors import ConfigurationError


class ExecutorRegistry:
    """The executors of one process, by id, and the hooks around them."""

    def __init__(self) -> None:
        self._specs: dict[str, ExecutorSpec] = {}
        self.registered = 0  # how often something was made known
        self.hooks = Hooks()

    def register(self, spec: ExecutorSpec, *, override: bool = False) -> ExecutorSpec:
        """Make an executor known. Raises ConfigurationError when its id is taken, unless `override`."""
        if not override and spec.id in self._specs:
            raise ConfigurationError(f"an executor named {spec.id!r} is already registered")
        self._specs[spec.id] = spec
        self.registered += 1
        return spec

    def unregister(self, executor_id: str) -> None:
        """Forget an executor; nothing happens when it is not known."""
        self._specs.pop(executor_id, None)

    def get(self, executor_id: str) -> ExecutorSpec | None:
        return self._specs.get(executor_id)

    def resolve(
        self, name: str, schemas: Mapping[str, Any] | None = None, params: Mapping[str, Any] | None = None
    ) -> str | None:
        """The id a task means (`schemas.method`, `params.executor_id`, or its name); None when it is not known."""
        return wanted if (wanted := wanted_executor(name, schemas, params)) in self._specs else None

    def only(self, executor_ids: Container[str]) -> "ExecutorRegistry":
        """A registry of these executors alone, with the same hooks: in it the others do not exist."""
        part = ExecutorRegistry()
        part.hooks = self.hooks
        part._specs = {key: spec for key, spec in self._specs.items() if key in executor_ids}
        return part

    def ids(self) -> list[str]:
        return sorted(self._specs)

    def __iter__(self) -> Iterator[ExecutorSpec]:
        return iter([self._specs[executor_id] for executor_id in self.ids()])

    def __contains__(self, executor_id: str) -> bool:
        return executor_id in self._specs


def wanted_executor(name: str, schemas: Mapping[str, Any] | None, params: Mapping[str, Any] | None) -> str:
    """The executor id a task names (semantics §1), whether it is known or not."""
    for source, key in ((schemas, "method"), (params, "executor_id")):
        if source and isinstance(named := source.get(key), str) and named:
            return named
    return name


default_registry = ExecutorRegistry()
