"""What every storage promises of documents (`core.storage.base`)."""

import asyncio

import pytest
from msgspec.structs import replace

from core.model.errors import StorageError, StorageUnavailable, TaskNotFound, VersionConflict
from core.storage.base import Document, DocumentQuery, Storage, document_pages
from tests.core.storage.samples import created, finished, started


def document(document_id: str, *, kind: str = "note", at: float = 1.0, **fields: str) -> Document:
    return Document(kind=kind, id=document_id, at=at, body=b'{"n":1}', **fields)


async def ids(storage: Storage, **fields: object) -> list[str]:
    query = DocumentQuery(**{"kind": "note", **fields})  # type: ignore[arg-type]
    return [each.id for each in await storage.documents(query)]


@pytest.mark.asyncio
async def test_a_document_is_read_as_it_was_put(storage: Storage) -> None:
    await storage.append(created("t"))
    put = Document(kind="note", id='"a\u2028', owner="ann", tree_id="t", at=2.5, body=b'{"text":"\xc3\xbc"}')

    await storage.put_documents(put)

    assert await storage.document("note", put.id) == put
    assert await storage.document("other", put.id) is None
    assert await storage.documents(DocumentQuery(kind="note")) == [put]


@pytest.mark.asyncio
async def test_a_document_takes_the_place_of_the_one_before(storage: Storage) -> None:
    await storage.put_documents(document("a", owner="ann"), document("b"))
    changed = Document(kind="note", id="a", owner="bob", at=9.0, body=b"[]")

    await storage.put_documents(changed)

    assert await storage.document("note", "a") == changed
    assert await ids(storage) == ["b", "a"]


@pytest.mark.asyncio
async def test_documents_of_a_tree_that_is_not_there_are_refused_as_a_whole(storage: Storage) -> None:
    with pytest.raises(TaskNotFound):
        await storage.put_documents(document("a"), document("b", tree_id="gone"))

    assert await ids(storage) == []


@pytest.mark.asyncio
async def test_what_cannot_be_stored_is_an_error_and_not_a_wait_for_ever(storage: Storage) -> None:
    """Found by a mutant: a write in memory that failed left its caller waiting for ever."""
    told = r"^(The storage cannot be written|A value cannot be stored: it is not JSON)$"
    with pytest.raises(StorageError, match=told):
        await asyncio.wait_for(storage.put_documents(document(["no", "text"])), 30)  # type: ignore[arg-type]

    await storage.put_documents(document("a"))
    assert await ids(storage) == ["a"]


@pytest.mark.asyncio
async def test_documents_are_found_by_owner_tree_and_time_page_by_page(storage: Storage) -> None:
    await storage.append(created("t"))
    await storage.put_documents(
        document("a", at=3.0, owner="ann"),
        document("b", at=1.0, owner="bob", tree_id="t"),
        document("c", at=3.0, owner="ann", tree_id="t"),
        document("d", at=2.0),
        document("x", kind="other", at=0.0, owner="ann"),
    )

    assert await ids(storage) == ["b", "d", "a", "c"]
    assert await ids(storage, owner="ann") == ["a", "c"]
    assert await ids(storage, owner="") == ["d"]
    assert await ids(storage, tree_id="t") == ["b", "c"]
    assert await ids(storage, tree_ids=["t", "u"]) == ["b", "c"]
    assert await ids(storage, tree_ids=["t"], limit=1, after=(1.0, "b")) == ["c"]
    assert await ids(storage, ids=["d", "a", "x", "none"]) == ["d", "a"]
    assert await ids(storage, ids=["d", "a"], limit=1, after=(2.0, "d")) == ["a"]
    assert await ids(storage, ids=[]) == []
    assert await ids(storage, tree_ids=["u"]) == await ids(storage, tree_ids=[]) == []
    assert await ids(storage, until=2.0) == ["b", "d"]
    assert await ids(storage, limit=2) == ["b", "d"]
    assert await ids(storage, limit=2, after=(2.0, "d")) == ["a", "c"]
    assert await ids(storage, after=(3.0, "a")) == ["c"]


@pytest.mark.asyncio
async def test_all_documents_come_page_by_page_and_none_twice(storage: Storage) -> None:
    """Also those of one moment, which are told apart by their ids."""
    await storage.put_documents(*[document(name, at=float(name in "de")) for name in "abcde"])

    pages = [[each.id for each in page] async for page in document_pages(storage, DocumentQuery(kind="note", limit=2))]

    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    assert [page async for page in document_pages(storage, DocumentQuery(kind="nothing"))] == []


@pytest.mark.asyncio
async def test_deleted_documents_are_gone_and_counted(storage: Storage) -> None:
    await storage.put_documents(document("a"), document("b"), document("a", kind="other"))

    assert await storage.delete_documents(("note", "a"), ("note", "none"), ("other", "b")) == 1

    assert await ids(storage) == ["b"]
    assert await storage.document("other", "a") is not None
    assert await storage.delete_documents(("note", "b"), ("other", "a")) == 2


@pytest.mark.asyncio
async def test_of_two_new_documents_with_one_id_the_first_is_there(storage: Storage) -> None:
    await storage.append(created("t"))
    made = [document("a", owner=owner, tree_id="t") for owner in ("ann", "bob")]

    stored = await asyncio.gather(*map(storage.put_new, made))

    assert stored == [made[0], made[0]]
    assert await storage.document("note", "a") == made[0]
    assert await storage.put_new(document("a", kind="other")) == document("a", kind="other")


@pytest.mark.asyncio
async def test_a_new_document_of_a_tree_that_is_not_there_is_refused(storage: Storage) -> None:
    with pytest.raises(TaskNotFound):
        await storage.put_new(document("a", tree_id="gone"))
    with pytest.raises(TaskNotFound):
        await storage.swap(document("a", tree_id="gone"), None)

    assert await ids(storage) == []


@pytest.mark.asyncio
async def test_a_document_is_swapped_only_when_it_is_as_expected(storage: Storage) -> None:
    await storage.append(created("t"))
    first, second = document("a", tree_id="t"), document("a", at=2.0, tree_id="t")

    assert not await storage.swap(second, first)
    assert await storage.swap(first, None)
    assert not await storage.swap(second, None)
    assert not await storage.swap(second, second)
    assert await storage.document("note", "a") == first
    assert await storage.swap(second, first)
    assert not await storage.swap(second, first)
    assert await storage.document("note", "a") == second


@pytest.mark.parametrize(
    "change", [{"owner": "bob"}, {"at": 1.5}, {"body": b'{"n":2}'}], ids=lambda change: min(change)
)
@pytest.mark.asyncio
async def test_each_part_of_a_document_is_compared(storage: Storage, change: dict[str, object]) -> None:
    stored = document("a", owner="ann")
    await storage.put_documents(stored)

    assert not await storage.swap(document("a", at=9.0), replace(stored, **change))
    assert await storage.document("note", "a") == stored


@pytest.mark.asyncio
async def test_of_two_swaps_of_one_document_the_first_is_stored(storage: Storage) -> None:
    await storage.put_documents(document("a"))
    changed = [document("a", at=at) for at in (2.0, 3.0)]

    assert await asyncio.gather(*[storage.swap(each, document("a")) for each in changed]) == [True, False]
    assert await storage.document("note", "a") == changed[0]


@pytest.mark.asyncio
async def test_other_documents_are_stored_with_a_swap_or_none_is(storage: Storage) -> None:
    await storage.put_documents(document("a"), document("b"))

    assert not await storage.swap(document("a", at=2.0), None, document("b", at=5.0), document("c"))
    assert await storage.documents(DocumentQuery(kind="note")) == [document("a"), document("b")]
    with pytest.raises(TaskNotFound):
        await storage.swap(document("a", at=2.0), document("a"), document("c", tree_id="gone"))
    assert await storage.document("note", "a") == document("a")
    assert await storage.swap(document("a", at=2.0), document("a"), document("b", at=5.0), document("c"))
    assert await ids(storage) == ["c", "a", "b"]


@pytest.mark.asyncio
async def test_documents_are_deleted_only_when_one_of_them_is_as_expected(storage: Storage) -> None:
    await storage.put_documents(document("a"), document("b"))
    names = ("note", "a"), ("note", "b")

    for wrong in (document("a", at=2.0), document("c")):
        assert await storage.delete_documents(*names, expected=wrong) == 0
    assert await ids(storage) == ["a", "b"]
    assert await storage.delete_documents(*names, expected=document("a")) == 2
    assert await ids(storage) == []


@pytest.mark.asyncio
async def test_a_tree_takes_its_documents_with_it(storage: Storage) -> None:
    await storage.append(created("t"))
    await storage.append(created("u"))
    await storage.put_documents(document("a", tree_id="t"), document("b", tree_id="u"), document("c"))

    await storage.delete("t")

    assert await ids(storage) == ["b", "c"]


@pytest.mark.asyncio
async def test_a_document_is_stored_with_its_append_or_neither_is(storage: Storage) -> None:
    first = replace(created("t"), documents=(document("key", tree_id="t"),))
    second = replace(created("u"), documents=(document("key", tree_id="u"),))

    results = await asyncio.gather(storage.append(first), storage.append(second), return_exceptions=True)

    assert results[0] is None and isinstance(results[1], VersionConflict)
    found = await storage.document("note", "key")
    assert found is not None and found.tree_id == "t"
    assert await storage.head("u") is None


@pytest.mark.asyncio
async def test_a_later_append_brings_documents_too(storage: Storage) -> None:
    tree = created("t")
    await storage.append(tree)
    start = started(tree.head, tree.tasks[0])
    await storage.append(replace(start, documents=(document("key", tree_id="t"),)))

    with pytest.raises(VersionConflict):
        await storage.append(replace(finished(start.head), documents=(document("key"),)))

    head = await storage.head("t")
    assert head is not None and head.is_live
    assert await ids(storage) == ["key"]


@pytest.mark.asyncio
async def test_a_closed_storage_takes_no_documents(storage: Storage) -> None:
    await storage.close()

    with pytest.raises(StorageUnavailable):
        await storage.put_documents(document("a"))
    with pytest.raises(StorageUnavailable):
        await storage.put_new(document("a"))
    with pytest.raises(StorageUnavailable):
        await storage.swap(document("a"), None)
    with pytest.raises(StorageUnavailable):
        await storage.delete_documents(("note", "a"))


@pytest.mark.asyncio
async def test_documents_are_found_by_the_beginning_of_their_id(storage: Storage) -> None:
    await storage.put_documents(
        document("t/a", at=3.0),
        document("t/b", at=1.0),
        document("t/", at=2.0),
        document("t", at=0.0),
        document("t0", at=0.0),
        document("t.1/a", at=0.0),
        document("T/a", at=0.0),
        document("t/ü\U0010ffff", at=9.0),
        document("t/a", kind="other", at=0.0),
    )
    assert await ids(storage, prefix="t/") == ["t/b", "t/", "t/a", "t/ü\U0010ffff"]
    assert await ids(storage, prefix="t/", limit=2, after=(1.0, "t/b")) == ["t/", "t/a"]
    assert await ids(storage, prefix="u/") == []
