"""Fair shares of places by key: caps hold, nobody starves, no place is idle while somebody may have it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.shares import FairShares


def taken_by(shares: FairShares[int]) -> list[str]:
    """The keys of everything that may have a place now, in order."""
    keys = []
    while (taken := shares.take()) is not None:
        keys.append(taken[0])
    return keys


def test_keys_that_wait_take_turns() -> None:
    shares: FairShares[int] = FairShares(4, 4)
    for n in range(3):
        shares.ask("ann", n)
    shares.ask("bob", 10)
    assert taken_by(shares) == ["ann", "bob", "ann", "ann"]


def test_no_key_holds_more_than_its_cap_and_it_goes_on_when_one_is_given_back() -> None:
    shares: FairShares[int] = FairShares(4, 2)
    for n in range(5):
        shares.ask("ann", n)
    assert taken_by(shares) == ["ann", "ann"]
    assert (shares.in_use, shares.waiting, shares.held("ann")) == (2, 3, 2)
    shares.give_back("ann")
    assert taken_by(shares) == ["ann"]


def test_one_who_comes_later_has_the_next_place_before_the_first_one_has_a_second() -> None:
    shares: FairShares[int] = FairShares(1, 1)
    for n in range(1_000):
        shares.ask("ann", n)
    assert taken_by(shares) == ["ann"]
    shares.ask("bob", 1)
    shares.give_back("ann")
    assert taken_by(shares) == ["bob"]


def test_items_of_one_key_keep_their_order() -> None:
    shares: FairShares[int] = FairShares(9, 9)
    for n in (3, 1, 2):
        shares.ask("ann", n)
    assert [shares.take() for _ in range(3)] == [("ann", 3), ("ann", 1), ("ann", 2)]


def test_an_item_that_is_withdrawn_has_no_turn() -> None:
    shares: FairShares[int] = FairShares(1, 1)
    shares.ask("ann", 1)
    assert shares.withdraw("ann", 1)
    assert not shares.withdraw("ann", 1)
    assert shares.take() is None
    assert (shares.in_use, shares.waiting) == (0, 0)


def test_a_place_that_nobody_holds_cannot_be_given_back() -> None:
    with pytest.raises(KeyError):
        FairShares[int](1, 1).give_back("ann")


@pytest.mark.parametrize(("total", "each"), [(0, 1), (1, 0)])
def test_without_places_nothing_is_shared(total: int, each: int) -> None:
    with pytest.raises(ValueError, match="at least one place"):
        FairShares[int](total, each)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "give back", "withdraw"]), st.sampled_from("abcd"), st.integers(0, 9)),
    max_size=200,
)


@given(STEPS, st.integers(1, 5), st.integers(1, 5))
def test_caps_hold_turns_are_fair_and_no_place_is_idle(
    steps: list[tuple[str, str, int]], total: int, each: int
) -> None:
    shares: FairShares[int] = FairShares(total, each)
    held = dict.fromkeys("abcd", 0)
    waits: dict[str, list[int]] = {key: [] for key in "abcd"}
    passed = dict.fromkeys("abcd", 0)  # turns of others since a key that may have a place began to wait
    for n, (step, key, which) in enumerate(steps):
        if step == "ask":
            shares.ask(key, n)
            waits[key].append(n)
        elif step == "withdraw" and waits[key]:
            assert shares.withdraw(key, waits[key].pop(which % len(waits[key])))
        elif step == "give back" and held[key]:
            shares.give_back(key)
            held[key] -= 1
        while (taken := shares.take()) is not None:
            winner, item = taken
            assert item == waits[winner].pop(0)
            held[winner] += 1
            passed[winner] = 0
            for other in waits:
                is_eligible = bool(waits[other]) and held[other] < each
                passed[other] = passed[other] + 1 if is_eligible and other != winner else 0
                assert passed[other] < len(waits), "a key was passed over for a whole round"
        assert all(shares.held(each_key) == held[each_key] <= each for each_key in held)
        assert shares.in_use == sum(held.values()) <= total
        assert shares.waiting == sum(map(len, waits.values()))
        may_have_one = [each_key for each_key in waits if waits[each_key] and held[each_key] < each]
        assert shares.in_use == total or not may_have_one, "a place is idle"
