"""Dialects: how a family of methods reads its params and writes its errors and events. A method belongs to one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from a2a_server.protocol.bare import bare_answer, bare_object
from a2a_server.protocol.codec import decode, decode_strict, encode
from a2a_server.protocol.errors import A2AError, to_object
from a2a_server.protocol.types import StreamResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """`version` is that of A2A which it speaks, None for methods of our own: these are never asked for a version, and
    take notifications.
    """

    version: str | None = None
    mark: str = ""  # what is in the name of each of its methods, and of no other
    decode: Callable[[Any, Any], Any]  # params and their type to the typed value; raises InvalidParams
    error_object: Callable[[A2AError], dict[str, Any]] = to_object  # the `error` member of a response
    bare: Callable[[Any], Any] = bare_object  # a method's answer in a few bytes, where there is no room for more


@dataclass(frozen=True, slots=True, kw_only=True)
class A2ADialect(Dialect):
    """A version of A2A: one model behind all of them, told in its own shapes."""

    version: str
    form: str = ""  # in which the version is written, where it has several
    event: Callable[[StreamResponse, bool], bytes]  # JSON of an event, and whether its stream closes after it
    shape: Callable[[Any], Any]  # a task, an answer to a message, or an event after which its stream goes on


def _event(event: StreamResponse, is_last: bool) -> bytes:
    """In v1.0 the end of the stream is all that says so."""
    return encode(event)


def _itself(value: Any) -> Any:
    return value


OWN = Dialect(decode=decode_strict)
A2A_1_0 = A2ADialect(version="1.0", decode=decode, event=_event, shape=_itself, bare=bare_answer)
