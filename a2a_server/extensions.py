"""Loads the files and modules that register a user's executors."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from core.errors import ConfigurationError
from core.executors.process_worker import text_of, where
from core.executors.registry import default_registry


def load_executors(names: Iterable[str]) -> None:
    """Import each file (`path/to/file.py`) or module (`package.module`); their decorators register what they define.

    Raises ConfigurationError that names the one that cannot be imported, with the reason and the line, or that
    registers nothing.
    """
    for name in names:
        before = _registered()
        is_new = name not in sys.modules
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except ConfigurationError as error:
            if (place := where(error)) is None:  # it is ours, and names the file
                raise
            raise ConfigurationError(f"executors {name}: {error} ({place})") from error
        except BaseException as error:  # foreign code (also SystemExit), and it is the operator who reads the reason
            raise ConfigurationError(f"executors {name}: {text_of(error)}") from error
        if is_new and before == _registered():
            raise ConfigurationError(
                f"executors {name}: it registers nothing; put @executor above a function (from core import executor)"
            )


def _registered() -> int:
    return default_registry.registered + default_registry.hooks.count


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise ConfigurationError(f"executors {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"a2a_executors.{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"executors {path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    # Functions that run in a process of their own are found there by their module's name.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
