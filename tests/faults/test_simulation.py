"""R3, R4: whole lives of core, outbox and retention under a seed, and the proof that the simulation can fail.

`scripts/simulate` plays more seeds, or one seed again, or a day at a tree a second (`--soak`).
"""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from subprocess import run

import pytest

from core.run.topic import Topics
from tests.faults.report import report
from tests.simulation.bugs import PLANTED, in_place_of, nothing
from tests.simulation.outbox_bugs import OUTBOX_BUGS
from tests.simulation.run import LOGGERS, silence, simulate
from tests.simulation.soak import soak, told
from tests.simulation.world import Faults, Violation

SEEDS = int(os.environ.get("SIMULATED_SEEDS", "200"))
BATCHES = 8
MOST_SEEDS = 1_000  # within which a planted bug must be found
SOAK_HOURS = float(os.environ.get("SOAK_HOURS", "0.2"))
CONTROL_HOURS = 0.1
BUGS = PLANTED | OUTBOX_BUGS

# What makes some bugs show sooner: a poisonous task takes five crashes, and a start would wake all webhooks.
PEACE = Faults(refuse=0.0, fail=0.0, crash=0.0, receiver=0.0, cut=0.0)
FAULTS = {
    "a task is never taken for poison": Faults(crash=0.1),
    "a webhook is not woken while it sends": Faults(slow_read=0.6),
    "webhooks at rest are not woken by another run": PEACE,
}
# No bug shows by these, but a plant that does not fit what it is planted in.
MISFITS = (TypeError, AttributeError, NameError, ImportError)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    silence()
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(scope="module")
def played() -> Iterator[Counter[str]]:
    """What all the seeds amount to, told when they have been played."""
    counted: Counter[str] = Counter()
    yield counted
    if counted["seeds"] == SEEDS:
        figures = ", ".join(f"{n} {name}" for name, n in counted.items())
        report("R3", "simulated lives of core, outbox and retention", f"{figures}: 0 violations")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_promise_holds_under_every_seed(batch: int, played: Counter[str]) -> None:
    size = SEEDS // BATCHES
    for seed in range(batch * size, (batch + 1) * size):
        world = simulate(seed)
        trees = len(world.storage.trees_stored()) + world.deleted
        played.update(seeds=1, lives=world.life, trees=trees, events=world.events)
        played["deliveries to webhooks"] += world.ledger.sent
        played["trees removed by retention"] += world.dropped
        played["parts of logs compacted"] += world.compacted


def test_a_seed_is_the_same_story_every_time() -> None:
    first, again, other = simulate(7), simulate(7), simulate(8)

    assert first.trace.digest() == again.trace.digest()
    assert first.trace.digest() != other.trace.digest()


def test_a_seed_is_the_same_story_in_every_process() -> None:
    """Sets of strings have another order in each, unless Python is told otherwise."""
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "1", "--from", "3"]
    traces = {
        run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.splitlines()[0]
        for seed in ("1", "2")
    }

    assert len(traces) == 1 and "trace" in traces.pop()


def test_seeds_bring_every_kind_of_trouble() -> None:
    """Were there no crashes, answers or cancels in them, the seeds would prove little."""
    worlds = [simulate(seed) for seed in range(60)]
    kinds = {type(recorded.event).__name__ for world in worlds for log in world.seen.values() for recorded in log}
    outcomes = {
        attempt.outcome for world in worlds for hook in world.ledger.hooks.values() for attempt in hook.attempts
    }

    missing = {
        "TreeCreated", "RunStarted", "TaskStarted", "AttemptLost", "AttemptFailed", "InputRequested", "InputProvided",
        "TaskCancelled", "TreeCancelled", "TaskFailed", "TaskRejected", "ArtifactAdded", "GroupEnded", "TreeFinished",
    } - kinds  # fmt: skip
    assert not missing
    assert {"taken", "cut", "410", "503", "the connection broke", "no complete answer"} <= outcomes
    assert any(world.ledger.letters for world in worlds) and any(world.deleted > world.dropped for world in worlds)
    assert any(world.dropped for world in worlds) and any(world.compacted for world in worlds)
    assert any(skipped for world in worlds for skipped in world.skipped.values())


def test_nothing_is_left_when_a_tree_came_every_second() -> None:
    world, probe = soak(1, hours=SOAK_HOURS)

    assert world.deleted > SOAK_HOURS * 3_600 * 0.8
    assert world.dropped > world.deleted / 2
    report("R4", "a tree a second", f"{SOAK_HOURS:g} virtual hours: {told(world, probe)}", seed=1)


@pytest.fixture(scope="module")
def found() -> Iterator[Counter[str]]:
    """The planted bugs that were found, and by which seed."""
    counted: Counter[str] = Counter()
    yield counted
    if len(counted) == len(BUGS):
        late = max(counted.values())
        report("R3", "control: planted bugs", f"{len(counted)} of {len(BUGS)} found, the last one by seed {late}")


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, found: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS[bug](monkeypatch)

    seed = -1
    with pytest.raises(BaseException) as failure:  # whichever promise breaks first
        for seed in range(MOST_SEEDS):
            simulate(seed, faults=FAULTS.get(bug))

    assert not isinstance(failure.value, MISFITS)
    found[bug] = seed


def test_a_soak_finds_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of R4: what the followers of a tree shared is not forgotten with them."""
    in_place_of(Topics, "leave", nothing)(monkeypatch)

    with pytest.raises(Violation, match="is left"):
        soak(1, hours=CONTROL_HOURS)
