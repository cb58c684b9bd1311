"""A receiver that tests can see into and steer, and an outbox in virtual time that sends to it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from a2a_server.push.bodies import Payloads
from a2a_server.push.configs import ConfigStore, DeliveryState, PushConfig, SecretBox, Webhook
from a2a_server.push.deliveries import Deliveries, DeliveryRetry
from a2a_server.push.outbox import Outbox
from a2a_server.push.parcels import OF_ONE_CALLER, ON_THEIR_WAY, Parcels
from a2a_server.push.readers import Reader
from a2a_server.push.sender import Failed
from a2a_server.v0_3.dialect import A2A_0_3
from core.model.shares import FairShares
from core.session import Session
from tests.core.cores import LoopClock

DOWN = Failed(error="down")
PATIENCE = DeliveryRetry(initial=1.0, longest=60.0, max_age=600.0)


class SteadyClock(LoopClock):
    """Virtual time in which every wait is as long as it may be."""

    def chance(self) -> float:
        return 1.0


@dataclass
class Receiver:
    """Stands in for the sender: takes what it is given, or fails as the test wants it."""

    outcomes: list[Failed | None] = field(default_factory=list)  # of the next attempts; then everything is taken
    attempts: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)  # when, id, body
    taken: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)  # where it was taken
    gate: asyncio.Event | None = None  # attempts hang until it is set
    now: int = 0
    most: int = 0

    async def send(self, config: PushConfig, message_id: str, body: bytes) -> Failed | None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            self.attempts.append((asyncio.get_running_loop().time(), message_id, json.loads(body)))
            if self.gate is not None:
                await self.gate.wait()
            outcome = self.outcomes.pop(0) if self.outcomes else None
            if outcome is None:
                self.taken.append((message_id, json.loads(body)))
                self.urls.append(config.url)
            return outcome
        finally:
            self.now -= 1

    @property
    def ids(self) -> list[str]:
        return [message_id for message_id, _ in self.taken]


@dataclass
class Post:
    """An outbox on a session, and the webhooks of it."""

    session: Session
    receiver: Receiver
    retry_policy: DeliveryRetry = PATIENCE
    concurrency: int = 50
    concurrency_per_caller: int = 50
    on_their_way: int = ON_THEIR_WAY  # bytes
    of_one_caller: int = OF_ONE_CALLER

    def __post_init__(self) -> None:
        self.store = ConfigStore(self.session.storage, SecretBox(()))
        payloads = Payloads(self.session, {"0.3": A2A_0_3})
        parcels = Parcels(
            self.session.storage, payloads, on_their_way=self.on_their_way, of_one_caller=self.of_one_caller
        )
        receiver: Any = self.receiver
        deliveries = Deliveries(self.session, self.store, parcels, receiver, self.retry_policy)
        shares: FairShares[Reader] = FairShares(self.concurrency, self.concurrency_per_caller)
        self.outbox = Outbox(self.session, self.store, deliveries, shares)

    async def hook(self, tree_id: str, task_id: str = "", *, config_id: str = "c", **fields: Any) -> PushConfig:
        """A webhook that has been told nothing yet."""
        config = PushConfig(
            id=config_id,
            task_id=task_id or tree_id,
            tree_id=tree_id,
            created_at=self.session.clock.now(),
            **{"owner": "anonymous", "url": "https://example.com", **fields},
        )
        self.outbox.enroll(await self.stored(config))
        return config

    async def stored(self, config: PushConfig) -> Webhook:
        """It, in the place of the one with its key."""
        delivery = DeliveryState(shown="pending", registered=self.session.clock.new_id())
        written, stored = self.store.documents(config, delivery)
        await self.session.storage.put_documents(written, stored)
        return Webhook(config, delivery, stored)


async def until(condition: Callable[[], object]) -> None:
    """Let virtual time pass until something holds that nobody announces."""
    async with asyncio.timeout(100_000):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)  # virtual
