"""R3: whole lives of the core under a seed, and the proof that the simulation can fail.

`scripts/simulate` plays more seeds, or one seed again.
"""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.bugs import PLANTED
from tests.simulation.run import silence, simulate
from tests.simulation.world import Faults

BATCHES = 8
SEEDS = 25  # in each batch
MOST_SEEDS = 1_000  # within which a planted bug must be found

# A poisonous task takes five crashes while it runs.
DEADLY = {"a task is never taken for poison": Faults(crash=0.1)}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = logging.getLogger("core").level
    silence()
    yield
    logging.getLogger("core").setLevel(before)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_promise_holds_under_every_seed(batch: int) -> None:
    for seed in range(batch * SEEDS, (batch + 1) * SEEDS):
        simulate(seed)


def test_a_seed_is_the_same_story_every_time() -> None:
    first, again, other = simulate(7), simulate(7), simulate(8)

    assert first.trace.digest() == again.trace.digest()
    assert first.trace.digest() != other.trace.digest()


def test_seeds_bring_every_kind_of_trouble() -> None:
    """Were there no crashes, answers or cancels in them, the seeds would prove little."""
    kinds = {
        type(recorded.event).__name__ for seed in range(20) for log in simulate(seed).seen.values() for recorded in log
    }

    missing = {
        "TreeCreated", "RunStarted", "TaskStarted", "AttemptLost", "AttemptFailed", "InputRequested", "InputProvided",
        "TaskCancelled", "TreeCancelled", "TaskFailed", "TaskRejected", "ArtifactAdded", "GroupEnded", "TreeFinished",
    } - kinds  # fmt: skip
    assert not missing


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[bug](monkeypatch)

    with pytest.raises(BaseException):  # noqa: B017 - whichever promise breaks first
        for seed in range(MOST_SEEDS):
            simulate(seed, faults=DEADLY.get(bug))
