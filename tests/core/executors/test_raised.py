"""What is told of an exception, to callers and to operators."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from core.executors.process_worker import MOST_NAMED, MOST_TOLD, leaves, where
from core.executors.raised import UNTOLD, ErrorTexts, ForeignError, Told, theirs, told
from core.model.errors import CallerError
from tests.core.executors import functions


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - for its traceback
        return caught


def raised_by(call: Callable[[], Any]) -> BaseException:
    try:
        call()
    except BaseException as caught:  # noqa: BLE001 - for its traceback
        return caught
    raise AssertionError("nothing was raised")


def group(*errors: Exception) -> Exception:
    return ExceptionGroup("group", errors)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


ONE, TWO = ValueError("one"), KeyError("two")
FULL: list[tuple[BaseException, str]] = [
    (KeyError("pgae"), "KeyError: 'pgae'"),
    (ValueError("no such page"), "ValueError: no such page"),
    (ValueError(), "ValueError"),
    (ValueError("  \n"), "ValueError"),
    (AssertionError(), "AssertionError"),
    (
        OSError(2, "No such file or directory", "a.txt"),
        "FileNotFoundError: [Errno 2] No such file or directory: 'a.txt'",
    ),
    (Mute(), "Mute: its __str__ raises an error itself"),
    (group(ONE, Mute()), "2 errors: ValueError: one; Mute: its __str__ raises an error itself"),
    (group(ONE), "ValueError: one"),
    (group(group(ONE)), "ValueError: one"),
    (group(ONE, TWO), "2 errors: ValueError: one; KeyError: 'two'"),
    (group(ONE, group(TWO, group(ONE))), "3 errors: ValueError: one; KeyError: 'two'; ValueError: one"),
    (BaseExceptionGroup("group", [SystemExit(3)]), "SystemExit: 3"),
]


@pytest.mark.parametrize(("error", "text"), FULL, ids=range(len(FULL)))
def test_an_exception_is_told_with_its_type(error: BaseException, text: str) -> None:
    """Found from outside: a KeyError read `'pgae'`, and a group hid its texts."""
    assert told(error, "full") == Told(text)


def test_it_is_told_where_the_users_code_stood() -> None:
    """Found from outside: an exception had neither file nor line."""
    here = sys._getframe().f_lineno
    assert told(raised_by(lambda: {}["pgae"]), "full").error == f"KeyError: 'pgae' (test_raised.py:{here + 1})"
    line = functions.fail.__code__.co_firstlineno + 1
    assert told(raised_by(lambda: functions.fail({})), "full").error == f"ValueError: it broke (functions.py:{line})"


def test_below_a_library_the_users_line_is_told() -> None:
    import_line = sys._getframe().f_lineno + 1
    error = raised_by(lambda: sys.modules["json"].loads("{"))
    assert where(error) == f"test_raised.py:{import_line}"


@pytest.mark.parametrize(
    ("texts", "error", "expected"),
    [
        ("full", KeyError("pgae"), Told("KeyError: 'pgae'")),
        ("type", KeyError("pgae"), Told("KeyError", "KeyError: 'pgae'")),
        ("none", KeyError("pgae"), Told(UNTOLD, "KeyError: 'pgae'")),
        ("type", group(ONE, TWO, ONE), Told("ValueError, KeyError", told(group(ONE, TWO, ONE), "full").error)),
        ("none", group(ONE, TWO), Told(UNTOLD, told(group(ONE, TWO), "full").error)),
        ("full", ForeignError("KeyError: 'k' (a.py:1)", "KeyError"), Told("KeyError: 'k' (a.py:1)")),
        ("type", ForeignError("KeyError: 'k' (a.py:1)", "KeyError"), Told("KeyError", "KeyError: 'k' (a.py:1)")),
        ("none", ForeignError("KeyError: 'k' (a.py:1)", "KeyError"), Told(UNTOLD, "KeyError: 'k' (a.py:1)")),
        *(
            (texts, CallerError("inputs.n: is missing"), Told("inputs.n: is missing"))
            for texts in ("full", "type", "none")
        ),
    ],
)
def test_callers_are_told_as_much_as_the_operator_says(texts: ErrorTexts, error: BaseException, expected: Told) -> None:
    """Errors of our own are always told: their texts are made for callers."""
    assert told(error, texts) == expected


def test_texts_are_bounded() -> None:
    assert len(told(ValueError("x" * 10_000), "full").error) <= MOST_TOLD + 50
    many = told(group(*(ValueError(f"{n} " + "x" * 10_000) for n in range(1_000))), "full").error
    assert many.startswith("1000 errors: ValueError: 0 ") and many.endswith(f"; and {1_000 - MOST_NAMED} more")
    assert len(many) < MOST_TOLD + 50 * MOST_NAMED


def test_groups_in_groups_do_not_use_up_the_stack() -> None:
    error: Exception = ONE
    for _ in range(20_000):
        error = group(error)
    assert leaves(error) == [ONE]


def test_a_traceback_begins_with_foreign_code() -> None:
    error = raised(ONE)
    assert theirs(error.__traceback__) is error.__traceback__
    assert theirs(None) is None
