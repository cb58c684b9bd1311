"""The package itself: what can be imported from it, and the name that it is installed under."""

import subprocess
import sys

import pytest

import a2a_server
import core
from a2a_server.process import distribution


@pytest.mark.parametrize("name", core.__all__)
def test_what_the_core_offers_can_be_had_from_here(name: str) -> None:
    assert getattr(a2a_server, name) is getattr(core, name)


@pytest.mark.parametrize("name", ["nothing", "_private", "errors"])
def test_nothing_else_can(name: str) -> None:
    with pytest.raises((AttributeError, ImportError)):
        getattr(a2a_server, name)


def test_the_core_is_imported_when_it_is_asked_for() -> None:
    script = "import sys, a2a_server, a2a_server.process.distribution; print('core' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def test_the_version_is_that_of_the_installed_distribution() -> None:
    assert distribution.NAME == "durable-a2a"
    assert distribution.version().count(".") == 2
