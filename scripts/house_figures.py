"""Figures of the house: sizes, shapes, and what its rules count (docs/house.md). Run by `scripts/house`."""

import argparse
import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import prose  # noqa: E402
from tests import test_architecture as house  # noqa: E402

LONG, MANY_PARAMETERS, MANY_METHODS, DEEP = 50, 5, 12, 3
CLI = "a2a_server.cli"
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def nesting(body: list[ast.stmt], depth: int = 0) -> int:
    """The deepest block; an `elif` lies as deep as its `if`, a function within begins anew."""
    deepest = depth
    for node in body:
        if isinstance(node, BLOCKS):
            for part in blocks(node):
                is_elif = isinstance(node, ast.If) and part is node.orelse and [*map(type, part)] == [ast.If]
                deepest = max(deepest, nesting(part, depth if is_elif else depth + 1))
    return deepest


def blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        yield getattr(node, name, [])
    for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
        yield part.body


def parameters(function: Function) -> int:
    taken = function.args
    names = [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def commands(tree: ast.Module) -> set[str]:
    """The functions that typer runs: it makes their parameters the command's options."""
    given = [(each, call) for each in ast.walk(tree) if isinstance(each, Function) for call in each.decorator_list]
    given += [(each.args[0], each.func) for each in ast.walk(tree) if isinstance(each, ast.Call) and each.args]
    return {
        getattr(function, "name", getattr(function, "id", ""))
        for function, call in given
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in ("command", "callback")
    }


def methods(node: ast.ClassDef) -> int:
    return sum(isinstance(each, Function) for each in node.body)


def mutual(edges: set[tuple[str, str]]) -> list[tuple[str, str]]:
    return sorted((a, b) for a, b in edges if a < b and (b, a) in edges)


def figures() -> Iterator[tuple[str, float, float | None, str]]:
    """Name, figure, its bound if there is one, and what it is of."""
    trees = {house.module_name(path): ast.parse(path.read_text()) for path in house.FILES}
    lengths = {path: len(path.read_text().splitlines()) for path in house.FILES}
    functions = [(module, each) for module, tree in trees.items() for each in house.functions(tree)]
    classes = [
        (module, each) for module, tree in trees.items() for each in ast.walk(tree) if isinstance(each, ast.ClassDef)
    ]
    yield "files", len(lengths), None, ""
    yield "lines of the median file", median(lengths.values()), None, ""
    biggest = max(lengths, key=lambda path: lengths[path])
    yield "lines of the biggest file", lengths[biggest], house.MAX_FILE_LINES, str(biggest.relative_to(ROOT))

    def share(name: str, bound: float, found: list[str]) -> tuple[str, float, float, str]:
        return name, round(100 * len(found) / len(functions), 2), bound, ", ".join(found)

    yield share("% of functions over 50 lines", 1, [
        f"{m}.{f.name}" for m, f in functions if (f.end_lineno or 0) - f.lineno + 1 > LONG
    ])  # fmt: skip
    typed = {(m, name) for m, tree in trees.items() if house.is_below(m, CLI) for name in commands(tree)}
    wide = [(m, f) for m, f in functions if parameters(f) > MANY_PARAMETERS]
    yield share("% of functions with over 5 parameters", 1, [
        f"{m}.{f.name}" for m, f in wide if (m, f.name) not in typed
    ])  # fmt: skip
    many_options = [f"{m}.{f.name}" for m, f in wide if (m, f.name) in typed]
    yield "commands with over 5 options", len(many_options), None, ", ".join(many_options)
    many = [f"{m}.{c.name} ({methods(c)})" for m, c in classes if methods(c) > MANY_METHODS]
    yield "classes over 12 methods", len(many), 8, ", ".join(many)
    yield share("% of functions nested over 3 deep", 0.5, [
        f"{m}.{f.name}" for m, f in functions if nesting(f.body) > DEEP
    ])  # fmt: skip
    late = [f"{m}.{f.name}" for m, f in functions if m != "a2a_server.app" and list(house.imports(f))]
    yield "imports inside functions", len(late), 0, ", ".join(late)
    broad = [
        f"{m}:{n}" for m, t in trees.items() for n, f in house.broad_excepts(t) if (m, f) not in house.BROAD_EXCEPTS
    ]
    yield "broad excepts without a reason", len(broad), 0, ", ".join(broad)
    rooms = {
        (own, theirs)
        for module, tree in trees.items()
        for _, name in house.imports(tree)
        if (own := house.room_of(module)) and (theirs := house.room_of(name)) and own != theirs
    }
    both = mutual(rooms)
    yield "folders that import each other", len(both), 0, ", ".join(f"{a} and {b}" for a, b in both)
    dangling = list(prose.dangling_citations())
    yield "citations that lead nowhere", len(dangling), 0, "; ".join(dangling)
    bad = list(prose.broken_rules())
    yield "breaches of the rules for prose", len(bad), 0, "; ".join(bad)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="end with 1 where a figure is beyond its bound")
    given = parser.parse_args()
    beyond = 0
    for name, figure, bound, of in figures():
        is_beyond = bound is not None and figure > bound
        beyond += is_beyond
        limit = "" if bound is None else f"  (at most {bound:g}{', BEYOND' if is_beyond else ''})"
        print(f"{name:40} {figure:8g}{limit}{'  ' + of[:400] if of and figure else ''}")
    return min(beyond, 1) if given.check else 0


if __name__ == "__main__":
    sys.exit(main())
