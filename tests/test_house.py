"""The figures of `scripts/house`: what they count, and that a planted violation is found."""

import ast
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from tests import test_architecture

PATH = Path(__file__).parent.parent / "scripts" / "house_figures.py"


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = spec_from_file_location("house_figures", PATH)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def first(source: str) -> ast.stmt:
    return ast.parse(source).body[0]


@pytest.mark.parametrize(
    ("source", "depth"),
    [
        ("def f():\n x()", 0),
        ("def f():\n if a:\n  for b in c:\n   x()", 2),
        ("def f():\n if a:\n  x()\n elif b:\n  x()\n elif c:\n  x()", 1),
        ("def f():\n if a:\n  x()\n else:\n  if b:\n   x()\n  y()", 2),
        ("def f():\n try:\n  x()\n except E:\n  with a:\n   x()", 2),
        ("def f():\n match a:\n  case 1:\n   while b:\n    x()", 2),
        ("def f():\n if a:\n  def g():\n   if b:\n    x()", 1),
    ],
)
def test_nesting(house: ModuleType, source: str, depth: int) -> None:
    function = first(source)
    assert isinstance(function, ast.FunctionDef)
    assert house.nesting(function.body) == depth


@pytest.mark.parametrize(
    ("arguments", "count"),
    [("", 0), ("self, a", 1), ("cls, a, b", 2), ("a, /, b, *, c=1", 3), ("a, self", 2), ("*args, a, **rest", 1)],
)
def test_parameters(house: ModuleType, arguments: str, count: int) -> None:
    assert house.parameters(first(f"def f({arguments}): ...")) == count


def test_commands_of_the_command_line(house: ModuleType) -> None:
    source = (
        "@app.command()\ndef a(): ...\n@app.callback(x=1)\ndef b(): ...\n@cache\ndef c(): ...\n"
        "app.command(epilog=e())(d)\nprint(e)\n@command\ndef f(): ...\n"
    )
    assert house.commands(ast.parse(source)) == {"a", "b", "d"}


def test_methods(house: ModuleType) -> None:
    source = "class A:\n x = 1\n def f(self): ...\n async def g(self):\n  def h(): ...\n class B:\n  def i(self): ..."
    assert house.methods(first(source)) == 2


def test_folders_that_import_each_other(house: ModuleType) -> None:
    assert house.mutual({("a", "b"), ("b", "a"), ("b", "c")}) == [("a", "b")]


PLANTED = {
    "% of functions nested over 3 deep": "def deep():\n if a:\n  if b:\n   if c:\n    if d:\n     x()",
    "% of functions with over 5 parameters": "def wide(a, b, c, d, e, f): ...",
    "commands with over 5 options": "@app.command()\ndef wide(a, b, c, d, e, f): ...",
    "% of functions over 50 lines": "def long():\n" + " x()\n" * 50,
    "classes over 12 methods": "class Many:\n" + "".join(f" def f{n}(self): ...\n" for n in range(13)),
    "imports inside functions": "def late():\n import json",
    "broad excepts without a reason": "try:\n x()\nexcept Exception:\n pass",
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_violation_is_found(
    house: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In a repository of one file."""
    folder = ("a2a_server", "cli") if name.startswith("commands") else ("core", "model")
    file = tmp_path.joinpath(*folder, "planted.py")
    file.parent.mkdir(parents=True)
    monkeypatch.setattr(test_architecture, "FILES", [file])
    monkeypatch.setattr(test_architecture, "ROOT", tmp_path)
    monkeypatch.setattr(house, "ROOT", tmp_path)
    for rules in ("dangling_citations", "broken_rules"):
        monkeypatch.setattr(house.prose, rules, list)

    def found() -> tuple[float, str]:
        figures = {each: (figure, of) for each, figure, _, of in house.figures()}
        return figures[name]

    file.write_text("def fine(a, b): ...\n")
    assert found() == (0, "")
    file.write_text(f"def fine(a, b): ...\n{PLANTED[name]}\n")
    figure, of = found()
    assert figure > 0 and ".".join((*folder, "planted")) in of


def test_the_house_keeps_its_bounds(house: ModuleType) -> None:
    """Found by planting violations: `scripts/house --check` had bounds, and CI ran it nowhere."""
    assert not {name for name, figure, bound, _ in house.figures() if bound is not None and figure > bound}
