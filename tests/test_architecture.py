"""The rules of the house, held by the build; each is also shown to be able to fail."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for room in ("core", "a2a_server") for path in (ROOT / room).rglob("*.py"))

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

# The rooms from the ground up: a module imports from its own folder and from folders of lines before it. Two folders of
# one line know nothing of each other. The longest name that fits is a module's room.
ROOMS = (
    ("core.model",),
    ("core.loop", "core.storage"),
    ("core.storage.relational", "core.cluster"),
    (
        "core.outside",
        "core.storage.migrations",
        "core.storage.postgres",
        "core.storage.sqlite",
        "a2a_server.protocol",
        "a2a_server.process",
    ),
    ("core.executors", "core.cluster.postgres", "a2a_server.edge"),
    ("core.executors.builtins", "core.run", "a2a_server.auth"),
    ("core", "a2a_server.bindings", "a2a_server.card"),
    ("a2a_server.v0_3", "a2a_server.views"),
    ("a2a_server.push",),
    ("a2a_server.methods",),
    ("a2a_server",),
    ("a2a_server.cli",),
)
A2A_NAMES = frozenset({"artifactId", "contextId", "mediaType", "messageId", "referenceTaskIds", "taskId"})
A2A_SPELLINGS = frozenset({"core.model.content_json", "core.storage.former_content"})  # the modules of core with them
PURE = "core.model"  # no clock, no chance, no input or output
IMPURE_LIBRARIES = frozenset(
    {
        "aiosqlite",
        "asyncio",
        "httptools",
        "os",
        "random",
        "secrets",
        "socket",
        "sqlalchemy",
        "subprocess",
        "threading",
        "time",
        "uuid",
        "uvicorn",
    }
)
SERVER_LIBRARIES = frozenset({"a2a_server", "jsonrpcserver", "sse_starlette", "starlette", "typer", "uvicorn"})
FORBIDDEN_LIBRARIES = frozenset({"cPickle", "dill", "marshal", "pickle", "shelve"})
FORBIDDEN_CALLS = frozenset({"eval", "exec", "os.popen", "os.system", "yaml.load", "yaml.unsafe_load"})

# Where code of others runs, or where the last line of defence stands: file and function -> why.
BROAD_EXCEPTS: dict[tuple[str, str], str] = {
    ("core.run.topic", "answer_waits"): "a caller's condition, who is told what it raised",
    ("a2a_server.extensions", "load_executors"): "the operator's files: importing them may raise anything",
    ("a2a_server.bindings.jsonrpc", "perform"): "a method, called through any binding",
    ("a2a_server.bindings.jsonrpc", "to_events"): "a method's stream, through any binding",
    ("core.run.attempt", "perform"): "an executor: foreign code may raise anything",
    ("core.run.attempt", "_stop_gently"): "an executor's cancel(): foreign code",
    ("core.executors.process_worker", "run"): "a function in a process of its own: raised again in the parent",
    ("core.executors.process_worker", "_described"): "a foreign exception's `__str__`: its type is told",
    ("core.executors.threads", "_tell_of"): "a function in a thread: raised again where it is awaited",
    ("core.executors.hooks", "_call_safely"): "a user's post hook: what has happened must not change",
    ("core.run.attempts", "_outcome"): "the runner: a bug of ours must not leave a task running for ever",
    ("core.storage.sqlite.writer_thread", "_write"): "the writer's thread: callers must not wait for ever",
    ("core.storage.postgres.writer", "_write"): "the writer's task: callers must not wait for ever",
}

# An older version of A2A, translated at the edge: nothing below may know that there is one.
OLD_VERSION = "a2a_server.v0_3"
OLD_VERSION_NAMERS = frozenset({"a2a_server.app"})

# Where a concrete storage may be named: composition, the library's own entry point, and the commands that work
# without a server.
STORAGE_NAMERS = frozenset(
    {
        "a2a_server.cli.db",
        "a2a_server.cli.migrate",
        "a2a_server.cli.run",
        "core.databases",
        "core.manager",
    }
)

STORAGE_ROOMS = ("core.storage", "core.cluster.postgres")  # the storages' own, and what shares their connections


def module_name(path: Path) -> str:
    """The dotted name of a source file of ours."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported: `from a.b import c` is a.b.c, since c may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def dotted(node: ast.AST) -> str:
    """`yaml.load` of the expression that says so; empty for what is no plain name."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{base}.{node.attr}" if (base := dotted(node.value)) else ""
    return ""


def is_below(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> str | None:
    """The room of ROOMS that a module belongs to: the longest wins."""
    return max((room for line in ROOMS for room in line if is_below(name, room)), key=len, default=None)


def level(room: str) -> int:
    """The line of ROOMS with this room."""
    return next(n for n, line in enumerate(ROOMS) if room in line)


def core_stays_below_the_server(module: str, tree: ast.Module) -> Iterator[str]:
    if is_below(module, "core"):
        for line, name in imports(tree):
            if name.split(".")[0] in SERVER_LIBRARIES:
                yield f"{line}: core imports {name}"


def core_spells_a2a_in_few_places(module: str, tree: ast.Module) -> Iterator[str]:
    if is_below(module, "core") and module not in A2A_SPELLINGS:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in A2A_NAMES:
                yield f"{node.lineno}: core spells {node.value!r}; use core.model.content"


def pure_modules_stay_pure(module: str, tree: ast.Module) -> Iterator[str]:
    if not is_below(module, PURE) and not re.search(r"\bPure(?:[.:]| data)", ast.get_docstring(tree) or ""):
        return
    for line, name in imports(tree):
        if name.split(".")[0] in IMPURE_LIBRARIES:
            yield f"{line}: a pure module imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in {"now", "utcnow", "today"}:
            yield f"{node.lineno}: a pure module asks for the time"


def imports_point_downwards(module: str, tree: ast.Module) -> Iterator[str]:
    own = room_of(module)
    assert own is not None, f"{module} has no place in ROOMS: give its folder one"
    for line, name in imports(tree):
        theirs = room_of(name)
        if theirs not in (None, own) and level(theirs) >= level(own):
            yield f"{line}: imports {name}, which does not lie below {own}"


def files_are_short(module: str, tree: ast.Module) -> Iterator[str]:
    if (last := max((node.end_lineno or 0 for node in tree.body), default=0)) > MAX_FILE_LINES:
        yield f"{last} lines"


def functions_are_short(module: str, tree: ast.Module) -> Iterator[str]:
    for function in functions(tree):
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES:
            yield f"{function.lineno}: {function.name} has {length} lines"


def imports_stand_at_the_top(module: str, tree: ast.Module) -> Iterator[str]:
    if module != "a2a_server.app":
        for function in functions(tree):
            yield from (f"{line}: {function.name} imports {name}" for line, name in imports(function))


def imports_are_absolute(module: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{node.lineno}: a relative import"


def core_parameters_are_visible(module: str, tree: ast.Module) -> Iterator[str]:
    if is_below(module, "core"):
        for function in functions(tree):
            if function.args.kwarg:
                yield f"{function.lineno}: {function.name} takes **{function.args.kwarg.arg}"


def broad_excepts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and innermost function of every handler that catches all there is, and does not raise it on."""
    owner = {handler: function.name for function in functions(tree) for handler in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = [dotted(t) for t in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]) if t]
            raises_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if (not caught or {"Exception", "BaseException"} & set(caught)) and not raises_on:
                yield node.lineno, owner.get(node, "")


def broad_excepts_stand_at_named_boundaries(module: str, tree: ast.Module) -> Iterator[str]:
    for line, function in broad_excepts(tree):
        if (module, function) not in BROAD_EXCEPTS:
            yield f"{line}: a broad except in {function or 'the module'}"


def nothing_dangerous_is_called(module: str, tree: ast.Module) -> Iterator[str]:
    yield from (f"{line}: imports {name}" for line, name in imports(tree) if name.split(".")[0] in FORBIDDEN_LIBRARIES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if (name := dotted(node.func)) in FORBIDDEN_CALLS:
                yield f"{node.lineno}: calls {name}"
            for keyword in node.keywords:
                if keyword.arg == "shell" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield f"{node.lineno}: runs a shell"


def storages_are_named_where_things_are_built(module: str, tree: ast.Module) -> Iterator[str]:
    if module in STORAGE_NAMERS or any(is_below(module, room) for room in STORAGE_ROOMS):
        return
    for line, name in imports(tree):
        if is_below(name, "core.storage") and not is_below(name, "core.storage.base"):
            yield f"{line}: imports {name}; a Storage is handed in"


def the_old_version_is_known_in_one_package(module: str, tree: ast.Module) -> Iterator[str]:
    if module not in OLD_VERSION_NAMERS and not is_below(module, OLD_VERSION):
        yield from (f"{line}: imports {name}" for line, name in imports(tree) if is_below(name, OLD_VERSION))


def modules_say_what_they_are_for(module: str, tree: ast.Module) -> Iterator[str]:
    is_a_room = any(module in line for line in ROOMS)  # its `__init__`: what lives there, and what must not
    if (tree.body or is_a_room) and not ast.get_docstring(tree):
        yield "1: no docstring"


Rule = Callable[[str, ast.Module], Iterator[str]]
RULES: tuple[Rule, ...] = (
    core_stays_below_the_server,
    core_spells_a2a_in_few_places,
    pure_modules_stay_pure,
    imports_point_downwards,
    files_are_short,
    functions_are_short,
    imports_stand_at_the_top,
    imports_are_absolute,
    core_parameters_are_visible,
    broad_excepts_stand_at_named_boundaries,
    nothing_dangerous_is_called,
    storages_are_named_where_things_are_built,
    the_old_version_is_known_in_one_package,
    modules_say_what_they_are_for,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_holds_everywhere(rule: Rule) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{what}"
        for path in FILES
        for what in rule(module_name(path), ast.parse(path.read_text()))
    ]
    assert not broken, "\n".join(broken)


BAD: tuple[tuple[Rule, str, str], ...] = (
    (core_stays_below_the_server, "core.model.task", "from a2a_server.bindings.context import RequestContext"),
    (core_stays_below_the_server, "core.session", "import uvicorn"),
    (core_stays_below_the_server, "core.session", "from starlette.responses import Response"),
    (core_spells_a2a_in_few_places, "core.model.compaction", "event.artifact['artifactId']"),
    (pure_modules_stay_pure, "core.model.tree", "import asyncio"),
    (pure_modules_stay_pure, "core.model.plan", "from time import time"),
    (pure_modules_stay_pure, "a2a_server.views.translate", '"""Says that it is Pure."""\nimport random'),
    (pure_modules_stay_pure, "core.model.plan", "from sqlalchemy.sql import select"),
    (pure_modules_stay_pure, "a2a_server.edge.deadlines", '"""Pure: time is an argument."""\nimport uvicorn.config'),
    (pure_modules_stay_pure, "core.model.timestamps", "from datetime import datetime\nstarted = datetime.now()"),
    (imports_point_downwards, "core.model.task", "from core.run.runner import Runner"),
    (imports_point_downwards, "core.storage.base", "from core import session"),
    (imports_point_downwards, "a2a_server.protocol.codec", "import a2a_server.app"),
    (imports_point_downwards, "core.loop.turns", "from core.storage.base import Storage"),
    (files_are_short, "core.model.task", "\n" * MAX_FILE_LINES + "x = 1"),
    (functions_are_short, "core.model.task", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    (imports_stand_at_the_top, "core.model.task", "def f():\n    import json"),
    (imports_stand_at_the_top, "a2a_server.cli", "class A:\n    async def f(self):\n        from json import loads"),
    (imports_are_absolute, "core.model.task", "from . import events"),
    (core_parameters_are_visible, "core.session", "async def f(*, a, **rest): ..."),
    (broad_excepts_stand_at_named_boundaries, "core.model.task", "try:\n    x()\nexcept:\n    pass"),
    (
        broad_excepts_stand_at_named_boundaries,
        "core.model.task",
        "try:\n    x()\nexcept (OSError, Exception):\n    pass",
    ),
    (
        broad_excepts_stand_at_named_boundaries,
        "core.model.task",
        "def f():\n try:\n  x()\n except BaseException:\n  raise A()",
    ),
    (nothing_dangerous_is_called, "core.model.task", "import pickle"),
    (nothing_dangerous_is_called, "core.model.task", "eval('1')"),
    (nothing_dangerous_is_called, "core.model.task", "subprocess.run(x, shell=True)"),
    (nothing_dangerous_is_called, "core.model.task", "yaml.load(x)"),
    (storages_are_named_where_things_are_built, "core.run.runner", "from core.storage.sqlite.sql import SqlStorage"),
    (
        the_old_version_is_known_in_one_package,
        "a2a_server.views.streams",
        "from a2a_server.v0_3.translate import event_of",
    ),
    (the_old_version_is_known_in_one_package, "a2a_server.methods.a2a", "from a2a_server import v0_3"),
    (modules_say_what_they_are_for, "core.model.task", "x = 1"),
    (modules_say_what_they_are_for, "core.model", ""),
)


@pytest.mark.parametrize(("rule", "module", "source"), BAD)
def test_rule_can_fail(rule: Rule, module: str, source: str) -> None:
    assert list(rule(module, ast.parse(source)))


def test_every_rule_is_shown_to_fail() -> None:
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_each_folder_with_modules_is_a_room() -> None:
    folders = {module_name(path.parent / "__init__.py") for path in FILES if path.name != "__init__.py"}
    assert {room for line in ROOMS for room in line} == folders - {"core.storage.migrations.versions"}


def circles(sources: Mapping[str, str]) -> list[str]:
    """A circle of modules that import each other, if there is one."""
    names = {module: {name for _, name in imports(ast.parse(source))} for module, source in sources.items()}
    graph = {
        module: {
            each for name in found for each in (name, name.rpartition(".")[0]) if each in sources and each != module
        }
        for module, found in names.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({module_name(path): path.read_text() for path in FILES if path.name != "__init__.py"}) == []
    assert circles({"core.a": "from core.b import x", "core.b": "import core.a", "core.c": "import core.a"}) != []


def test_a_module_without_a_place_is_refused() -> None:
    with pytest.raises(AssertionError, match="has no place"):
        list(imports_point_downwards("elsewhere.module", ast.parse("")))


def test_good_code_passes_every_rule() -> None:
    """What the rules allow on purpose: catching all and raising it on, and imports of what lies below."""
    source = '"""Doc."""\nfrom core.model.task import Task\ntry:\n    x()\nexcept BaseException:\n    y()\n    raise\n'
    assert [what for rule in RULES for what in rule("core.session", ast.parse(source))] == []


def test_every_named_boundary_still_exists() -> None:
    """A boundary that is gone must leave the list, or the list would hide the next one."""
    standing = {
        (module_name(path), function) for path in FILES for _, function in broad_excepts(ast.parse(path.read_text()))
    }
    assert set(BROAD_EXCEPTS) <= standing
