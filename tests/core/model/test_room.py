"""Tests of core.model.room: who may start more, and that whatever is taken comes back."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.executors.base import ExecutorSpec
from core.model.room import Claim, Fit, Room, RoomLimits


def spec(lane: str) -> ExecutorSpec | None:
    """Executors by what they need: "thread", "process", "one" or "five" at a time; anything else needs a slot only."""
    return ExecutorSpec(
        id=lane,
        make=lambda: pytest.fail("it is not run here"),
        uses_thread=lane == "thread",
        uses_process=lane == "process",
        concurrency={"one": 1, "five": 5}.get(lane),
    )


def room(slots: int = 10, threads: int = 10, processes: int = 10, **limits: int) -> Room:
    return Room(RoomLimits(slots=slots, threads=threads, processes=processes, **limits), spec)


def fill(of: Room, caller: str, lane: str = "work") -> list[Claim]:
    """Let the caller take what it may have."""
    claims = []
    while of.has_room(caller, caller, lane):
        claims.append(of.take(caller, caller, lane))
    return claims


def test_without_a_limit_for_callers_one_may_have_everything() -> None:
    place = room(3)
    assert len(fill(place, "ada")) == 3
    assert not place.keeps_places
    assert place.fit("work") is Fit.NOBODY


@pytest.mark.parametrize(("lane", "share"), [("work", 5), ("thread", 5), ("process", 5), ("one", 1)])
def test_a_caller_has_its_share_of_each_kind_of_place(lane: str, share: int) -> None:
    place = room(10, caller=5)
    assert len(fill(place, "ada", lane)) == share
    if lane != "one":
        assert place.has_room("bob", "b", lane)


@pytest.mark.parametrize("lane", ["work", "thread", "process"])
def test_the_last_places_are_for_callers_that_have_nothing_running(lane: str) -> None:
    """Callers that together could take everything leave one in ten, and each newcomer gets one of those."""
    place = room(20, 20, 20, caller=10)
    assert [len(fill(place, who, lane)) for who in ("ada", "bob", "eve")] == [10, 8, 1]
    assert len(fill(place, "joe", lane)) == 1
    assert not place.has_room("kim", "k", lane)


def test_with_one_place_nobody_is_kept_out() -> None:
    place = room(1, 1, 1, caller=1)
    (claim,) = fill(place, "ada")
    assert not place.has_room("bob", "b", "work")
    place.give(claim)
    assert place.has_room("bob", "b", "work")


@pytest.mark.parametrize("slots", [2, 3, 5, 9])
def test_with_few_places_everybody_may_have_one(slots: int) -> None:
    place = room(slots, slots, slots, caller=max(1, slots // 2))
    for who in range(slots):
        assert place.has_room(f"c{who}", "t", "work")
        place.take(f"c{who}", "t", "work")


def test_a_caller_whose_threads_hang_keeps_its_slots() -> None:
    place = room(10, 10, 10, caller=5)
    for claim in fill(place, "ada", "thread"):
        place.give_slot(claim)
    assert not place.has_room("ada", "a", "thread")
    assert len(fill(place, "ada", "work")) == 5
    assert len(fill(place, "bob", "thread")) == 4


def test_an_executor_whose_attempt_goes_on_is_not_free() -> None:
    place = room()
    (claim,) = fill(place, "ada", "one")
    place.give_slot(claim)
    assert place.slots.used == 0
    assert place.fit("one") is Fit.NOBODY
    place.give_rest(claim)
    assert place.fit("one") is Fit.ANYBODY


@pytest.mark.parametrize(
    ("slots", "caller", "share"),
    [(100, 50, 3), (100, 1, 1), (100, 20, 1), (100, 21, 2), (100, 99, 5), (100, 100, 5), (100, 500, 5), (100, None, 5)],
)
def test_a_caller_has_its_part_of_an_executors_concurrency_rounded_up(
    slots: int, caller: int | None, share: int
) -> None:
    place = Room(RoomLimits(slots=slots, threads=1, processes=1, caller=caller), spec)
    claims = [place.take("ada", "a", "five") for _ in range(share) if place.has_room("ada", "a", "five")]
    assert len(claims) == share
    assert not place.caller_has_room("ada", "five") or place.fit("five") is Fit.NOBODY
    assert len(fill(place, "bob", "five")) == min(share, 5 - share)
    place.give(claims[0])
    assert place.has_room("ada", "a", "five")


def test_a_caller_whose_attempts_go_on_keeps_its_part_of_the_concurrency() -> None:
    place = room(10, caller=2)
    (claim,) = fill(place, "ada", "five")
    place.give_slot(claim)
    assert not place.has_room("ada", "a", "five")
    assert place.has_room("ada", "a", "work")
    place.give_rest(claim)
    assert place.has_room("ada", "a", "five")


def test_a_tree_has_its_limit() -> None:
    place = room(tree=2)
    first = place.take("ada", "t", "work")
    place.take("ada", "t", "work")
    assert not place.tree_has_room("t")
    assert place.tree_has_room("u")
    place.give(first)
    assert place.tree_has_room("t")


def test_what_was_taken_is_given_back_even_when_the_executor_was_replaced() -> None:
    """The claim says what was taken, not what the executor of that name needs by now."""
    kinds = {"it": spec("thread")}
    place = Room(RoomLimits(slots=1, threads=1, processes=1), kinds.get)
    for before, after in (("thread", "process"), ("five", "work"), ("work", "one")):
        kinds["it"] = spec(before)
        claim = place.take("ada", "a", "it")
        kinds["it"] = spec(after)
        place.give(claim)
        assert (place.threads.used, place.processes.used) == (0, 0)
        assert not place.in_lane and not place.held_in_lane


class RoomMachine(RuleBasedStateMachine):
    """Takes and gives in any order, against the list of claims."""

    def __init__(self) -> None:
        super().__init__()
        self.room = room(8, 6, 4, caller=3, tree=2)
        self.attempts: list[Claim] = []
        self.leftovers: list[Claim] = []

    @rule(
        caller=st.sampled_from("abcd"),
        tree=st.sampled_from("xy"),
        lane=st.sampled_from(["w", "thread", "process", "one", "five"]),
    )
    def take(self, caller: str, tree: str, lane: str) -> None:
        if self.room.has_room(caller, caller + tree, lane):
            self.attempts.append(self.room.take(caller, caller + tree, lane))

    @precondition(lambda self: self.attempts)
    @rule(n=st.integers(0, 10), whole=st.booleans())
    def give(self, n: int, whole: bool) -> None:
        claim = self.attempts.pop(n % len(self.attempts))
        if whole:
            self.room.give(claim)
        else:
            self.room.give_slot(claim)
            self.leftovers.append(claim)

    @precondition(lambda self: self.leftovers)
    @rule(n=st.integers(0, 10))
    def end(self, n: int) -> None:
        self.room.give_rest(self.leftovers.pop(n % len(self.leftovers)))

    @invariant()
    def limits_are_kept(self) -> None:
        both = self.attempts + self.leftovers
        self.room.check(self.attempts, self.leftovers)
        for places, claims, share in (
            (self.room.slots, self.attempts, 3),
            (self.room.threads, [each for each in both if each.uses_thread], 2),
            (self.room.processes, [each for each in both if each.uses_process], 1),
        ):
            held = {who: sum(each.caller == who for each in claims) for who in "abcd"}
            assert places.held == {who: count for who, count in held.items() if count}
            assert places.used == len(claims) <= places.total
            assert max(held.values()) <= share
        assert sum(each.lane == "one" for each in both) <= 1
        assert self.room.in_lane.keys() == {each.lane for each in both}
        assert self.room.held_in_lane == Counter((each.lane, each.caller) for each in both)
        assert all(self.room.held_in_lane.get(("five", who), 0) <= 2 for who in "abcd"), "ceil(5 * 3 / 8)"
        assert all(count <= 2 for count in self.room.in_tree.values())

    @invariant()
    def who_has_nothing_may_start_while_there_is_a_slot(self) -> None:
        busy = {each.caller for each in self.attempts}
        if len(self.attempts) < 8:
            assert all(self.room.has_room(who, "new", "w") for who in "abcdz" if who not in busy)

    @invariant()
    def who_has_nothing_may_use_an_executor_that_has_a_place(self) -> None:
        both = self.attempts + self.leftovers
        for lane, places in (("one", 1), ("five", 5)):
            if len(self.attempts) < 8 and sum(each.lane == lane for each in both) < places:
                assert all(
                    self.room.has_room(who, "new", lane) for who in "abcdz" if who not in {c.caller for c in both}
                )


TestRoomMachine = RoomMachine.TestCase
