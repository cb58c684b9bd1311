"""JSON objects whose bytes matter: read without ambiguity, written in the canonical form (RFC 8785)."""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

import rfc8785

from core.model.jsonvalue import is_too_deep

MAX_BYTES = 1024 * 1024  # of a card or a key set
MAX_DIGITS = 20  # of an integer that is looked at as one
MAX_EXACT = 2**53 - 1


def read_document(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`, which has a canonical form. Raises ValueError; its text can follow a file's name.

    An object that has the same key twice is refused: readers differ in which one they take, so that a signature could
    hold for one reader's document and not for another's (RFC 8785 §3.1, RFC 7515 §4).
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer)
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    canonical(value)
    return value


def canonical(document: dict[str, Any]) -> bytes:
    """Its canonical bytes. Raises ValueError for what has none: numbers beyond a double's, lone surrogates."""
    if is_too_deep(document):
        raise ValueError("is nested too deeply")
    try:
        return rfc8785.dumps(document)
    except ValueError:
        raise ValueError("has a number or string that not every JSON parser can represent") from None


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for key, value in pairs:
        if key in read:
            raise ValueError(f"has the key {key[:80]!r} twice in one object")
        read[key] = value
    return read


def _integer(text: str) -> int | float:
    """The integer; beyond what a double holds exactly, only in the one way that a double is written."""
    if len(text) <= MAX_DIGITS and abs(number := int(text)) <= MAX_EXACT:
        return number
    double = float(text)
    if math.isinf(double) or rfc8785.dumps(double).decode() != text:
        raise ValueError("has an integer that parsers would round differently")
    return double


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"has {text}, which is not a JSON number")
