"""Tests of a2a_server.push.readers: one reader of a webhook, found by its tree and counted by its owner."""

from a2a_server.push.configs import DELIVERY_STATE, DeliveryState, PushConfig
from a2a_server.push.readers import Reader, Readers
from core.storage.base import Document


def reader(config_id: str = "c", tree_id: str = "t", owner: str = "ann") -> Reader:
    config = PushConfig(
        id=config_id, task_id=tree_id, tree_id=tree_id, owner=owner, url="https://example.com", created_at=1.0
    )
    return Reader(config, DeliveryState(), Document(kind=DELIVERY_STATE, id=config.key, body=b"{}"))


def test_a_webhook_has_one_reader() -> None:
    readers, first, second = Readers(), reader(), reader()

    assert readers.add(first) and not readers.add(second)

    assert readers.of(first.config) is first and readers.has(first) and not readers.has(second)
    assert (len(readers), readers.active("ann"), readers.trees()) == (1, 1, ["t"])
    readers.remove(second)  # is not its reader
    assert readers.has(first) and len(readers) == 1
    readers.remove(first)
    assert readers.add(second)


def test_readers_are_found_by_tree_and_counted_by_owner() -> None:
    readers = Readers()
    a, b, c = reader("a"), reader("b"), reader("c", "other", "bob")
    for each in (a, b, c):
        readers.add(each)

    assert list(readers.of_tree("t")) == [a, b] and list(readers.of_tree("none")) == []
    assert (readers.active("ann"), readers.active("bob"), readers.active("none"), len(readers)) == (2, 1, 0, 3)
    for each in readers.of_tree("t"):  # it may change meanwhile
        readers.remove(each)
    assert (readers.active("ann"), readers.trees(), len(readers)) == (0, ["other"], 1)


def test_nothing_is_kept_of_readers_that_are_gone() -> None:
    readers, one = Readers(), reader()
    readers.add(one)
    readers.remove(one)
    readers.remove(one)
    assert not any(vars(readers).values()) and not readers
