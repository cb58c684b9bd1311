"""Bugs to plant in the outbox, as those of `bugs` are in the core."""

from typing import Any

from msgspec.structs import replace

from a2a_server.push import outbox as outbox_module
from a2a_server.push.configs import CONFIG, DELIVERY_STATE, ConfigStore, DeliveryState
from a2a_server.push.deliveries import Deliveries, Step
from a2a_server.push.outbox import Outbox
from a2a_server.push.parcels import Parcel
from a2a_server.push.schedule import Schedule
from a2a_server.push.sender import Sender
from core.model.shares import FairShares
from tests.simulation.bugs import Plant, in_place_of, nothing


def _early_cursor(old: Any) -> Any:
    async def deliver(self: Deliveries, reader: Any, parcel: Parcel) -> Any:
        before = reader.delivery
        if parcel.bodies:
            await self._keep(reader, replace(before, cursor=parcel.seq, shown=parcel.shown))
            reader.delivery = before
        return await old(self, reader, parcel)

    return deliver


def _passed_over(old: Any) -> Any:
    async def deliver(self: Deliveries, reader: Any, parcel: Parcel) -> Any:
        await old(self, reader, parcel)
        return Step.GO_ON

    return deliver


def _swapped(old: Any) -> Any:
    """After a failure the event's bodies come in another order, and under the wrong names."""
    again: set[tuple[str, int]] = set()

    async def send_all(self: Deliveries, config: Any, parcel: Parcel) -> Any:
        name = (config.key, parcel.seq)
        failed = await old(self, config, parcel._replace(bodies=parcel.bodies[::-1]) if name in again else parcel)
        if failed:
            again.add(name)
        return failed

    return send_all


def _renamed(old: Any) -> Any:
    sent: set[str] = set()

    async def send(self: Sender, config: Any, message_id: str, body: bytes) -> Any:
        if message_id in sent:
            return await old(self, config, f"{message_id}_again", body)
        sent.add(message_id)
        return await old(self, config, message_id, body)

    return send


def _believing(**changes: Any) -> Any:
    """The sender's outcome is taken for another one."""

    def remake(old: Any) -> Any:
        async def send(self: Sender, *given: Any) -> Any:
            failed = await old(self, *given)
            return None if failed is None else replace(failed, **changes)

        return send

    return remake


def _deaf_while_busy(old: Any) -> Any:
    return lambda self, reader: old(self, reader) if reader.job is None else None


def _without_a_trace(old: Any) -> Any:
    async def keep(self: Deliveries, reader: Any, delivery: DeliveryState, *others: Any, at_rest: bool = False) -> None:
        reader.delivery = delivery

    return keep


async def _stays(self: Outbox, config: Any) -> None:
    return None


async def _by_halves(self: ConfigStore, config: Any, stored: Any = None) -> bool:
    await self._storage.delete_documents((CONFIG, config.key))
    return await self._storage.delete_documents((DELIVERY_STATE, config.key)) > 0


def _generous(old: Any) -> Any:
    def init(self: Outbox, session: Any, store: Any, deliveries: Any, shares: Any) -> None:
        old(self, session, store, deliveries, FairShares(shares._total + 1, shares._each + 1))

    return init


OUTBOX_BUGS: dict[str, Plant] = {
    "the cursor is stored before the delivery": in_place_of(Deliveries, "_deliver", _early_cursor),
    "the cursor is never stored": in_place_of(Deliveries, "_keep", _without_a_trace),
    "a delivery that failed is passed over": in_place_of(Deliveries, "_deliver", _passed_over),
    "the bodies of an event are swapped when they are sent again": in_place_of(Deliveries, "send_all", _swapped),
    "a repetition has a new id": in_place_of(Sender, "send", _renamed),
    "a failed delivery is given up at once": in_place_of(Sender, "send", _believing(is_final=True)),
    "a receiver that is gone is called again": in_place_of(Sender, "send", _believing(is_gone=False)),
    "a webhook is deleted by halves": in_place_of(ConfigStore, "delete", lambda old: _by_halves),
    "webhooks are forgotten at the start": in_place_of(Outbox, "start", nothing),
    "a deleted webhook goes on": in_place_of(Outbox, "stop", lambda old: _stays),
    "a webhook is not woken while it sends": in_place_of(Schedule, "wake", _deaf_while_busy),
    "a failed delivery is never tried again": in_place_of(Schedule, "wait", nothing),
    "webhooks at rest are not woken by another run": lambda patch: patch.setattr(
        outbox_module, "_may_go_on", lambda events: False
    ),
    "a webhook of a deleted tree stays in memory": in_place_of(Outbox, "tree_deleted", nothing),
    "one delivery more at a time than may be": in_place_of(Outbox, "__init__", _generous),
}
