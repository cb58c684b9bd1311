"""Loads the files and modules that register a user's executors.

A file is imported as `import` would do it: under its own name, from its folder, which stays on the path. So it finds
the files beside it, and what is pickled there is found by another process. Folders of users come last on the path:
nothing of theirs can take the place of a module of this program or of a library.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from core.executors.process_worker import text_of, where
from core.executors.registry import default_registry
from core.model.errors import ConfigurationError


def load_executors(names: Iterable[str]) -> None:
    """Import each file (`path/to/file.py`) or module (`package.module`); their decorators register what they define.

    Modules are looked for in the current folder, too. Raises ConfigurationError that names the one that cannot be
    imported, with the reason and the line, or that registers nothing.
    """
    loaded = set[str]()
    for name in names:
        is_file = name.endswith(".py")
        folder = Path(name).absolute().parent if is_file else Path.cwd()
        before = _registered()
        module = Path(name).stem if is_file else name
        is_new = module not in sys.modules
        try:
            if name.endswith(".py"):
                _import_file(Path(name))
            else:
                _import_module(name, folder)
        except KeyboardInterrupt:
            raise
        except ConfigurationError as error:
            if (place := where(error)) is None:  # it is ours, and names the file
                raise
            raise ConfigurationError(f"executors {name}: {error} ({place})") from error
        except BaseException as error:  # foreign code (also SystemExit), and the operator reads the reason
            told = _not_there(error, name) or f"{text_of(error)}{_hidden(error, folder)}"
            raise ConfigurationError(f"executors {name}: {told}") from error
        imported = {each.__name__ for each in vars(sys.modules[module]).values() if isinstance(each, ModuleType)}
        if is_new and before == _registered() and not imported & loaded:
            raise ConfigurationError(
                f"executors {name}: it has no executor; put @executor above a function (from core import executor)"
            )
        loaded.add(module)


def _registered() -> int:
    return default_registry.registered + default_registry.hooks.count


def _import_file(path: Path) -> None:
    if path.is_dir():
        raise ConfigurationError(
            f"executors {path}: it is a folder; name a file in it, such as {path / 'executors.py'}"
        )
    if not path.exists():
        raise ConfigurationError(f"executors {path}: the file does not exist")
    if not path.is_file():
        raise ConfigurationError(f"executors {path}: it is not a regular file")
    name, file = path.stem, path.absolute()
    if "." in name:
        raise ConfigurationError(
            f"executors {path}: a file with a dot in its name cannot be imported; rename it to "
            f"{name.replace('.', '_')}.py"
        )
    _search(file.parent)
    if file.resolve().parent != file.parent:
        _search(file.resolve().parent)  # what lies beside the file that a link leads to
    if (other := _other(name, file)) is not None:
        raise ConfigurationError(
            f"executors {path}: Python already has another module named {name}, {other}; rename the file"
        )
    importlib.import_module(name)


def _import_module(name: str, folder: Path) -> None:
    if "/" in name:
        what = "it is a folder" if Path(name).is_dir() else "it is neither a file that ends in .py nor a module"
        raise ConfigurationError(
            f"executors {name}: {what}; name a file such as agent.py, or a module such as my.agent"
        )
    _search(folder)
    first = name.partition(".")[0]
    if (own := _beside(folder, first)) is not None and (other := _other(first, own)) is not None:
        raise ConfigurationError(
            f"executors {name}: Python finds {other} before {own}, which has the same name; rename yours"
        )
    importlib.import_module(name)


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()  # a file may be younger than what was remembered of its folder


def _beside(folder: Path, name: str) -> Path | None:
    """The file that a top-level module of this name would have in the folder."""
    return next((file for file in (folder / name / "__init__.py", folder / f"{name}.py") if file.is_file()), None)


def _other(name: str, file: Path) -> str | None:
    """Where `import` gets this top-level module from, unless it is that file."""
    loaded = sys.modules.get(name)
    spec: ModuleSpec | None = getattr(loaded, "__spec__", None) if loaded else importlib.util.find_spec(name)
    found = spec.origin if spec is not None else getattr(loaded, "__file__", None)
    if found is not None and Path(found).exists() and Path(found).samefile(file):
        return None
    return found or "built into Python"


def _not_there(error: BaseException, name: str) -> str | None:
    """For a name that is neither a file nor a module; None where what it imports is missing, or anything else."""
    is_missing = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
    if name.endswith(".py") or (all(part.isidentifier() for part in name.split(".")) and not is_missing):
        return None
    what = "it is not a Python file" if Path(name).is_file() else "the module does not exist"
    return f"{what}; give a file that ends in .py, or a module such as package.module"


def _hidden(error: BaseException, folder: Path) -> str:
    """For a failed import: that a file of the user's is not seen, since a module of its name comes first."""
    if not isinstance(error, ImportError) or not error.name:
        return ""
    first = error.name.partition(".")[0]
    own = _beside(folder, first)
    if own is None and any((folder / first).glob("*.py")):  # a package without __init__.py
        own = folder / first
    if own is None or first not in sys.modules or (other := _other(first, own)) is None:
        return ""
    return f"; Python finds {other} before {own}, which has the same name: rename yours"
