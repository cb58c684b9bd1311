"""Which suspects of a crash may start (`core.model.quarantine`), and that the guilty one is found among innocents."""

import random

import pytest

from core.model.decide import MAX_CRASHES
from core.model.quarantine import FIRST_WATCH, LONGEST_HOLD, SUSPECTED_AFTER, Quarantine, is_suspect, watch_of
from core.model.task import Task


def suspect(task_id: str, started_at: float = 0.0, crashes: int = SUSPECTED_AFTER) -> Task:
    return Task(id=task_id, tree_id="t", name="n", created_at=0.0, started_at=started_at, crashes=crashes)


def everywhere(task: Task) -> bool:
    return True


@pytest.mark.parametrize(("crashes", "expected"), [(0, False), (1, False), (2, True), (3, True)])
def test_who_was_in_several_crashes_is_a_suspect(crashes: int, expected: bool) -> None:
    assert is_suspect(suspect("a", crashes=crashes)) is expected


@pytest.mark.parametrize(("crashes", "seconds"), [(2, 2.0), (3, 4.0), (6, 32.0), (10_000, FIRST_WATCH * 2.0**32)])
def test_a_watch_doubles_with_each_crash(crashes: int, seconds: float) -> None:
    assert watch_of(suspect("a", crashes=crashes)) == seconds


def test_suspects_start_one_at_a_time_the_last_that_was_started_first() -> None:
    quarantine = Quarantine()
    for task in (suspect("old", 1), suspect("new", 3), suspect("middle", 2)):
        quarantine.offer("t", task)
        quarantine.offer("t", task)
    assert quarantine.take(100.0, everywhere) == ("t", "new", FIRST_WATCH)
    assert quarantine.take(100.0 + FIRST_WATCH - 0.1, everywhere) is None
    assert quarantine.take(100.0 + FIRST_WATCH, everywhere) == ("t", "middle", FIRST_WATCH)
    quarantine.release(("t", "new"))
    assert quarantine.take(102.1, everywhere) is None, "another one is watched"
    quarantine.release(("t", "middle"))
    assert quarantine.take(102.1, everywhere) == ("t", "old", FIRST_WATCH)
    assert quarantine.is_open
    assert quarantine.take(200.0, everywhere) is None
    assert not quarantine.is_open


def test_a_suspect_without_room_lets_the_next_one_pass_and_keeps_its_place() -> None:
    quarantine = Quarantine()
    quarantine.offer("t", suspect("old", 1))
    quarantine.offer("t", suspect("new", 2))
    found = quarantine.take(0.0, lambda task: task.id == "old")
    assert found is not None and found[1] == "old"
    assert quarantine.take(10.0, lambda task: False) is None
    assert quarantine.is_open
    found = quarantine.take(10.0, everywhere)
    assert found is not None and found[1] == "new"


def test_others_wait_for_suspects_but_not_for_ever() -> None:
    quarantine = Quarantine()
    quarantine.hold(100.0)
    assert not quarantine.is_holding(100.0), "there is no suspect"
    quarantine.offer("t", suspect("a"))
    assert quarantine.is_holding(100.0 + LONGEST_HOLD - 0.1)
    assert not quarantine.is_holding(100.0 + LONGEST_HOLD)
    assert not Quarantine().is_holding(0.0)


@pytest.mark.parametrize("seed", range(50))
def test_the_guilty_one_is_found_whatever_it_runs_beside(seed: int) -> None:
    """Found from outside: tasks that ran beside one that crashes the server failed as poison, too.

    Processes one after the other: one task takes its process down some time after its start, the others end.
    """
    chance = random.Random(seed)
    fatal = chance.choice([0.0, 1.0, chance.uniform(0, 30), chance.uniform(0, 300)])  # seconds that it lives
    lasts = {f"{n}": chance.uniform(0, 600) for n in range(chance.randrange(20))}  # seconds that innocents need
    names = [*lasts, "guilty"]
    chance.shuffle(names)
    tasks = {name: suspect(name, started_at=float(n), crashes=0) for n, name in enumerate(names)}
    lone = 0
    for _ in range(200):
        running = _lost_in_one_process(tasks, lasts, fatal)
        if running == ["guilty"]:
            lone += 1
        for name in running:
            old = tasks[name]
            tasks[name] = suspect(name, old.started_at or 0.0, old.crashes + 1)
        if lone == MAX_CRASHES:
            return
    raise AssertionError("the guilty one is never found")


def _lost_in_one_process(tasks: dict[str, Task], lasts: dict[str, float], fatal: float) -> list[str]:
    """Who runs when the guilty one takes the process down; those who have ended are taken out."""
    quarantine, now = Quarantine(), 0.0
    begun = {name: 0.0 for name, task in tasks.items() if not is_suspect(task)}
    for task in tasks.values():
        if is_suspect(task):
            quarantine.offer("t", task)
    while True:
        crash = begun["guilty"] + fatal if "guilty" in begun else None
        if (found := quarantine.take(now, everywhere)) is not None:
            begun[found[1]] = now
            continue
        if crash is not None and (not quarantine.is_open or crash <= now):
            now = crash
            break
        ends = [begun[name] + lasts[name] for name in begun if name in lasts and begun[name] + lasts[name] > now]
        steps = [*ends, quarantine._watched_until, *([crash] if crash is not None else [])]
        now = min(step for step in steps if step > now)
        for name in [name for name in begun if name in lasts and begun[name] + lasts[name] <= now]:
            quarantine.release(("t", name))
    for name in [name for name in begun if name in lasts and begun[name] + lasts[name] <= now]:
        del begun[name], tasks[name]
    return sorted(begun)
