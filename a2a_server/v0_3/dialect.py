"""A2A v0.3 as a dialect of the JSON-RPC door."""

from a2a_server.dialect import A2ADialect
from a2a_server.protocol.codec import decode, encode
from a2a_server.protocol.types import StreamResponse
from a2a_server.v0_3.errors import error_object
from a2a_server.v0_3.translate import bare_answer, event_of, shape_of

EXTENSIONS_HEADER = "X-A2A-Extensions"  # v1.0 dropped the X


def _event(event: StreamResponse, is_last: bool) -> bytes:
    return encode(event_of(event, is_last=is_last))


A2A_0_3 = A2ADialect(
    version="0.3", mark="/", decode=decode, error_object=error_object, event=_event, shape=shape_of, bare=bare_answer
)
