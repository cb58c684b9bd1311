"""Tests of core.cluster.postgres.hints: what a NOTIFY carries."""

import uuid

import pytest

from core.cluster.bus import HintValue
from core.cluster.postgres.hints import MOST, MOST_BYTES, Hint, Notice, Waiting, read_notice

SENDER = uuid.uuid4().hex


def taken(waiting: Waiting) -> list[Notice]:
    """All that waits."""
    notices = []
    while len(waiting):
        if payload := waiting.take():
            assert len(payload.encode()) < 8_000
            notice = read_notice(payload)
            assert notice is not None
            notices.append(notice)
    return notices


@pytest.mark.parametrize("value", [None, 1, 2**53, "text ü \0"])
def test_a_hint_arrives_as_it_was_given(value: HintValue) -> None:
    waiting = Waiting(SENDER)
    waiting.add(Hint("x", "ké\0y", value))
    assert taken(waiting) == [Notice(SENDER, [Hint("x", "ké\0y", value)])]
    assert waiting.take() == ""


def test_the_last_of_several_hints_with_one_key_is_sent_in_the_place_of_the_first() -> None:
    waiting = Waiting(SENDER)
    for hint in (Hint("v", "a", 1), Hint("v", "b", 1), Hint("f", "a"), Hint("v", "a", 2)):
        waiting.add(hint)
    assert taken(waiting) == [Notice(SENDER, [Hint("v", "a", 2), Hint("v", "b", 1), Hint("f", "a")])]


def test_many_hints_take_few_notices_and_a_large_one_keeps_nobody() -> None:
    waiting = Waiting(SENDER)
    hints = [Hint("v", str(uuid.uuid4()), 123_456) for _ in range(2 * MOST)]
    for hint in hints:
        waiting.add(hint)
    assert [notice.hints for notice in taken(waiting)] == [hints[:MOST], hints[MOST:]]
    long, longer = Hint("x", "k" * (MOST_BYTES // 2)), Hint("x", "l" * (MOST_BYTES // 2))
    for hint in (Hint("x", "k" * 9_000), long, longer):
        waiting.add(hint)
    assert [notice.hints for notice in taken(waiting)] == [[long], [longer]]
    waiting.add(Hint("x", "k" * 9_000))
    assert taken(waiting) == []


def test_so_many_hints_wait_and_no_more() -> None:
    waiting = Waiting(SENDER, most=2)
    for key in "abc":
        waiting.add(Hint("v", key, 1))
    assert [hint.key for notice in taken(waiting) for hint in notice.hints] == ["b", "c"]


@pytest.mark.parametrize("payload", ["", "probe", "[]", '["a"]', '["a",[["v"]]]', '["a",[["v","t",1.5]]]', "\ud800"])
def test_what_no_member_writes_is_no_notice(payload: str) -> None:
    assert read_notice(payload) is None
