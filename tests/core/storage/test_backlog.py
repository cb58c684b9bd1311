"""Turns of owners, and the order of what concerns one thing (`core.storage.backlog`)."""

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.storage import backlog
from core.storage.backlog import Backlog, Weighed


@dataclass(frozen=True)
class Thing:
    number: int
    owner: str = "a"
    names: tuple[str, ...] = ()
    weight: int = field(default=1, compare=False)


def backlog_of(*things: Thing) -> Backlog[Thing]:
    made: Backlog[Thing] = Backlog(lambda thing: Weighed(thing.weight))
    for thing in things:
        made.add(thing, thing.owner, thing.names)
    return made


def all_of(made: Backlog[Thing], items: int = 1, weight: int = 10) -> list[Thing]:
    found = []
    while made:
        found += made.take(items, weight)
    return found


def test_one_owners_items_come_in_their_order() -> None:
    things = [Thing(n) for n in range(5)]
    made = backlog_of(*things)
    assert [made.take(2, 10), made.take(9, 10), made.take(9, 10)] == [things[:2], things[2:], []]
    assert not made


def test_owners_take_turns_by_the_weight_of_what_they_write() -> None:
    """The heavy one has one turn while the light one has three."""
    heavy = [Thing(n, "heavy", weight=3) for n in range(3)]
    light = [Thing(n, "light") for n in range(6)]

    found = all_of(backlog_of(*heavy, *light))

    assert "".join(thing.owner[0] for thing in found) == "hlllhlllh"


def test_who_comes_late_waits_for_no_more_than_what_is_at_work() -> None:
    made = backlog_of(*[Thing(n, weight=10) for n in range(1_000)])
    made.take(1, 10)
    made.take(1, 10)
    made.add(late := Thing(0, "b"), "b", ())
    assert late in made.take(2, 20) + made.take(2, 20)


def test_a_batch_has_a_bounded_weight_unless_its_first_item_alone_has_more() -> None:
    made = backlog_of(Thing(0, weight=4), Thing(1, weight=5), Thing(2, weight=50), Thing(3), Thing(4))
    batches = [[thing.number for thing in made.take(9, 10)] for _ in range(4)]
    assert batches == [[0, 1], [2], [3, 4], []]


def test_an_item_is_weighed_once() -> None:
    weighed = []
    made: Backlog[int] = Backlog(lambda item: weighed.append(item) or Weighed(6))  # type: ignore[func-returns-value]
    for item in range(3):
        made.add(item, "a", ())
    assert [made.take(9, 10) for _ in range(3)] == [[0], [1], [2]]
    assert weighed == [0, 1, 2]


def test_others_come_between_the_pieces_of_an_item_that_is_not_whole_yet() -> None:
    """A tree of 10,000 tasks kept the small writes of others waiting while its rows were made."""
    pieces = {"large": 5}

    def weigh(item: str) -> Weighed:
        left = pieces[item] = pieces.get(item, 0) - 1
        return Weighed(10, is_whole=left <= 0)

    made: Backlog[str] = Backlog(weigh)
    made.add("large", "a", ("t",))
    made.add("of the same", "a", ("t",))
    assert made.take(9, 100) == []
    made.add("small", "b", ())
    assert made.take(9, 10) == ["small"]
    assert [made.take(9, 10) for _ in range(5)] == [[], [], [], ["large"], ["of the same"]]
    assert not made


def test_what_concerns_the_same_thing_stays_in_its_order_whoever_writes_it() -> None:
    """An operator deletes another's tree, and the owner makes it again."""
    others = [Thing(n, "x", weight=5) for n in range(5)]
    first, second, third = Thing(1, "owner", ("t",), 9), Thing(2, "operator", ("t",)), Thing(3, "owner", ("t",))
    found = all_of(backlog_of(*others, first, second, third))
    assert [thing for thing in found if thing.names] == [first, second, third]


def test_what_concerns_things_in_two_lines_comes_behind_all_of_them() -> None:
    a, b = [Thing(n, "a", ("s",), 9) for n in range(3)], [Thing(n, "b", ("t",)) for n in range(3)]
    both = Thing(9, "c", ("s", "t"))
    made = backlog_of(*a, *b, both, after := Thing(10, "b", ("t",)), alone := Thing(11, "b"))

    found = all_of(made)

    assert found.index(both) > max(found.index(thing) for thing in (*a, *b))
    assert found.index(after) > found.index(both)
    assert sorted(thing.number for thing in found) == sorted(thing.number for thing in (*a, *b, both, after, alone))


def test_who_has_nothing_in_line_for_a_moment_has_had_what_it_has_had() -> None:
    """One that always comes with one heavy item has no more turns than one that has all in line."""
    made = backlog_of(*[Thing(n, "b", weight=1) for n in range(30)])
    found = []
    for n in range(3):
        made.add(Thing(n, "a", weight=10), "a", ())
        found += [thing.owner for _ in range(10) for thing in made.take(1, 10)]
    assert found.count("a") <= 3
    assert found.count("b") >= 27


def test_who_was_away_has_no_claim_to_what_others_did() -> None:
    made = backlog_of(*[Thing(n) for n in range(100)])
    for _ in range(50):
        made.take(1, 10)
    for n in range(50):
        made.add(Thing(n, "b"), "b", ())
    found = [thing.owner for _ in range(20) for thing in made.take(1, 10)]
    assert found.count("a") == found.count("b")


def test_owners_that_come_once_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MANY_AHEAD", 10)
    made = backlog_of(*[Thing(n) for n in range(1_000)])
    for n in range(200):
        made.add(Thing(n, f"b{n}"), f"b{n}", ())
        made.take(2, 10)
        made.take(2, 10)
    assert len(made._ahead) <= 12
    all_of(made)
    assert not (made._ahead or made._where or made._lines or made._turns)


OWNERS = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), OWNERS, st.lists(st.sampled_from("stuv"), max_size=3), st.integers(1, 30)),
        st.tuples(st.just("take"), st.integers(1, 5), st.integers(1, 40)),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_order_stays_and_nobody_starves(steps: list[tuple[object, ...]]) -> None:
    """Whatever comes and is taken: each item once, in the order of its names, in batches within the bounds."""
    made: Backlog[Thing] = Backlog(lambda thing: Weighed(thing.weight))
    added: list[Thing] = []
    found: list[Thing] = []
    for step in [*steps, *[("take", 5, 40)] * 60]:
        match step:
            case ("add", str(owner), list(names), int(weight)):
                added.append(Thing(len(added), owner, tuple(names), weight))
                made.add(added[-1], owner, added[-1].names)
            case ("take", int(items), int(weight)):
                batch = made.take(items, weight)
                assert len(batch) <= items
                assert len(batch) == 1 or sum(thing.weight for thing in batch) <= weight
                assert bool(batch) or not made
                found += batch

    assert sorted(thing.number for thing in found) == [thing.number for thing in added]
    by_name: defaultdict[str, list[int]] = defaultdict(list)
    for thing in found:
        for name in dict.fromkeys(thing.names):
            by_name[name].append(thing.number)
    assert all(numbers == sorted(numbers) for numbers in by_name.values())
    assert not (made._where or made._lines or made._turns or made._ahead)


@given(st.lists(st.tuples(OWNERS, st.integers(1, 20)), min_size=1, max_size=80))
def test_no_owner_gets_ahead_of_another_that_waits_by_more_than_one_item(given: list[tuple[str, int]]) -> None:
    things = [Thing(n, owner, weight=weight) for n, (owner, weight) in enumerate(given)]
    left: defaultdict[str, int] = defaultdict(int)
    for thing in things:
        left[thing.owner] += 1
    made = backlog_of(*things)
    had: defaultdict[str, int] = defaultdict(int)
    while made:
        (thing,) = made.take(1, 1)
        had[thing.owner] += thing.weight
        left[thing.owner] -= 1
        waiting = [owner for owner, count in left.items() if count]
        assert all(had[thing.owner] - had[owner] <= 20 for owner in waiting)
