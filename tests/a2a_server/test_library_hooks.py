"""The server does not start with a library that lacks what the server overrides."""

from pathlib import Path
from typing import Any

import pytest
from sse_starlette.sse import EventSourceResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from a2a_server.app import build
from a2a_server.config import Config
from a2a_server.edge.connection import Connection, RequestReader
from a2a_server.server import OVERRIDDEN, Server
from tests.a2a_server.test_app import serve_alone


def config(folder: Path) -> Config:
    return Config(database=f"sqlite:///{folder}/t.db", port=0)


def test_the_libraries_that_are_installed_have_all_of_it(tmp_path: Path) -> None:
    Server(build(config(tmp_path)))


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_each_hook_of_uvicorn_is_looked_for(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With uvicorn 0.44, which lacks one, overload control was off and nothing said so."""
    for kind in HttpToolsProtocol.__mro__:
        if name in vars(kind) and kind is not object:
            monkeypatch.delattr(kind, name)
    assert serve_alone(config(tmp_path)) == 78
    told = capsys.readouterr().err
    assert f"has no {name}" in told and told.count("\n") == 1


def test_the_hook_of_sse_starlette_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hook: Any = "_listen_for_exit_signal"
    monkeypatch.delattr(EventSourceResponse, hook)
    assert serve_alone(config(tmp_path)) == 78


def test_what_our_connection_overrides_or_calls_is_looked_for() -> None:
    """It stands alone below uvicorn's class: no storey of ours between overrides something else."""
    assert Connection.__bases__ == (HttpToolsProtocol,)
    overridden, called = (
        {name for name in vars(kind) if hasattr(HttpToolsProtocol, name) and not name.startswith("__")}
        for kind in (Connection, RequestReader)
    )
    assert {"_start_asgi_task", "data_received"} < overridden and {"on_url", "on_body"} < called
    assert overridden | called <= set(OVERRIDDEN)
