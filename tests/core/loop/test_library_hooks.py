"""A library without a hook that the program relies on is named when the program starts, in one line."""

from pathlib import Path

import aiosqlite
import pytest

from core.loop.library_hooks import require
from core.model.errors import ConfigurationError
from core.storage.sqlite.sql import SqlStorage


class Owner:
    method = None

    def __init__(self) -> None:
        self.attribute = 1

    @property
    def raising(self) -> int:
        raise ValueError("not open yet")


@pytest.mark.parametrize("name", ["method", "attribute", "raising"])
def test_what_is_there_is_found_without_being_used(name: str) -> None:
    require("pytest", Owner(), [name], purpose="this test")


def test_what_is_missing_is_named_with_the_library_and_its_version() -> None:
    with pytest.raises(ConfigurationError) as caught:
        require("pytest", Owner, ["method", "gone", "lost"], purpose="this test")
    text = str(caught.value)
    assert text.startswith(f"pytest {pytest.__version__} cannot be used: its Owner has no gone and no lost")
    assert "this test needs" in text and "\n" not in text


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["_execute", "_conn"])
async def test_storage_does_not_open_with_an_aiosqlite_that_lacks_a_hook(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found from outside: with a uvicorn that lacked a hook, overload control was off without a word."""
    monkeypatch.delattr(aiosqlite.Connection, name)
    storage = SqlStorage(f"sqlite:///{tmp_path}/t.db")
    with pytest.raises(ConfigurationError, match=f"aiosqlite .* has no {name}"):
        await storage.open()
    await storage.close()
