"""How the settings share what runs among callers."""

from typing import Any

import pytest

from a2a_server.config import Config
from a2a_server.shares import part_per_caller, runner_limits, slots_per_caller
from core.model.owners import owner_of, tenant_of
from core.model.task import ANONYMOUS


@pytest.mark.parametrize(
    ("settings", "slots", "part"),
    [
        ({}, None, None),
        ({"auth": ("keys",)}, 50, 0.5),
        ({"auth": ("keys",), "max_running": 3}, 1, 1 / 3),
        ({"auth": ("keys",), "max_running": 1}, 1, None),
        ({"auth": ("keys",), "max_running_per_caller": 7}, 7, 0.07),
        ({"max_running_per_caller": 7}, 7, 0.07),
        ({"max_running_per_caller": 700}, 700, None),
    ],
)
def test_callers_who_are_identified_may_hold_half_of_the_slots(
    settings: dict[str, Any], slots: int | None, part: float | None
) -> None:
    config = Config(**settings)
    assert (slots_per_caller(config), part_per_caller(config)) == (slots, part)
    assert runner_limits(config).caller == slots


def test_a_caller_weighs_what_its_tenant_does() -> None:
    weigh = runner_limits(Config(tenant_weights={"acme": 2.0, "": 0.5})).weigh
    owners = [
        owner_of("acme", "ada"),
        owner_of("acme", "bob"),
        owner_of("other", "acme"),
        owner_of("", "eve"),
        ANONYMOUS,
    ]
    assert [weigh(owner) for owner in owners] == [2.0, 2.0, 1.0, 0.5, 0.5]


def test_the_tenant_of_an_owner_is_read_whatever_its_name_is() -> None:
    assert tenant_of(owner_of('a"], [', "b")) == 'a"], ['
    for other in (ANONYMOUS, "ann", "", "[1, 2]", "[]"):
        assert tenant_of(other) == ""


def test_a_task_may_take_an_hour_unless_the_operator_says_otherwise() -> None:
    assert runner_limits(Config()).seconds == 3600
    assert runner_limits(Config(max_task_seconds=0)).seconds is None
