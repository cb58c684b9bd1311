"""Tests of core.cluster.interest: versions are told of trees only that somebody follows elsewhere."""

from core.cluster.interest import SWEPT, Interest


def test_only_what_others_follow_is_told_until_they_say_so_no_more() -> None:
    interest = Interest(kept=25)
    assert not interest.changed("t", 1, now=0)
    interest.said("t", now=0)
    assert interest.changed("t", 2, now=24.9) and not interest.changed("other", 2, now=24.9)
    assert not interest.changed("t", 3, now=25)
    interest.said("t", now=30)
    assert interest.changed("t", 4, now=54)


def test_what_was_committed_a_moment_before_is_known() -> None:
    interest = Interest()
    assert interest.said("t", now=0) is None
    interest.changed("u", 7, now=0)
    interest.changed("u", 8, now=0)
    assert interest.said("u", now=0) == 8


def test_versions_of_so_many_trees_are_remembered_and_no_more() -> None:
    interest = Interest(latest=2)
    for tree_id, version in (("a", 1), ("b", 1), ("a", 2), ("c", 1)):
        interest.changed(tree_id, version, now=0)
    assert [interest.said(tree_id, now=0) for tree_id in "abc"] == [2, None, 1]


def test_a_deleted_tree_is_told_once_to_those_who_follow_it() -> None:
    interest = Interest(kept=25)
    interest.changed("t", 1, now=0)
    interest.said("t", now=0)
    assert interest.deleted("t", now=1) and not interest.deleted("t", now=1)
    assert interest.said("t", now=2) is None
    assert not interest.deleted("t", now=30)


def test_interest_that_nobody_renews_takes_no_room_for_ever() -> None:
    interest = Interest(kept=25)
    for number in range(SWEPT):
        interest.said(f"old {number}", now=0)
    interest.said("new", now=30)
    assert len(interest) == 1
