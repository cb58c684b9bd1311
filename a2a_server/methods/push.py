"""The push methods: A2A's four for webhooks (§3.1.7-3.1.10), and our two for what could not be delivered."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method
from a2a_server.edge.overload import CallKind
from a2a_server.methods.access import caller_of
from a2a_server.methods.reading import TaskReader
from a2a_server.methods.task_pages import from_token, to_token
from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams
from a2a_server.push.configs import PushConfig
from a2a_server.push.undelivered import DeliveryPage, ResendObject
from a2a_server.push.webhooks import Webhooks, from_now_on
from core.model.errors import Problem, TaskNotFound
from core.session import Session

MOST_RESENT = 100  # dead letters of one call
Limit = Annotated[int, Meta(ge=1, le=1_000)]


class DeliveriesParams(Struct, frozen=True, kw_only=True):
    """What did not arrive: events that were given up (dead), or webhooks whose next event is tried again (waiting)."""

    status: Literal["dead", "waiting"] = "dead"
    limit: Limit = 100
    after: str = ""  # `next` of the page before


class ResendParams(Struct, frozen=True, kw_only=True):
    """Which dead letters."""

    delivery_ids: Annotated[list[str], Meta(min_length=1, max_length=MOST_RESENT)]


class PushMethods:
    """The methods, over the webhooks of one server."""

    def __init__(self, session: Session, webhooks: Webhooks) -> None:
        self._reader = TaskReader(session)
        self._webhooks = webhooks

    def table(self) -> list[Method]:
        """Our own methods, for the bindings; A2A's four stand in the table of A2A's methods."""
        return [
            Method(
                name="push.deliveries",
                handler=self.deliveries,
                kind=CallKind.OTHER,
                params_type=DeliveriesParams,
                result_type=DeliveryPage,
                summary="List dead letters, or deliveries that wait for a retry.",
            ),
            Method(
                name="push.resend",
                handler=self.resend,
                kind=CallKind.OTHER,
                params_type=ResendParams,
                result_type=list[ResendObject],
                summary="Send dead letters again.",
            ),
        ]

    async def create(
        self, context: RequestContext, params: wire.TaskPushNotificationConfig
    ) -> wire.TaskPushNotificationConfig:
        """Raises TaskNotFound, and InvalidParams naming every field that is wrong."""
        if not params.task_id:
            raise InvalidParams.of([Problem("taskId", "is required")])
        head = await self._reader.find(context.owner, params.task_id)
        status = await self._reader.status(head, params.task_id)
        return _shown(await self._webhooks.add(caller_of(context), params, from_now_on(head, params.task_id, status)))

    async def get(
        self, context: RequestContext, params: wire.PushNotificationConfigRequest
    ) -> wire.TaskPushNotificationConfig:
        """Without its secrets. Raises TaskNotFound for a webhook that does not exist, too."""
        await self._reader.find(context.owner, params.task_id)
        config = await self._webhooks.find(context.owner, params.task_id, params.id)
        if config is None:
            raise TaskNotFound(params.task_id)
        return _shown(config)

    async def list_configs(
        self, context: RequestContext, params: wire.ListTaskPushNotificationConfigsRequest
    ) -> wire.ListTaskPushNotificationConfigsResponse:
        """Oldest first, page by page."""
        await self._reader.find(context.owner, params.task_id)
        configs = await self._webhooks.of_task(context.owner, params.task_id)
        ids = [config.id for config in configs]
        start = 0
        if params.page_token:
            if params.page_token not in ids:
                raise InvalidParams.of([Problem("pageToken", "is not a page token of this list")])
            start = ids.index(params.page_token) + 1
        page = configs[start : start + params.page_size] if params.page_size else configs[start:]
        has_more = start + len(page) < len(configs)
        return wire.ListTaskPushNotificationConfigsResponse(
            configs=[_shown(config) for config in page], next_page_token=page[-1].id if has_more else ""
        )

    async def delete(self, context: RequestContext, params: wire.PushNotificationConfigRequest) -> None:
        """Deleting again what is deleted changes nothing (§3.1.10)."""
        await self._reader.find(context.owner, params.task_id)
        config = await self._webhooks.find(context.owner, params.task_id, params.id)
        if config is not None:
            await self._webhooks.remove(config)

    async def deliveries(self, context: RequestContext, params: DeliveriesParams) -> DeliveryPage:
        """One page, and with `next` where the one after it begins."""
        after = _from_token(params.after) if params.after else None
        undelivered = self._webhooks.undelivered
        read = undelivered.dead if params.status == "dead" else undelivered.waiting
        deliveries, last = await read(context.owner, after, params.limit)
        return {"deliveries": deliveries, "next": to_token(last) if last else None}

    async def resend(self, context: RequestContext, params: ResendParams) -> list[ResendObject]:
        return await self._webhooks.undelivered.resend(context.owner, params.delivery_ids)


def _shown(config: PushConfig) -> wire.TaskPushNotificationConfig:
    """The configuration as anybody may see it again: its secrets are for the receiver alone."""
    return wire.TaskPushNotificationConfig(
        id=config.id,
        task_id=config.task_id,
        url=config.url,
        authentication=wire.AuthenticationInfo(scheme=config.scheme) if config.scheme else None,
        events=list(config.events),
    )


def _from_token(token: str) -> tuple[float, str]:
    try:
        return from_token(token)
    except ValueError:
        raise InvalidParams.of([Problem("after", "is not the `next` value of a page")]) from None
