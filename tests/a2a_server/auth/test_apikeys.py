"""API keys: what they prove, and for how long."""

import asyncio
import re

import pytest

from a2a_server.auth.apikeys import ApiKeys, KeyNotFound, TooManyKeys
from a2a_server.auth.errors import BadCredential
from a2a_server.auth.principal import Principal
from a2a_server.auth.stored_keys import KIND, Grant
from core.model.owners import owner_of
from core.storage.base import Document
from core.storage.memory import MemoryStorage
from tests.a2a_server.auth.clocks import SetClock

ANN = Grant(principal="ann", tenant="t", skills=("echo",))


async def make() -> tuple[ApiKeys, MemoryStorage, SetClock]:
    storage, clock = MemoryStorage(), SetClock()
    await storage.open()
    return ApiKeys(storage, clock), storage, clock


async def refusal(keys: ApiKeys, text: str) -> str:
    with pytest.raises(BadCredential) as refused:
        await keys.principal(text)
    return str(refused.value)


@pytest.mark.asyncio
async def test_a_key_is_its_principal() -> None:
    keys, _, clock = await make()

    key, text = await keys.create(Grant(principal="ann", tenant="t", skills=("echo",), expires_at=clock.time + 9))

    assert await keys.principal(text) == Principal(
        id="ann",
        tenant="t",
        skills=frozenset({"echo"}),
        expires_at=clock.time + 9,
        credential=key.id,
        owner=owner_of("t", "ann"),
    )


@pytest.mark.asyncio
async def test_scanners_can_find_a_key_and_the_storage_does_not_hold_it() -> None:
    keys, storage, _ = await make()
    key, text = await keys.create(ANN)

    assert re.fullmatch(r"a2a_[0-9a-f]{16}_[0-9a-f]{64}", text)
    document = await storage.document(KIND, key.id)
    assert document is not None
    assert text.encode() not in document.body
    assert text.rpartition("_")[2].encode() not in document.body
    assert key.last_characters == text[-4:]


@pytest.mark.asyncio
async def test_a_key_outlives_the_process() -> None:
    keys, storage, clock = await make()
    _, text = await keys.create(ANN)

    assert (await ApiKeys(storage, clock).principal(text)).id == "ann"


@pytest.mark.asyncio
async def test_wrong_secrets_and_unknown_keys_prove_nothing() -> None:
    keys, _, _ = await make()
    key, text = await keys.create(ANN)
    _, others = await keys.create(ANN)

    for bad in (
        f"a2a_{key.id}_{'0' * 64}",
        f"a2a_{key.id}_{others[-64:]}",
        text[:-1] + ("0" if text[-1] != "0" else "1"),
    ):
        assert "is wrong" in await refusal(keys, bad)
    assert "the key is unknown" in await refusal(keys, f"a2a_{'0' * 16}_{text[-64:]}")
    for bad in ("a2a_", text[:-1], text + "0", text.upper(), text + "\n", f"a2a_{key.id}", "a2a_é", ""):
        assert "look like" in await refusal(keys, bad)


@pytest.mark.asyncio
async def test_an_expired_key_proves_nothing() -> None:
    keys, _, clock = await make()
    _, text = await keys.create(Grant(principal="ann", expires_at=clock.time + 10))
    await keys.principal(text)

    clock.time += 10

    assert "has expired" in await refusal(keys, text)


@pytest.mark.asyncio
async def test_a_revoked_key_proves_nothing_at_once() -> None:
    """Also when it was used a moment ago, and is therefore in memory."""
    keys, _, _ = await make()
    key, text = await keys.create(ANN)
    await keys.principal(text)

    revoked = await keys.revoke(key.id)

    assert "is revoked" in await refusal(keys, text)
    assert await keys.revoke(key.id) == revoked
    with pytest.raises(KeyNotFound, match="revoked"):
        await keys.rotate(key.id)


@pytest.mark.asyncio
async def test_a_rotated_key_has_a_new_secret_and_the_old_one_for_its_grace_only() -> None:
    keys, _, clock = await make()
    key, old = await keys.create(ANN)
    await keys.principal(old)

    _, new = await keys.rotate(key.id, grace=60)

    assert (await keys.principal(new)).expires_at is None
    assert (await keys.principal(old)).expires_at == clock.time + 60
    clock.time += 60
    assert "has expired" in await refusal(keys, old)
    assert (await keys.principal(new)).id == "ann"


@pytest.mark.asyncio
async def test_without_grace_the_old_secret_is_gone() -> None:
    keys, _, _ = await make()
    key, old = await keys.create(ANN)

    await keys.rotate(key.id)

    assert "is wrong" in await refusal(keys, old)


class SlowStorage(MemoryStorage):
    """Reads a document, and gives it when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.was_read = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def document(self, kind: str, document_id: str) -> Document | None:
        found = await super().document(kind, document_id)
        if not self.was_read.is_set():
            self.was_read.set()
            await self.may_answer.wait()
        return found


@pytest.mark.asyncio
async def test_a_key_that_is_revoked_while_it_is_read_is_not_remembered_as_good() -> None:
    storage = SlowStorage()
    await storage.open()
    keys = ApiKeys(storage, SetClock())
    key, text = await keys.create(ANN)
    reading = asyncio.create_task(keys.principal(text))
    await storage.was_read.wait()

    await keys.revoke(key.id)
    storage.may_answer.set()

    assert (await reading).id == "ann"  # this request came before
    assert "is revoked" in await refusal(keys, text)


@pytest.mark.asyncio
async def test_a_rotation_and_a_revocation_at_once_leave_a_revoked_key() -> None:
    storage = SlowStorage()
    await storage.open()
    keys = ApiKeys(storage, SetClock())
    key, _ = await keys.create(ANN)
    rotating = asyncio.create_task(keys.rotate(key.id))
    await storage.was_read.wait()

    revoking = asyncio.create_task(keys.revoke(key.id))
    await asyncio.sleep(0)
    storage.may_answer.set()
    rotated, _ = await asyncio.gather(rotating, revoking, return_exceptions=True)

    assert isinstance(rotated, KeyNotFound)
    assert [each.revoked_at is not None for each in await keys.all()] == [True]


@pytest.mark.asyncio
async def test_all_keys_are_listed_in_the_order_of_their_making(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2a_server.auth.apikeys.PAGE", 2)
    keys, _, clock = await make()
    made = []
    for _ in range(5):
        clock.time += 1
        made.append((await keys.create(ANN))[0])

    assert await keys.all() == made


@pytest.mark.asyncio
async def test_an_unknown_key_cannot_be_changed() -> None:
    keys, _, _ = await make()
    for change in (keys.rotate("nobody"), keys.revoke("nobody")):
        with pytest.raises(KeyNotFound, match="nobody"):
            await change


@pytest.mark.asyncio
async def test_memory_for_keys_is_bounded_and_those_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2a_server.auth.known_keys.MOST_CACHED", 2)
    keys, storage, _ = await make()
    made = [await keys.create(ANN) for _ in range(3)]
    read: list[str] = []
    document = storage.document

    async def counted(kind: str, key_id: str) -> Document | None:
        read.append(key_id)
        return await document(kind, key_id)

    monkeypatch.setattr(storage, "document", counted)
    for number in (0, 1, 0, 2, 0, 1):
        assert (await keys.principal(made[number][1])).id == "ann"

    assert read == [made[number][0].id for number in (0, 1, 2, 1)]
    assert len(keys._known._cached) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b,c"), ("a,b", "c")),
        (("", "ab"), ("ab", "")),
        (('a","b', "c"), ("a", 'b","c')),
        (("a", "b"), ("b", "a")),
    ],
)
def test_no_two_principals_are_one_owner(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert owner_of(*one) != owner_of(*other)
    assert "anonymous" not in {owner_of(*one), owner_of("", "anonymous"), owner_of("anonymous", "")}


@pytest.mark.asyncio
async def test_a_rotated_key_is_known_by_the_end_of_its_new_secret() -> None:
    keys, _, _ = await make()
    key, _ = await keys.create(ANN)
    rotated, text = await keys.rotate(key.id)
    assert rotated.last_characters == text[-4:]
    assert await keys.all() == [rotated]


@pytest.mark.asyncio
@pytest.mark.parametrize("grace", [0.5, 1.0])
async def test_a_grace_may_be_short(grace: float) -> None:
    keys, _, clock = await make()
    key, old = await keys.create(ANN)
    rotated, _ = await keys.rotate(key.id, grace=grace)
    assert rotated.replaced_until == clock.time + grace
    assert (await keys.principal(old)).expires_at == clock.time + grace


@pytest.mark.asyncio
async def test_nothing_of_a_replaced_secret_is_kept_without_grace_or_after_a_revocation() -> None:
    keys, _, clock = await make()
    key, _ = await keys.create(ANN)
    rotated, _ = await keys.rotate(key.id)
    assert (rotated.replaced, rotated.replaced_until) == (None, None)
    await keys.rotate(key.id, grace=60)
    revoked = await keys.revoke(key.id)
    assert (revoked.replaced, revoked.replaced_until, revoked.revoked_at) == (None, None, clock.time)


@pytest.mark.asyncio
async def test_the_log_can_say_why_a_key_was_refused() -> None:
    keys, _, clock = await make()
    key, text = await keys.create(Grant(principal="ann", expires_at=clock.time + 1))
    assert await refusal(keys, "a2a_x") == "it does not look like a key"
    assert await refusal(keys, f"a2a_{'0' * 16}_{'0' * 64}") == "the key is unknown"
    assert await refusal(keys, f"a2a_{key.id}_{'0' * 64}") == f"the secret of key {key.id} is wrong"
    clock.time += 1
    assert await refusal(keys, text) == f"key {key.id} has expired"
    await keys.revoke(key.id)
    assert await refusal(keys, text) == f"key {key.id} is revoked"


@pytest.mark.asyncio
async def test_a_key_of_an_operator_is_an_operators() -> None:
    keys, _, _ = await make()
    _, text = await keys.create(Grant(principal="root", is_operator=True))
    assert (await keys.principal(text)).is_operator


@pytest.mark.asyncio
async def test_a_key_is_stored_as_its_principals() -> None:
    keys, storage, clock = await make()
    key, _ = await keys.create(ANN)
    document = await storage.document(KIND, key.id)
    assert document is not None
    assert (document.owner, document.at, document.tree_id) == (owner_of("t", "ann"), clock.time, "")


class CountingStorage(MemoryStorage):
    """Counts the reads of documents."""

    reads = 0

    async def document(self, kind: str, document_id: str) -> Document | None:
        self.reads += 1
        return await super().document(kind, document_id)


@pytest.mark.asyncio
async def test_a_key_is_read_once_and_again_after_it_changed() -> None:
    storage = CountingStorage()
    await storage.open()
    keys = ApiKeys(storage, SetClock())
    key, text = await keys.create(ANN)
    for _ in range(3):
        await keys.principal(text)
    assert storage.reads == 1
    await keys.rotate(key.id, grace=60)  # reads it too
    for _ in range(3):
        await keys.principal(text)
    assert storage.reads == 3


@pytest.mark.asyncio
async def test_a_tenant_has_so_many_good_keys_and_no_more_and_others_are_not_counted() -> None:
    storage, clock = MemoryStorage(), SetClock()
    await storage.open()
    keys = ApiKeys(storage, clock, limit=2)
    for _ in range(2):
        await keys.create(ANN)
    with pytest.raises(TooManyKeys, match=r"the tenant 't' has 2 valid keys, .*max_keys.*; revoke one"):
        await keys.create(ANN)
    await keys.create(Grant(principal="ann", tenant="u"))
    assert len(await keys.all()) == 3


@pytest.mark.parametrize("end", ["revoked", "expired"])
@pytest.mark.asyncio
async def test_a_key_that_is_good_for_nothing_makes_room_for_a_new_one(end: str) -> None:
    storage, clock = MemoryStorage(), SetClock()
    await storage.open()
    keys = ApiKeys(storage, clock, limit=2)
    spent, text = await keys.create(Grant(principal="ann", tenant="t", expires_at=clock.time + 5))
    good, _ = await keys.create(ANN)
    if end == "revoked":
        await keys.revoke(spent.id)
    else:
        clock.time += 5
    new, _ = await keys.create(ANN)
    assert {key.id for key in await keys.all()} == {good.id, new.id}
    assert await refusal(keys, text) == "the key is unknown"
