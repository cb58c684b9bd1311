"""What could not be delivered: who sees it, and what becomes of it when it is sent again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from a2a_server.push.configs import DEAD
from a2a_server.push.sender import Failed
from a2a_server.push.undelivered import GONE, Undelivered
from tests.a2a_server.push.receivers import DOWN, Post, Receiver, SteadyClock, until
from tests.a2a_server.push.test_outbox import documents, finish
from tests.core.cores import Bench, virtual_time

OWNER = "anonymous"
REFUSED = Failed(error="refused", is_final=True)


class World:
    """A tree whose events failed at a webhook as the test wants it."""

    def __init__(self, post: Post) -> None:
        self.post = post
        self.undelivered = Undelivered(post.session.storage, post.store, post.outbox.deliveries)

    async def dead(self) -> list[str]:
        found, _ = await self.undelivered.dead(OWNER, None, 100)
        return [each["delivery_id"] for each in found]


@asynccontextmanager
async def world(*outcomes: Failed) -> AsyncIterator[World]:
    async with Bench(clock=SteadyClock()).session() as session:
        post = Post(session, Receiver(outcomes=list(outcomes)))
        await post.hook(await finish(session))
        await until(lambda: not post.receiver.outcomes and not post.outbox.schedule.jobs)
        yield World(post)
        await post.outbox.close()


@virtual_time
async def test_a_dead_letter_says_what_could_not_be_delivered_and_why() -> None:
    async with world(REFUSED) as it:
        ((letter,), last) = await it.undelivered.dead(OWNER, None, 100)
        assert (letter["status"], letter["config_id"], letter["error"], letter["attempts"]) == (
            "dead", "c", "refused", 1,
        )  # fmt: skip
        assert last is None, "there is no more"


@virtual_time
async def test_dead_letters_come_in_pages() -> None:
    async with world(REFUSED, REFUSED) as it:
        first, last = await it.undelivered.dead(OWNER, None, 1)
        assert last is not None
        second, last = await it.undelivered.dead(OWNER, last, 1)
        assert last is not None and await it.undelivered.dead(OWNER, last, 1) == ([], None)
        assert [each["delivery_id"] for each in (*first, *second)] == await it.dead()


@virtual_time
async def test_a_delivery_that_waits_says_until_when() -> None:
    async with world(DOWN) as it:
        ((waiting,), _) = await it.undelivered.waiting(OWNER, None, 100)
        assert (waiting["status"], waiting["error"], waiting["attempts"]) == ("waiting", "down", 1)
        assert waiting["retry_at"] and await it.dead() == []


@virtual_time
async def test_other_callers_see_and_resend_nothing() -> None:
    async with world(REFUSED) as it:
        (name,) = await it.dead()
        assert await it.undelivered.dead("other", None, 100) == ([], None)
        (answer,) = await it.undelivered.resend("other", [name])
        (missing,) = await it.undelivered.resend(OWNER, ["unknown"])
        assert (answer["delivered"], answer["error"]) == (False, missing["error"]), "a foreign one looks like none"
        assert await it.dead() == [name]


@virtual_time
async def test_what_arrives_is_dead_no_more_and_has_the_id_that_it_had() -> None:
    async with world(REFUSED) as it:
        (name,) = await it.dead()
        first = it.post.receiver.attempts[0][1]
        assert await it.undelivered.resend(OWNER, [name]) == [{"delivery_id": name, "delivered": True}]
        assert it.post.receiver.ids[-1] == first and await it.dead() == []


@virtual_time
async def test_what_fails_again_stays_dead_and_each_has_its_answer() -> None:
    async with world(REFUSED, REFUSED) as it:
        names = await it.dead()
        it.post.receiver.outcomes.append(DOWN)
        answers = await it.undelivered.resend(OWNER, names)
        assert [each["delivery_id"] for each in answers] == names
        (left,) = await it.dead()
        assert [each for each in answers if not each["delivered"]] == [
            {"delivery_id": left, "delivered": False, "error": "down"}
        ]


@virtual_time
async def test_a_letter_of_a_webhook_that_was_deleted_cannot_be_sent() -> None:
    async with world(REFUSED) as it:
        (document,) = await documents(it.post.session, DEAD)
        config = await it.post.store.find(OWNER, document.tree_id, "c")
        assert config is not None
        await it.post.session.storage.delete_documents(("push_config", config.key))
        (answer,) = await it.undelivered.resend(OWNER, [document.id])
        assert (answer["delivered"], answer["error"]) == (False, GONE)
