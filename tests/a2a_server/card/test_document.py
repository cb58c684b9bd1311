"""Reading without ambiguity, and the canonical form of RFC 8785 against the RFC's own vectors."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.card.document import MAX_BYTES, canonical, read_document

# RFC 8785, appendix B: the bits of a double and how it is written.
NUMBERS = """
0000000000000000 0
8000000000000000 0
0000000000000001 5e-324
8000000000000001 -5e-324
7fefffffffffffff 1.7976931348623157e+308
ffefffffffffffff -1.7976931348623157e+308
4340000000000000 9007199254740992
c340000000000000 -9007199254740992
4430000000000000 295147905179352830000
44b52d02c7e14af5 9.999999999999997e+22
44b52d02c7e14af6 1e+23
44b52d02c7e14af7 1.0000000000000001e+23
444b1ae4d6e2ef4e 999999999999999700000
444b1ae4d6e2ef4f 999999999999999900000
444b1ae4d6e2ef50 1e+21
3eb0c6f7a0b5ed8c 9.999999999999997e-7
3eb0c6f7a0b5ed8d 0.000001
41b3de4355555553 333333333.3333332
41b3de4355555554 333333333.33333325
41b3de4355555555 333333333.3333333
41b3de4355555556 333333333.3333334
41b3de4355555557 333333333.33333343
becbf647612f3696 -0.0000033333333333333333
43143ff3c1cb0959 1424953923781206.2
"""


@pytest.mark.parametrize(("bits", "text"), [line.split() for line in NUMBERS.strip().splitlines()])
def test_a_number_is_written_as_the_rfc_says_and_read_back(bits: str, text: str) -> None:
    number = struct.unpack(">d", bytes.fromhex(bits))[0]
    assert canonical({"n": number}) == f'{{"n":{text}}}'.encode()
    assert canonical(read_document(f'{{"n": {text}}}'.encode())) == f'{{"n":{text}}}'.encode()


def test_texts_literals_and_order_are_those_of_the_rfc() -> None:
    """RFC 8785 §3.2.2 and §3.2.3: names go by their UTF-16 code units, so an astral one comes before U+FB33."""
    given = rb"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    wanted = r"""{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"""
    wanted += r""""string":"€$\u000f\nA'B\"\\\\\"/"}"""
    assert canonical(read_document(given)) == wanted.encode()
    names = rb'{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}'
    assert list(json.loads(canonical(read_document(names))).values()) == [2, 4, 6, 7, 1, 5, 3]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'{"a": {"b": [{"c": 1, "c": 2}]}}', "'c' twice"),
        (b'{"a": 1, "\\u0061": 2}', "'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 9007199254740993}', "integer"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer"),
        (b'{"a": 1e400}', "not every JSON parser"),
        (b'{"a": "\\ud800"}', "not every JSON parser"),
        (b'{"\\udc00": 1}', "not every JSON parser"),
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":' * 250 + b"1" + b"}" * 250, "nested too deeply"),
        (b'{"a": "' + b"x" * MAX_BYTES + b'"}', "bytes"),
    ],
)
def test_what_readers_could_read_differently_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_document(data)


@pytest.mark.parametrize("value", [2**53, float("inf"), float("nan"), "\ud800", {"\ud800": 1}, {1: 1}, object()])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical({"a": value})


def test_what_is_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="deeply"):
        canonical({"a": deep})


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBER = st.integers(1 - 2**53, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, JSON, max_size=6))
def test_the_canonical_form_is_the_same_after_any_way_through_json(document: dict[str, Any]) -> None:
    form = canonical(document)
    for text in (form, json.dumps(document, indent=3).encode(), json.dumps(document, ensure_ascii=False).encode()):
        assert canonical(read_document(text)) == form
