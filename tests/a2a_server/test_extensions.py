"""How executors' files and modules are loaded: each in a process of its own, as `serve` and `run` do it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.process import ROOT

PROGRAM = [sys.executable, "-P", "-m", "a2a_server"]
EXECUTOR = "from core import executor\n@executor('e')\n{kind} e(inputs, context):\n    return {value}\n"
PICKLES = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from core import executor

class Thing:
    n = 3

def work(thing):
    return thing.n * 2

@executor("e")
def e(inputs, context):
    with ProcessPoolExecutor(1, mp_context=get_context("METHOD")) as pool:
        return list(pool.map(work, [Thing()]))
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def e(value: str, *, kind: str = "async def", first: str = "") -> str:
    return first + EXECUTOR.format(kind=kind, value=value)


def run(folder: Path, *names: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`run` of the executor `e` of these files, from the folder."""
    options = [option for name in names for option in ("-e", name)]
    return subprocess.run(
        [*PROGRAM, "run", "-", *options, "-o", "json"],
        input='[{"name": "e"}]', capture_output=True, text=True, cwd=folder, timeout=60,
        env={**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, **environ},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("files", "names", "result"),
    [
        ({"ex.py": e("G", first="from helpers import G\n"), "helpers.py": "G = 1"}, ["ex.py"], 1),
        ({"a/ex.py": e("G", first="from helpers import G\n"), "a/helpers.py": "G = 2"}, ["a/ex.py"], 2),
        ({"mod.py": e("3")}, ["mod"], 3),
        ({"pkg/__init__.py": "", "pkg/mod.py": e("G", first="from pkg import G\n")}, ["pkg.mod"], None),
        ({"pkg/__init__.py": "G = 4", "pkg/mod.py": e("G", first="from . import G\n")}, ["pkg.mod"], 4),
        (
            {"pkg/__init__.py": "", "pkg/ex.py": e("G", first="from h import G\n"), "pkg/h.py": "G = 5"},
            ["pkg/ex.py"],
            5,
        ),
        ({"my-agent.py": e("6")}, ["my-agent.py"], 6),
        ({"a.py": "import b\n", "b.py": e("7")}, ["a.py", "b.py"], 7),
        ({"a.py": "import b\n", "b.py": e("8")}, ["b.py", "a.py"], 8),
        ({"ex.py": e("__name__")}, ["ex.py"], "ex"),
        ({"ex.py": e("__import__('os').path.basename(__file__)")}, ["./ex.py"], "ex.py"),
        ({"core/__init__.py": "X = 1", "a2a_server.py": "X = 1", "ex.py": e("9")}, ["ex.py"], 9),
        ({"json.py": "X = 1", "ex.py": e("10")}, ["ex.py"], 10),
        ({"h.py": "G = 11", "ex.py": e("__import__('h').G", kind="def")}, ["ex.py"], 11),
    ],
)
def test_files_and_modules_find_what_lies_beside_them(
    tmp_path: Path, files: dict[str, str], names: list[str], result: object
) -> None:
    """Found from outside: `serve ex.py` could not import the module beside it."""
    write(tmp_path, files)

    done = run(tmp_path, *names)

    if result is None:
        assert done.returncode == 78 and "cannot import name 'G'" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"] == result


@pytest.mark.parametrize(
    ("made", "name", "told"),
    [
        ("dir.py/x", "dir.py", "executors dir.py: it is a folder; name a file in it, such as dir.py/executors.py"),
        ("sub/dir.py/x", "sub/dir.py/", "executors sub/dir.py/: it is a folder; name a file"),
        ("dir/x", "./dir", "executors ./dir: it is a folder; name a file"),
        ("dir/x", "dir/x", "executors dir/x: it is neither a file that ends in .py nor a module"),
        ("dir/x", "dir/y.py", "executors dir/y.py: the file does not exist"),
        ("dir/x", "dir/x/y.py", "executors dir/x/y.py: the file does not exist"),
        ("dir/x", "/dev/null", "executors /dev/null: it is neither a file that ends in .py nor a module"),
        ("dir/x", "fifo.py", "executors fifo.py: it is not a regular file"),
    ],
)
def test_what_is_no_file_of_executors_is_told_for_what_it_is(tmp_path: Path, made: str, name: str, told: str) -> None:
    write(tmp_path, {made: e("1")})
    os.mkfifo(tmp_path / "fifo.py")

    done = run(tmp_path, name)

    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert done.stderr.startswith(f"a2a-server: {told}"), done.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("name", ["ex.py", "sub/ex.py"])
def test_what_a_file_defines_can_be_pickled(tmp_path: Path, method: str, name: str) -> None:
    """A process pool finds the file's functions and classes, however it starts its processes."""
    write(tmp_path, {name: PICKLES.replace("METHOD", method)})

    done = run(tmp_path, name)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == [6], done.stderr


def test_a_function_in_a_process_of_its_own_finds_its_neighbours(tmp_path: Path) -> None:
    """Found from outside: a pool in an executors' file could not pickle its functions."""
    text = e("G", kind="def", first="from helpers import G\n").replace("'e'", "'e', isolation='process'")
    write(tmp_path, {"a/ex.py": text, "a/helpers.py": "G = 1"})

    assert json.loads(run(tmp_path, "a/ex.py").stdout)["result"] == 1


def test_a_link_finds_what_lies_beside_it_and_beside_its_target(tmp_path: Path) -> None:
    """Kubernetes mounts the files of a ConfigMap as links."""
    text = e("(A, B)", first="from here import A\nfrom there import B\n")
    write(tmp_path, {"data/ex.py": text, "data/there.py": "B = 2", "etc/here.py": "A = 1"})
    (tmp_path / "etc" / "ex.py").symlink_to("../data/ex.py")

    assert json.loads(run(tmp_path, "etc/ex.py").stdout)["result"] == [1, 2]


@pytest.mark.parametrize(
    ("files", "names", "told"),
    [
        ({"json.py": e("1")}, ["json.py"], ["json.py", "json/__init__.py", "rename"]),
        ({"core.py": e("1")}, ["core.py"], ["core.py", "core/__init__.py", "rename"]),
        ({"sys.py": e("1")}, ["sys.py"], ["sys.py", "built", "rename"]),
        ({"a/ex.py": e("1"), "b/ex.py": e("2")}, ["a/ex.py", "b/ex.py"], ["b/ex.py", "a/ex.py", "rename"]),
        ({"my.agent.py": e("1")}, ["my.agent.py"], ["my.agent.py", "my_agent.py"]),
        ({"msgspec.py": e("1")}, ["msgspec"], ["msgspec.py", "msgspec/__init__.py", "rename"]),
        ({"core/mine.py": "G = 1", "ex.py": e("G", first="from core.mine import G\n")}, ["ex.py"], ["core", "rename"]),
        ({"core/__init__.py": "G = 1", "ex.py": e("G", first="from core import G\n")}, ["ex.py"], ["core", "rename"]),
        ({"ex.py": e("G", first="from nowhere import G\n")}, ["ex.py"], ["No module named 'nowhere'"]),
    ],
)
def test_a_name_that_two_modules_have_is_told_in_one_line(
    tmp_path: Path, files: dict[str, str], names: list[str], told: list[str]
) -> None:
    write(tmp_path, files)

    done = run(tmp_path, *names)

    assert (done.returncode, done.stderr.count("\n")) == (78, 1), done.stderr
    assert all(word in done.stderr for word in told), done.stderr


@pytest.mark.parametrize("how", ["-m", "PYTHONPATH"])
def test_the_current_folder_comes_last(tmp_path: Path, how: str) -> None:
    """`python -m` and PYTHONPATH put it first, where its `core` and `msgspec` would take the place of ours."""
    write(tmp_path, {"core/__init__.py": "X = 1", "msgspec.py": "X = 1"})
    command = [sys.executable, "-m", "a2a_server"] if how == "-m" else PROGRAM
    environ = {**os.environ, **({"PYTHONPATH": str(tmp_path)} if how == "PYTHONPATH" else {})}

    done = subprocess.run([*command, "version"], capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


def test_another_core_before_ours_is_told_in_one_line(tmp_path: Path) -> None:
    """Found from outside: a user's own core/ replaced this program's."""
    write(tmp_path, {"other/core/__init__.py": "X = 1", "here/x": ""})

    done = subprocess.run(
        [*PROGRAM, "version"], capture_output=True, text=True, cwd=tmp_path / "here", timeout=60,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}/other"},
    )  # fmt: skip

    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert f"{tmp_path}/other/core/__init__.py" in done.stderr and "rename" in done.stderr


def test_the_checkout_itself_may_be_the_current_folder() -> None:
    done = subprocess.run([*PROGRAM, "version"], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
