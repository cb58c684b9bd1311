"""The examples run as they are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def python(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=folder, timeout=60)


def test_demo_shows_the_tree_and_ends_well(tmp_path: Path) -> None:
    """Without a terminal: one line for each event, the tolerated failure among them."""
    done = python(EXAMPLES / "demo.py", folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "task_failed             missing page" in done.stdout
    assert "the tree is completed" in done.stdout
    assert "in its place: " in done.stdout
    assert "the server ended with exit code 0" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tree", sorted((EXAMPLES / "trees").iterdir()), ids=lambda tree: tree.name)
def test_tree_completes(tree: Path, tmp_path: Path) -> None:
    run = ("-m", "a2a_server", "run", tree, "-e", EXAMPLES / "hello_agent.py", "-o", "json")
    done = python(*run, folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tree_status"] == "completed"
