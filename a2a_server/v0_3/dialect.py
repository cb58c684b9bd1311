"""A2A v0.3 as a dialect of the JSON-RPC endpoint."""

from typing import Any

from a2a_server.protocol.codec import decode, encode
from a2a_server.protocol.dialect import A2ADialect
from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.types import StreamResponse
from a2a_server.v0_3.errors import error_object
from a2a_server.v0_3.translate import bare_answer, event_of, shape_of
from core.model.errors import Problem
from core.model.problems import MAX_PROBLEMS

EXTENSIONS_HEADER = "X-A2A-Extensions"  # v1.0 dropped the X


KINDS = ("text", "file", "data")  # of parts, each with its content under this very name


def decode_with_kinds(params: Any, type_: Any) -> Any:
    """As `decode`; a message's part that does not say its kind is of that of its one content, as a2a-sdk reads it."""
    said = params.get("message") if isinstance(params, dict) else None
    if isinstance(said, dict) and isinstance(said.get("parts"), list):
        wrong: list[Problem] = []
        parts = [_with_kind(part, index, wrong) for index, part in enumerate(said["parts"])]
        if wrong:
            raise InvalidParams.of(wrong[:MAX_PROBLEMS])
        params = {**params, "message": {**said, "parts": parts}}
    return decode(params, type_)


def _with_kind(part: Any, index: int, wrong: list[Problem]) -> Any:
    if not isinstance(part, dict) or part.get("kind") is not None:
        return part
    given = [kind for kind in KINDS if part.get(kind) is not None]
    if len(given) == 1 and part.get("type", given[0]) != given[0]:  # as drafts before v0.2 called it
        wrong.append(Problem(f"message.parts[{index}].type", f"contradicts {given[0]}; send kind"))
        return part
    if len(given) == 1:
        return {**part, "kind": given[0]}
    text = f"without kind, exactly one of {', '.join(KINDS)} is needed, not {len(given)}"
    wrong.append(Problem(f"message.parts[{index}]", text))
    return part


def _event(event: StreamResponse, is_last: bool) -> bytes:
    return encode(event_of(event, is_last=is_last))


A2A_0_3 = A2ADialect(
    version="0.3",
    mark="/",
    decode=decode_with_kinds,
    error_object=error_object,
    event=_event,
    shape=shape_of,
    bare=bare_answer,
)
