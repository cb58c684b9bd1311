"""kill -9 in the middle of a tree: nothing is lost or stuck, and nobody is told anything twice (R1, small)."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.story import Story, check_effects, plan
from tests.faults.report import report

KILLS = 20
TASKS = 200


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path)
    process.start()
    yield process
    process.close()


def test_every_tree_survives_a_kill(server: ServerProcess) -> None:
    """20 trees, one kill each at a random event: terminal all, results untouched, each event told exactly once."""
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    unknown = 0
    for _ in range(KILLS):
        story = Story(server, plan(chance, TASKS))
        story.follow(until=chance.randrange(2, 2 * TASKS))
        server.kill()
        server.start()
        assert story.follow(), "the stream did not reach its end"
        unknown += story.check()
    effects = check_effects(server.folder)
    figures = f"{KILLS} trees of {TASKS} tasks, 0 lost, 0 stuck, {effects} effects, {unknown} with an unknown outcome"
    report("R1", "kill -9 at random moments", figures, seed=seed)
