"""What is said of an exception that foreign code raised: to callers as much as the operator wants, to operators all."""

from collections.abc import Iterator
from types import TracebackType
from typing import Literal

from msgspec import Struct

from core.executors.process_worker import is_ours, kinds_of, text_of
from core.model.errors import CoreError

ErrorTexts = Literal["full", "type", "none"]

UNTOLD = "the executor failed"


class ForeignError(CoreError):
    """What foreign code raised elsewhere, or in a way that must not be passed on. Its text is not ours.

    `kind` is the name of the exception's type.
    """

    def __init__(self, text: str, kind: str) -> None:
        self.kind = kind
        super().__init__(text)


class Told(Struct, frozen=True):
    """What is said of a failure; `detail` is for operators, where callers are told less."""

    error: str
    detail: str | None = None


def told(error: BaseException, texts: ErrorTexts) -> Told:
    """What is said of the exception: `KeyError: 'pgae' (ex.py:7)`, its type, or nothing but that there was one.

    Errors of our own are always told: their texts are made for callers.
    """
    if isinstance(error, CoreError) and not isinstance(error, ForeignError):
        return Told(str(error) or type(error).__name__)
    full = str(error) if isinstance(error, ForeignError) else text_of(error)
    if texts == "full":
        return Told(full)
    if texts == "none":
        return Told(UNTOLD, full)
    return Told(error.kind if isinstance(error, ForeignError) else kinds_of(error), full)


def theirs(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of ours that led to foreign code; as it is where there is none."""
    return next((each for each in _steps(traceback) if not is_ours(each.tb_frame.f_code.co_filename)), traceback)


def _steps(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next
