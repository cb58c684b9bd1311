"""`GET /tasks/{task_id}/events`: a task's events for a browser's EventSource, which can only ask for a URL."""

from starlette.requests import Request
from starlette.responses import Response

from a2a_server.bindings.endpoint import HttpEndpoint, as_response
from a2a_server.bindings.jsonrpc import error_reply, to_events
from a2a_server.methods.access import seen_head
from a2a_server.methods.reading import check_resume
from a2a_server.protocol.codec import encode
from a2a_server.protocol.errors import A2AError, InvalidParams, OperatorsOnly, translate
from a2a_server.views.frames import View
from a2a_server.views.streams import Streams
from core.model.errors import CallerError, StorageError
from core.session import Session, has_ended


class EventSource:
    """The route's handler."""

    def __init__(self, session: Session, streams: Streams, http: HttpEndpoint) -> None:
        self._session = session
        self._streams = streams
        self._http = http

    async def events(self, request: Request) -> Response:
        """`?after=` or Last-Event-ID says from where on."""
        try:
            context = await self._http.context(request)
            if not context.principal.is_operator:
                raise OperatorsOnly
            if context.event_id_problem is not None:
                raise InvalidParams.of([context.event_id_problem])
            task_id = request.path_params["task_id"]
            head = await seen_head(self._session, context.principal.scope, task_id)
            after = check_resume(head, context.last_event_id)
            context.permit.stream()
        except (A2AError, CallerError, StorageError) as error:
            told = translate(error)
            return as_response(error_reply(told, status=told.http_status))
        if has_ended(head) and context.last_event_id is not None and after >= head.version:
            return Response(status_code=204)  # an EventSource reconnects until it is told so (HTML §9.2.3)
        frames = self._streams.tasks(head, View(head.id, task_id, ""), after)
        events = to_events(frames, lambda frame: encode(frame.result), lambda error: error_reply(error).body)
        context.permit.park()
        return self._http.stream(events, context)
