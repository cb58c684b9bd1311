"""Whose rows a caller sees, and for whom an operator may act (`a2a_server.auth.principal`)."""

import pytest

from a2a_server.auth.principal import NOBODY, Principal, Scope
from core.model.owners import owner_of

ANN = Principal(id="ann", tenant="t", owner=owner_of("t", "ann"))
OPERATOR = Principal(id="op", tenant="t", owner=owner_of("t", "op"), is_operator=True)
OF_THE_SERVER = Principal(id="root", owner=owner_of("", "root"), is_operator=True)


@pytest.mark.parametrize(
    ("principal", "scope"),
    [
        (ANN, Scope(owner=ANN.owner)),
        (OPERATOR, Scope(tenant="t")),
        (OF_THE_SERVER, Scope()),
        (NOBODY, Scope(owner=NOBODY.owner)),
    ],
)
def test_an_operator_sees_its_tenant_and_the_server_s_sees_all(principal: Principal, scope: Scope) -> None:
    assert principal.scope == scope


@pytest.mark.parametrize(
    ("principal", "tenant", "may"),
    [(ANN, "t", False), (OPERATOR, "t", True), (OPERATOR, "u", False), (OF_THE_SERVER, "u", True)],
)
def test_an_operator_acts_for_its_own_tenant(principal: Principal, tenant: str, may: bool) -> None:
    assert principal.manages(tenant) is may


def test_what_belongs_to_others_counts_for_operators_alone() -> None:
    assert ANN.oversees(ANN.owner) and not ANN.oversees(OPERATOR.owner)
    assert OPERATOR.oversees(ANN.owner) and not OPERATOR.oversees(OF_THE_SERVER.owner)
