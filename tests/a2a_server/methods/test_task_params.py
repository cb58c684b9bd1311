"""The shape of the params of `tasks.*`: what is taken, and which field an error names."""

from typing import Any

import pytest
from msgspec import UNSET

from a2a_server.methods import task_params as p
from a2a_server.protocol.codec import decode_strict
from a2a_server.protocol.errors import InvalidParams
from core.model.task import TaskStatus


def wrong(given: Any, params_type: Any) -> set[str]:
    with pytest.raises(InvalidParams) as error:
        decode_strict(given, params_type)
    return {each.field for each in error.value.violations}


@pytest.mark.parametrize("ids", ["a", "a,b", ["a", "b"]])
def test_ids_are_a_list_or_a_text(ids: Any) -> None:
    assert decode_strict({"task_ids": ids}, p.CancelParams).task_ids == ids


@pytest.mark.parametrize("params_type", [p.CancelParams, p.RunningStatusParams])
@pytest.mark.parametrize(
    ("ids", "field"), [("", "task_ids"), ([], "task_ids"), ([""], "task_ids[0]"), (None, "task_ids"), (5, "task_ids")]
)
def test_ids_that_are_none_are_refused(params_type: Any, ids: Any, field: str) -> None:
    assert {name.partition("[")[0] for name in wrong({"task_ids": ids}, params_type)} == {field.partition("[")[0]}


def test_one_call_names_so_many_ids_and_not_one_more() -> None:
    ids = ["a"] * p.MOST_IDS
    assert decode_strict({"task_ids": ids}, p.CancelParams).task_ids == ids
    assert wrong({"task_ids": [*ids, "a"]}, p.CancelParams) == {"task_ids"}


@pytest.mark.parametrize("params_type", [p.ListParams, p.RunningParams])
@pytest.mark.parametrize(("limit", "is_taken"), [(0, False), (1, True), (1_000, True), (1_001, False), ("5", False)])
def test_a_page_has_a_bound(params_type: Any, limit: Any, is_taken: bool) -> None:
    if is_taken:
        assert decode_strict({"limit": limit}, params_type).limit == limit
    else:
        assert wrong({"limit": limit}, params_type) == {"limit"}


@pytest.mark.parametrize(("after", "is_taken"), [(-1, False), (0, True), (2**63 - 1, True), (2**63, False)])
def test_the_number_of_an_event_is_one_that_the_storage_can_have(after: int, is_taken: bool) -> None:
    if is_taken:
        assert decode_strict({"task_id": "a", "after": after}, p.EventsParams).after == after
    else:
        assert wrong({"task_id": "a", "after": after}, p.EventsParams) == {"after"}


@pytest.mark.parametrize("params_type", [p.ListParams, p.RunningParams])
def test_an_offset_is_told_what_to_send_instead(params_type: Any) -> None:
    with pytest.raises(InvalidParams, match="page_token"):
        decode_strict({"offset": 100}, params_type)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"status": "done"}, "status"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-01-31T00:00:00"}, "since"),
        ({"page_token": ""}, "page_token"),
        ({"root_only": 1}, "root_only"),
        ({"more": 1}, "more"),
    ],
)
def test_every_wrong_field_of_a_list_is_named(params: Any, field: str) -> None:
    assert wrong(params, p.ListParams) == {field}


def test_a_list_has_roots_of_every_status_unless_told_otherwise() -> None:
    given = decode_strict({}, p.ListParams)
    assert (given.root_only, given.status, given.limit) == (True, None, 100)
    assert decode_strict({"status": "pending"}, p.ListParams).status is TaskStatus.PENDING


def test_an_answer_of_null_is_an_answer() -> None:
    assert decode_strict({"task_id": "a", "answer": None}, p.AnswerParams).answer is None
    assert decode_strict({"task_id": "a"}, p.AnswerParams).answer is UNSET
    assert wrong({"task_id": "a", "answers": []}, p.AnswerParams) == {"answers"}


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({}, "webhook_config.url"),
        ({"url": ""}, "webhook_config.url"),
        ({"url": "u", "events": ["x", 5]}, "webhook_config.events[1]"),
        ({"url": "u", "authentication": {}}, "webhook_config.authentication.scheme"),
    ],
)
def test_a_webhook_s_wrong_field_is_named_by_its_path(webhook: Any, field: str) -> None:
    assert wrong({"task_id": "a", "webhook_config": webhook}, p.ExecuteParams) == {field}


@pytest.mark.parametrize("name", ["use_streaming", "wait", "force", "a2a"])
def test_a_switch_is_a_boolean(name: str) -> None:
    assert wrong({"task_id": "a", name: "true"}, p.ExecuteParams) == {name}
