"""Whose rows: an owner is one principal of one tenant, written as one text. Pure."""

from functools import lru_cache

import msgspec

KEPT = 10_000  # owners whose tenant is remembered


def is_of(row_owner: str, owner: str | None, tenant: str | None) -> bool:
    """Whether a row of `row_owner` is this owner's and this tenant's; None means any."""
    return owner in (None, row_owner) and tenant in (None, tenant_of(row_owner))


def owner_of(tenant: str, principal: str) -> str:
    """Whose rows those of this principal are: JSON of both names, so that no two pairs and no other owner share it."""
    return msgspec.json.encode((tenant, principal)).decode()


@lru_cache(KEPT)
def tenant_of(owner: str) -> str:
    """The tenant of an owner that `owner_of` made; '' for any other, such as every caller without authentication."""
    return _names(owner)[0]


def principal_of(owner: str) -> str:
    """The principal of an owner that `owner_of` made; any other owner as it is."""
    return _names(owner)[1]


def _names(owner: str) -> tuple[str, str]:
    try:
        return msgspec.json.decode(owner, type=tuple[str, str])
    except msgspec.MsgspecError:
        return "", owner
