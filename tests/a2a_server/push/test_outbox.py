"""The outbox (`a2a_server.push.outbox`), in virtual time."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from a2a_server.push.configs import AT_REST, CONFIG, DEAD, DELIVERY_STATE, PushConfig, unread_trees
from a2a_server.push.deliveries import DeliveryRetry
from a2a_server.push.sender import Failed
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.model.task import TreeHead
from core.session import Session, has_ended
from core.storage.base import Document, DocumentQuery, TreeQuery
from tests.a2a_server.push.receivers import DOWN, Post, Receiver, SteadyClock, until
from tests.core.cores import Bench, begin, item, settle, virtual_time


def bench() -> Bench:
    return Bench(clock=SteadyClock())


def states(receiver: Receiver) -> list[str]:
    """What the receiver has taken, in short: states, and artifacts by their name."""
    told = []
    for _, body in receiver.taken:
        if "statusUpdate" in body:
            told.append(body["statusUpdate"]["status"]["state"].removeprefix("TASK_STATE_"))
        else:
            told.append(f"artifact {body['artifactUpdate']['artifact']['name']}")
    return told


async def documents(session: Session, kind: str) -> list[Any]:
    return await session.storage.documents(DocumentQuery(kind=kind))


async def heads(session: Session) -> Sequence[TreeHead]:
    return (await session.storage.trees(TreeQuery(owner=None))).heads


async def finish(session: Session, executor: str = "nap", **given: Any) -> str:
    """A tree of one task that has ended."""
    head = (await session.create(session.plan([{"name": executor} | given]), execute=True)).head
    await session.wait(head.id, has_ended)
    return head.id


@virtual_time
async def test_changes_of_status_and_final_artifacts_arrive_in_order_each_once() -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        head = (await session.create(session.plan([{"name": "work", "inputs": {"result": "done"}}]), execute=True)).head
        config = await post.hook(head.id)

        await until(lambda: len(receiver.taken) == 3)

        assert states(receiver) == ["WORKING", "artifact work", "COMPLETED"]
        sequence = [int(message_id.split("_")[1]) for message_id in receiver.ids]
        assert sequence == sorted(sequence) and len(set(receiver.ids)) == 3
        assert all(message_id.startswith(f"{config.digest}_") for message_id in receiver.ids)
        await until(lambda: not post.outbox.readers)
        (delivery,) = await documents(session, DELIVERY_STATE)
        assert delivery.at == AT_REST
        await post.outbox.close()


@virtual_time
async def test_a_failed_event_comes_again_under_its_id_before_the_next_one_and_ever_later() -> None:
    async with bench().session() as session:
        receiver = Receiver(outcomes=[DOWN] * 4)
        post = Post(session, receiver, DeliveryRetry(initial=1.0, longest=4.0, max_age=600.0))
        await post.hook(await finish(session))

        await until(lambda: len(receiver.taken) == 2)

        first = receiver.ids[0]
        assert [message_id for _, message_id, _ in receiver.attempts] == [first] * 5 + [receiver.ids[1]]
        times = [at for at, _, _ in receiver.attempts]
        assert [round(b - a) for a, b in pairwise(times)][:4] == [1, 2, 4, 4]
        await post.outbox.close()


@virtual_time
async def test_a_receiver_that_names_a_time_is_left_alone_until_then() -> None:
    async with bench().session() as session:
        receiver = Receiver(outcomes=[Failed(error="busy", retry_after=30.0)])
        post = Post(session, receiver)
        await post.hook(await finish(session))

        await until(lambda: receiver.taken)

        times = [at for at, _, _ in receiver.attempts]
        assert 30 <= times[1] - times[0] < 31
        await post.outbox.close()


@virtual_time
async def test_an_event_that_is_too_old_is_given_up_and_the_next_one_has_its_turn() -> None:
    async with bench().session() as session:
        receiver = Receiver(outcomes=[DOWN] * 5)
        post = Post(session, receiver, DeliveryRetry(initial=10.0, longest=10.0, max_age=35.0))
        config = await post.hook(await finish(session))

        await until(lambda: receiver.taken)

        assert states(receiver) == ["COMPLETED"]
        (letter,) = await documents(session, DEAD)
        assert letter.id.startswith(f"{config.key}/") and letter.owner == config.owner
        assert len({message_id for _, message_id, _ in receiver.attempts}) == 2
        await post.outbox.close()


@pytest.mark.parametrize("seconds", [10 * 365 * 86_400.0, 3_600.0, -3_600.0, -86_400.0])
@virtual_time
async def test_a_clock_that_is_set_wrong_makes_nobody_give_up_nor_wait(seconds: float) -> None:
    """Found from outside: a jump of the clock turned undelivered events into dead letters."""
    clock = SteadyClock()
    async with Bench(clock=clock).session() as session:
        receiver = Receiver(outcomes=[DOWN] * 6)
        post = Post(session, receiver, DeliveryRetry(initial=10.0, longest=10.0, max_age=600.0))
        await post.hook(await finish(session))
        await until(lambda: len(receiver.attempts) == 1)
        clock.ahead = seconds
        await until(lambda: len(receiver.attempts) == 4)
        clock.ahead = 0.0
        await until(lambda: len(receiver.taken) == 2)
        times = [at for at, _, _ in receiver.attempts]
        assert [round(b - a) for a, b in pairwise(times)][:6] == [10] * 6
        assert await documents(session, DEAD) == []
        await post.outbox.close()


@virtual_time
async def test_a_destination_that_is_not_allowed_is_not_tried_again() -> None:
    async with bench().session() as session:
        receiver = Receiver(outcomes=[Failed(error="destination not allowed", is_final=True)] * 2)
        post = Post(session, receiver)
        await post.hook(await finish(session))

        await until(lambda: not post.outbox.readers)

        assert len(receiver.attempts) == 2 and not receiver.taken
        assert len(await documents(session, DEAD)) == 2
        await post.outbox.close()


@virtual_time
async def test_a_receiver_that_is_gone_is_removed() -> None:
    async with bench().session() as session:
        receiver = Receiver(outcomes=[Failed(error="gone", is_gone=True)])
        post = Post(session, receiver)
        await post.hook(await finish(session))

        await until(lambda: not post.outbox.readers)

        assert len(receiver.attempts) == 1
        assert [await documents(session, kind) for kind in (CONFIG, DELIVERY_STATE, DEAD)] == [[], [], []]
        await post.outbox.close()


@virtual_time
async def test_a_receiver_that_is_gone_is_not_asked_again_when_it_cannot_be_removed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation: half of it was removed, and the other half went on."""
    async with bench().session() as session:
        receiver = Receiver(outcomes=[Failed(error="gone", is_gone=True)])
        post = Post(session, receiver)
        failures = [StorageUnavailable("later")]
        delete = session.storage.delete_documents

        async def fails_once(*names: tuple[str, str], expected: Document | None = None) -> int:
            if failures:
                raise failures.pop()
            return await delete(*names, expected=expected)

        monkeypatch.setattr(session.storage, "delete_documents", fails_once)
        await post.hook(await finish(session))

        await until(lambda: not post.outbox.readers)

        assert len(receiver.attempts) == 1 and not failures
        assert [await documents(session, kind) for kind in (CONFIG, DELIVERY_STATE, DEAD)] == [[], [], []]
        await post.outbox.close()


@virtual_time
async def test_a_webhook_is_removed_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: a delivery state that was left alone kept its tree from retention for ever."""
    async with bench().session() as session:
        post = Post(session, Receiver(outcomes=[Failed(error="no", is_final=True)]))
        config = await post.hook(await finish(session))
        await until(lambda: not post.outbox.readers)
        assert [len(await documents(session, kind)) for kind in (CONFIG, DELIVERY_STATE, DEAD)] == [1, 1, 1]
        delete, calls = session.storage.delete_documents, []

        async def fails_then(*given: Any, **options: Any) -> int:
            calls.append(given)
            if len(calls) > 1:
                raise StorageUnavailable("later")
            return await delete(*given, **options)

        monkeypatch.setattr(session.storage, "delete_documents", fails_then)
        with suppress(StorageUnavailable):
            await post.store.delete(config)

        assert [await documents(session, kind) for kind in (CONFIG, DELIVERY_STATE, DEAD)] == [[], [], []]
        await post.outbox.close()


@pytest.mark.parametrize("is_stored", [False, True])
@virtual_time
async def test_a_webhook_goes_on_when_a_change_of_it_fails_and_ends_when_it_does_not(is_stored: bool) -> None:
    """Found by the simulation: it was told nothing more until the next start, or went on."""
    async with bench().session() as session:
        receiver = Receiver(gate=asyncio.Event())
        post = Post(session, receiver)
        config = await post.hook(await finish(session))
        await until(lambda: receiver.attempts)
        receiver.gate = None

        with suppress(StorageUnavailable):
            async with post.outbox.paused(config):
                if is_stored:
                    await post.store.delete(config)
                else:
                    raise StorageUnavailable("later")
        await until(lambda: not (post.outbox.readers or post.outbox.scanner.jobs))

        assert len(receiver.taken) == (0 if is_stored else 2)
        await post.outbox.close()


@virtual_time
async def test_a_receiver_that_hangs_delays_no_task_and_no_other_receiver() -> None:
    """The tree ends at the moment at which it would have ended alone."""
    async with bench().session() as session:
        hanging, good = Receiver(gate=asyncio.Event()), Receiver()
        stuck, free = Post(session, hanging), Post(session, good)
        begun = asyncio.get_running_loop().time()
        head = await begin(session, *(item(f"t{n}", "nap", *([f"t{n - 1}"] if n else [])) for n in range(5)))
        for n in range(20):
            await stuck.hook(head.id, config_id=f"stuck {n}")
        await free.hook(head.id, config_id="free")

        await session.wait(head.id, has_ended)

        assert asyncio.get_running_loop().time() - begun == pytest.approx(5.0, abs=0.001)
        await until(lambda: "COMPLETED" in states(good))
        assert hanging.now == 20
        await stuck.outbox.close()
        await free.outbox.close()


@virtual_time
async def test_what_was_under_way_when_the_process_ended_comes_again_and_nothing_is_missing() -> None:
    desk = bench()
    async with desk.session() as session:
        receiver = Receiver(gate=asyncio.Event())
        post = Post(session, receiver)
        await post.hook(await finish(session))
        await until(lambda: receiver.attempts)
        await post.outbox.close()  # in the middle of the first attempt

        following = Receiver()
        after = Post(session, following)
        await after.outbox.start()
        await until(lambda: len(following.taken) == 2)

        assert following.ids[0] == receiver.attempts[0][1]
        assert states(following) == ["WORKING", "COMPLETED"]
        await after.outbox.close()


@virtual_time
async def test_a_wait_outlives_the_process() -> None:
    async with bench().session() as session:
        post = Post(session, Receiver(outcomes=[DOWN]), DeliveryRetry(initial=50.0, longest=50.0, max_age=600.0))
        await post.hook(await finish(session))
        await until(lambda: post.outbox.schedule.due)
        failed_at = post.receiver.attempts[0][0]
        await post.outbox.close()

        following = Receiver()
        after = Post(session, following)
        await after.outbox.start()
        await until(lambda: following.taken)

        assert following.attempts[0][0] - failed_at == pytest.approx(50.0, abs=0.5)
        await after.outbox.close()


@virtual_time
async def test_a_start_looks_at_nothing_that_is_at_rest() -> None:
    async with bench().session() as session:
        post = Post(session, Receiver())
        await post.hook(await finish(session))
        await until(lambda: not post.outbox.readers)
        await post.outbox.close()

        after = Post(session, Receiver())
        await after.outbox.start()

        assert not after.outbox.readers and not after.outbox.schedule.jobs
        await after.outbox.close()


@virtual_time
async def test_a_second_run_is_not_lost_when_the_process_ends_before_anything_of_it_was_sent() -> None:
    """Also when the tree has ended again by then, so that nothing more is committed."""
    async with bench().session() as session:
        post = Post(session, Receiver())
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)
        await post.outbox.close()  # before the second run: its events find nobody

        await session.execute(tree_id, force=True)
        await session.wait(tree_id, has_ended)
        following = Receiver()
        after = Post(session, following)
        await after.outbox.start()
        await until(lambda: len(following.taken) == 2)

        assert states(following) == ["WORKING", "COMPLETED"]
        await after.outbox.close()


@pytest.mark.parametrize("error", [StorageError("corrupt"), TaskNotFound("gone")])
@virtual_time
async def test_a_webhook_that_cannot_be_resumed_keeps_no_other_waiting(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async with bench().session() as session:
        post = Post(session, Receiver())
        trees = sorted([await finish(session), await finish(session)])
        for tree_id in trees:
            await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)
        await post.outbox.close()
        for tree_id in trees:
            await session.execute(tree_id, force=True)
            await session.wait(tree_id, has_ended)
        read = session.storage.head

        async def head(tree_id: str, *, owner: str | None = None) -> TreeHead | None:
            if tree_id == trees[0]:
                raise error
            return await read(tree_id, owner=owner)

        monkeypatch.setattr(session.storage, "head", head)
        following = Receiver()
        after = Post(session, following)
        await after.outbox.start()
        await until(lambda: len(following.taken) == 2)

        assert states(following) == ["WORKING", "COMPLETED"]
        await after.outbox.close()


@virtual_time
async def test_a_webhook_whose_tree_runs_again_is_not_at_rest_in_the_database() -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)
        receiver.gate = asyncio.Event()

        await session.execute(tree_id, force=True)
        await until(lambda: receiver.now == 1)

        (delivery,) = await documents(session, DELIVERY_STATE)
        assert delivery.at < AT_REST
        await post.outbox.close()


@virtual_time
async def test_a_webhook_is_told_nothing_of_another_run_before_its_state_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation: retention took its tree for one that everybody has read."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)
        receiver.gate = asyncio.Event()
        failures = [StorageUnavailable("later")]
        swap = session.storage.swap

        async def fails_once(document: Document, expected: Document | None, *others: Document) -> bool:
            if failures:
                raise failures.pop()
            return await swap(document, expected, *others)

        monkeypatch.setattr(session.storage, "swap", fails_once)
        await session.execute(tree_id, force=True)
        await until(lambda: receiver.now == 1)

        assert not failures and tree_id in await unread_trees(session.storage, await heads(session))
        await post.outbox.close()


@virtual_time
async def test_what_went_on_before_a_crash_is_unread_however_long_the_start_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation: retention removed a tree whose webhook was stored as at rest, and not resumed yet."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)
        (read,) = await heads(session)
        await post.outbox.close()
        await session.execute(tree_id, force=True)
        await session.wait(tree_id, lambda head: has_ended(head) and head.run == 2)
        post = Post(session, receiver)  # which has not started

        assert await unread_trees(session.storage, [read]) == frozenset()
        assert await post.outbox.scanner.unread(await heads(session)) == {tree_id}
        await until(lambda: not (post.outbox.readers or post.outbox.scanner.jobs))
        assert states(receiver) == ["WORKING", "COMPLETED"] * 2, "its reader need not wait for the start, either"
        assert await post.outbox.scanner.unread(await heads(session)) == frozenset()
        await post.outbox.close()


@virtual_time
async def test_a_tree_is_unread_up_to_the_last_of_its_webhooks() -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id, other = await finish(session), await finish(session)
        await post.hook(tree_id)
        await post.hook(other)
        await until(lambda: not post.outbox.readers)
        receiver.outcomes = [DOWN]
        await post.hook(tree_id, config_id="late")
        await until(lambda: post.outbox.schedule.due)

        assert await unread_trees(session.storage, await heads(session)) == {tree_id}
        assert await unread_trees(session.storage, []) == frozenset()
        await until(lambda: not post.outbox.readers)
        assert await unread_trees(session.storage, await heads(session)) == frozenset()
        await post.outbox.close()


@virtual_time
async def test_a_webhook_that_is_stopped_while_it_waits_is_not_kept_in_memory() -> None:
    async with bench().session() as session:
        post = Post(session, Receiver(outcomes=[DOWN]))
        config = await post.hook(await finish(session))
        await until(lambda: post.outbox.schedule.due)

        await post.outbox.stop(config)

        schedule = post.outbox.schedule
        assert not any(map(schedule.waiting, schedule.due))
        assert {type(part) for due in schedule.due for part in due} == {float, str}, "names, and no secrets"
        await post.outbox.close()


@virtual_time
async def test_a_tree_that_runs_again_wakes_its_webhooks() -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: len(receiver.taken) == 2 and not post.outbox.readers)

        await session.execute(tree_id, force=True)
        await until(lambda: len(receiver.taken) == 4)

        assert states(receiver) == ["WORKING", "COMPLETED"] * 2
        await post.outbox.close()


@virtual_time
async def test_a_cancel_after_a_run_of_a_part_is_told() -> None:
    """Found by the simulation: it is no run of its own, and the webhook had gone to rest after the one before."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        items = [{"id": "root", "name": "root"}, item("a", "nap", parent_id="root"), item("b", "nap", parent_id="root")]
        plan = session.plan(items)
        tree_id = (await session.create(plan)).head.id
        await post.hook(tree_id)
        await session.execute(plan.tasks[1].id)
        await until(lambda: states(receiver)[-1:] == ["SUBMITTED"] and not post.outbox.readers)

        await session.cancel(tree_id)
        await until(lambda: states(receiver)[-1:] == ["CANCELED"])
        await post.outbox.close()


@virtual_time
async def test_a_first_run_after_a_cancel_is_told() -> None:
    """Found by the simulation: the tree had ended, and its webhook was at rest."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = (await session.create(session.plan([{"name": "nap"}]))).head.id
        await post.hook(tree_id)
        await session.cancel(tree_id)
        await until(lambda: states(receiver) == ["CANCELED"] and not post.outbox.readers)

        await session.execute(tree_id, force=True)
        async with asyncio.timeout(100):
            await until(lambda: states(receiver) == ["CANCELED", "WORKING", "COMPLETED"])

        await post.outbox.close()


@pytest.mark.parametrize("meanwhile", ["its reader ends", "it is replaced"])
@virtual_time
async def test_what_was_read_of_a_webhook_is_not_believed_when_it_has_gone_on(
    monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Found by the simulation: an old cursor told an event twice, an old configuration took the new one's place."""
    async with bench().session() as session:
        receiver = Receiver(gate=asyncio.Event())
        post = Post(session, receiver)
        tree_id = await finish(session)
        config = await post.hook(tree_id)
        await until(lambda: receiver.attempts)
        read, gate = session.storage.document, asyncio.Event()

        async def slow(kind: str, document_id: str) -> Document | None:
            found = await read(kind, document_id)
            if kind == DELIVERY_STATE:
                await gate.wait()
            return found

        monkeypatch.setattr(session.storage, "document", slow)
        post.outbox.scanner.look_at(tree_id)
        await settle()
        assert receiver.gate is not None
        if meanwhile == "its reader ends":
            receiver.gate.set()
            await until(lambda: not post.outbox.readers)
            gate.set()
            await until(lambda: not post.outbox.scanner.jobs)
        else:
            async with post.outbox.paused(config):
                gate.set()
                await settle()
                receiver.gate.set()
                config = replace(config, url="https://example.org")
                webhook = await post.stored(config)
            post.outbox.enroll(webhook)
            await until(lambda: not (post.outbox.readers or post.outbox.scanner.jobs))

        assert states(receiver) == ["WORKING", "COMPLETED"]
        assert meanwhile == "its reader ends" or receiver.urls == [config.url] * 2
        await post.outbox.close()


@virtual_time
async def test_what_was_read_of_a_webhook_just_before_its_removal_is_not_believed_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation (seed 6018): a start's second look had seen it, and told a webhook that was removed."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        config = await post.hook(await finish(session))
        await post.outbox.stop(config)
        read = session.storage.document
        gates = [asyncio.Event(), asyncio.Event()]
        looks = iter(gates)

        async def slow(kind: str, document_id: str) -> Document | None:
            found = await read(kind, document_id)
            if kind == DELIVERY_STATE and (gate := next(looks, None)) is not None:
                await gate.wait()
            return found

        monkeypatch.setattr(session.storage, "document", slow)
        post.outbox.start()
        await settle()
        async with post.outbox.paused(config):
            gates[0].set()
            await settle()  # the second look begins
            await post.store.delete(config)
        gates[1].set()
        await until(lambda: not (post.outbox.readers or post.outbox.scanner.jobs))

        assert next(looks, None) is None, "both looks were made"
        assert receiver.attempts == []
        await post.outbox.close()


@pytest.mark.parametrize("outcome", [None, DOWN, Failed(error="no", is_final=True), Failed(error="x", is_gone=True)])
@pytest.mark.parametrize("change", ["replaced", "deleted"])
@virtual_time
async def test_what_another_process_changed_is_attempted_once_at_most_and_stays_as_it_is(
    change: str, outcome: Failed | None
) -> None:
    """Found by reading (F7): the old reader's cursor, or its wait, took the place of the new one's."""
    async with bench().session() as session:
        receiver = Receiver(outcomes=[outcome], gate=asyncio.Event())
        post = Post(session, receiver)
        config = await post.hook(await finish(session))
        await until(lambda: receiver.attempts)

        if change == "replaced":
            await post.stored(replace(config, url="https://example.org"))
        else:
            await post.store.delete(config)
        kept = [await documents(session, kind) for kind in (CONFIG, DELIVERY_STATE, DEAD)]
        receiver.gate.set()  # type: ignore[union-attr]
        await until(lambda: not post.outbox.readers)

        assert len(receiver.attempts) == 1
        assert [await documents(session, kind) for kind in (CONFIG, DELIVERY_STATE, DEAD)] == kept
        assert [len(each) for each in kept] == ([1, 1, 0] if change == "replaced" else [0, 0, 0])
        await post.outbox.close()


@virtual_time
async def test_a_reader_at_the_end_of_its_log_does_not_put_the_webhook_to_rest_that_has_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        swap, kept = session.storage.swap, []

        async def overtaken(document: Document, expected: Document | None, *others: Document) -> bool:
            if document.at == AT_REST and not kept:
                kept.append((await post.stored(config)).stored)
            return await swap(document, expected, *others)

        monkeypatch.setattr(session.storage, "swap", overtaken)
        config = await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)

        assert len(kept) == 1 and await documents(session, DELIVERY_STATE) == kept
        await post.outbox.close()


@pytest.mark.parametrize("is_stored", [True, False])
@virtual_time
async def test_a_reader_that_does_not_know_whether_its_cursor_was_stored_goes_on_from_the_stored_one(
    monkeypatch: pytest.MonkeyPatch, is_stored: bool
) -> None:
    """An answer is lost with the connection; a reader that took its own word for it would never write again."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        swap, failures = session.storage.swap, [StorageUnavailable("lost")]

        async def loses_an_answer(document: Document, expected: Document | None, *others: Document) -> bool:
            if failures and not is_stored:
                raise failures.pop()
            is_swapped = await swap(document, expected, *others)
            if failures:
                raise failures.pop()
            return is_swapped

        monkeypatch.setattr(session.storage, "swap", loses_an_answer)
        await post.hook(await finish(session))
        await until(lambda: not post.outbox.readers)

        assert states(receiver) == ["WORKING", "WORKING", "COMPLETED"]
        assert len(set(receiver.ids)) == 2
        (standing,) = await documents(session, DELIVERY_STATE)
        assert standing.at == AT_REST
        await post.outbox.close()


@virtual_time
async def test_a_webhook_at_rest_that_changes_while_it_is_woken_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        config = await post.hook(tree_id)
        await until(lambda: not post.outbox.readers)
        receiver.taken.clear()
        swap, changes = session.storage.swap, [replace(config, url="https://example.org")]

        async def late(document: Document, expected: Document | None, *others: Document) -> bool:
            if changes:
                await post.stored(changes.pop())
            return await swap(document, expected, *others)

        monkeypatch.setattr(session.storage, "swap", late)
        await session.execute(tree_id, force=True)
        await until(lambda: not (post.outbox.readers or post.outbox.scanner.jobs))

        assert set(receiver.urls[2:]) == {"https://example.org"}
        assert states(receiver)[-1] == "COMPLETED"
        await post.outbox.close()


@virtual_time
async def test_a_webhook_at_rest_is_woken_although_another_one_of_its_tree_is_awake() -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: len(receiver.taken) == 2 and not post.outbox.readers)
        receiver.outcomes = [DOWN]
        await post.hook(tree_id, config_id="late")
        await until(lambda: post.outbox.schedule.due)
        receiver.taken.clear()

        await session.execute(tree_id, force=True)
        await until(lambda: not post.outbox.readers)

        assert states(receiver).count("COMPLETED") == 3  # the first one's of this run, the late one's of both
        await post.outbox.close()


@virtual_time
async def test_a_removed_webhook_is_told_nothing_more() -> None:
    async with bench().session() as session:
        receiver = Receiver(gate=asyncio.Event())
        post = Post(session, receiver)
        config = await post.hook(await finish(session))
        await until(lambda: receiver.attempts)

        await post.outbox.stop(config)
        await post.store.delete(config)
        receiver.gate.set()  # type: ignore[union-attr]
        await asyncio.sleep(100)  # virtual

        assert len(receiver.attempts) == 1 and not receiver.taken
        assert await documents(session, CONFIG) == [] and await documents(session, DELIVERY_STATE) == []
        await post.outbox.close()


@virtual_time
async def test_webhooks_go_with_their_tree() -> None:
    async with bench().session() as session:
        post = Post(session, Receiver(outcomes=[DOWN] * 100))
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: post.outbox.schedule.due)

        await session.delete(tree_id)
        await until(lambda: not post.outbox.readers)

        assert await documents(session, DELIVERY_STATE) == []
        await post.outbox.close()


@virtual_time
async def test_webhooks_that_have_nothing_to_do_go_with_their_tree_too() -> None:
    """Found by the simulation: nothing woke the reader of a tree that was never started."""
    async with bench().session() as session:
        post = Post(session, Receiver())
        tree_id = (await session.create(session.plan([{"name": "nap"}]))).head.id
        await post.hook(tree_id)
        await until(lambda: not post.outbox.schedule.jobs)
        assert post.outbox.readers

        await session.delete(tree_id)
        await until(lambda: not post.outbox.schedule.jobs)

        assert not post.outbox.readers
        await post.outbox.close()


@virtual_time
async def test_a_webhook_that_waits_is_forgotten_at_once_when_its_tree_is_deleted() -> None:
    async with bench().session() as session:
        post = Post(session, Receiver(outcomes=[DOWN] * 100))
        tree_id = await finish(session)
        await post.hook(tree_id)
        await until(lambda: post.outbox.schedule.due)

        await session.delete(tree_id)

        schedule = post.outbox.schedule
        assert not post.outbox.readers and not any(map(schedule.waiting, schedule.due))
        await post.outbox.close()


@virtual_time
async def test_no_more_deliveries_run_at_a_time_than_may() -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver, concurrency=3)
        tree_id = await finish(session)
        receiver.gate = asyncio.Event()
        for n in range(10):
            await post.hook(tree_id, config_id=f"c{n}")
        await until(lambda: receiver.now == 3)
        receiver.gate.set()

        await until(lambda: len(receiver.taken) == 20)

        assert receiver.most == 3
        await post.outbox.close()


class Holes(Receiver):
    """Those of ann never answer; everybody else's take everything at once."""

    async def send(self, config: PushConfig, message_id: str, body: bytes) -> Failed | None:
        if config.owner != "ann":
            return await super().send(config, message_id, body)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.now -= 1
        raise AssertionError


@virtual_time
async def test_receivers_of_one_caller_that_never_answer_delay_no_delivery_of_another() -> None:
    """Found from outside: one caller's silent webhooks held every delivery for 30 s."""
    async with bench().session() as session:
        receiver = Holes()
        post = Post(session, receiver, concurrency=4, concurrency_per_caller=3)
        tree_id = await finish(session)
        for n in range(50):
            await post.hook(tree_id, config_id=f"hole{n}", owner="ann")
        await until(lambda: receiver.now == 3)
        before = asyncio.get_running_loop().time()

        for n in range(5):
            await post.hook(tree_id, config_id=f"c{n}", owner="bob")
        await until(lambda: len(receiver.taken) == 10)

        assert asyncio.get_running_loop().time() - before < 1.0
        assert receiver.now == 3, "ann has no more than her share, and all of it"
        await post.outbox.close()


class Slow(Receiver):
    """Takes a second for everything."""

    async def send(self, config: PushConfig, message_id: str, body: bytes) -> Failed | None:
        await asyncio.sleep(1.0)  # virtual
        return await super().send(config, message_id, body)


@virtual_time
async def test_a_webhook_with_much_to_send_gives_its_place_to_the_next_one_of_its_caller() -> None:
    async def chatter(inputs: dict[str, Any], context: Any) -> None:
        for n in range(10):
            await context.artifact(f"piece {n}")

    desk = bench()
    desk.add("chatter", chatter)
    async with desk.session() as session:
        receiver = Slow()
        post = Post(session, receiver, concurrency=1, concurrency_per_caller=1)
        long = await finish(session, "chatter")
        short = await finish(session)
        await post.hook(long, url="https://example.com/long", events=("chunks",))
        await post.hook(short, url="https://example.com/short")

        await until(lambda: "https://example.com/short" in receiver.urls)

        assert receiver.urls.count("https://example.com/long") <= 2
        await until(lambda: not post.outbox.readers)
        assert len(set(receiver.ids)) == len(receiver.ids) > 10, "each once, whatever the turns"
        await post.outbox.close()


@virtual_time
async def test_webhooks_that_are_removed_while_they_wait_leave_the_line() -> None:
    async with bench().session() as session:
        receiver = Holes()
        post = Post(session, receiver, concurrency=1, concurrency_per_caller=1)
        tree_id = await finish(session)
        configs = [await post.hook(tree_id, config_id=f"hole{n}", owner="ann") for n in range(9)]
        await until(lambda: receiver.now == 1)
        for config in configs[1:]:
            await post.outbox.stop(config)
        assert (post.outbox.schedule.shares.waiting, post.outbox.schedule.shares.in_use) == (0, 1)
        await post.outbox.stop(configs[0])
        assert post.outbox.schedule.shares.in_use == 0
        await post.hook(tree_id, owner="bob")
        await until(lambda: receiver.taken)
        await post.outbox.close()


@virtual_time
async def test_a_long_log_of_pieces_is_looked_at_once() -> None:
    """Events without a delivery are not read again with every piece that follows."""

    async def chatter(inputs: dict[str, Any], context: Any) -> None:
        for n in range(300):
            await context.artifact(f"piece {n}")

    desk = bench()
    desk.add("chatter", chatter)
    async with desk.session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        read: list[int] = []
        events = session.storage.events

        async def counted(*given: Any, **named: Any) -> Any:
            page = await events(*given, **named)
            read.append(len(page) if "kinds" not in named else 0)
            return page

        session.storage.events = counted  # type: ignore[method-assign]
        head = (await session.create(session.plan([{"name": "chatter"}]), execute=True)).head
        await post.hook(head.id)
        await until(lambda: "COMPLETED" in states(receiver))

        assert sum(read) < 3 * 310
        assert states(receiver) == ["WORKING", "artifact chatter", "COMPLETED"]
        await post.outbox.close()


def test_waits_double_with_full_jitter_up_to_the_longest() -> None:
    retry_policy = DeliveryRetry(initial=1.0, longest=3_600.0, max_age=1.0)
    assert [retry_policy.delay(n, 1.0) for n in (1, 2, 3, 12, 13, 10_000)] == [1.0, 2.0, 4.0, 2048.0, 3_600.0, 3_600.0]
    assert retry_policy.delay(5, 0.5) == 8.0
    assert replace(retry_policy, initial=0.1).delay(1, 1.0) == 0.1


@virtual_time
async def test_a_bug_with_one_webhook_is_told_in_the_log_and_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        tell = post.outbox.deliveries.parcels._payloads.tell

        async def broken(config: Any, *given: Any) -> Any:
            if config.id == "bad":
                raise ZeroDivisionError("a bug of ours")
            return await tell(config, *given)

        post.outbox.deliveries.parcels._payloads.tell = broken  # type: ignore[method-assign]
        tree_id = await finish(session)
        await post.hook(tree_id, config_id="bad")
        await post.hook(tree_id, config_id="good")

        await until(lambda: len(receiver.taken) == 2 and not post.outbox.readers)

        assert "a bug of ours" in caplog.text and f"{tree_id}/bad stop" in caplog.text
        await post.outbox.close()
