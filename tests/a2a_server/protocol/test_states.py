"""Tests of a2a_server.protocol.states: one state for each status."""

from a2a_server.protocol.states import STATES, STATUSES
from a2a_server.protocol.types import TaskState
from core.model.task import TaskStatus


def test_each_status_is_one_state_and_back() -> None:
    assert set(STATES) == set(TaskStatus) and set(STATUSES) == set(TaskState)
    assert all(STATUSES[STATES[status]] is status for status in TaskStatus)


def test_a_state_is_found_by_its_name_on_the_wire() -> None:
    assert STATUSES.get("TASK_STATE_CANCELED") is TaskStatus.CANCELLED  # type: ignore[call-overload]
