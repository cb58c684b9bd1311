"""Every setting is told where a user looks: docs/settings.md, and the help of `serve`."""

import msgspec
import pytest

from a2a_server.config import Config
from scripts.settings_page import comments_of
from tests.a2a_server.cli.test_cli import Cli, cli
from tests.acceptance.process import ROOT

__all__ = ["cli"]  # the fixture

SETTINGS = [field.name for field in msgspec.structs.fields(Config)]
PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_has_a_row_that_says_what_it_means(name: str) -> None:
    (row,) = [line for line in PAGE if line.startswith(f"| `{name}` |")]

    assert len(row.split(" | ")[-1].strip(" |")) > 3, f"{name} has no comment beside it"


def test_help_names_every_setting(cli: Cli) -> None:
    told = " ".join(cli("serve", "--help").out.replace("\n", " ").split())

    options = {"allowed_hosts": "--allowed-host", "cors_origins": "--cors-origin", "trusted_proxies": "--trusted-proxy"}
    options |= {"commands": "--command", "executors": "FILES_OR_MODULES"}
    missing = [
        name for name in SETTINGS if name not in told and options.get(name, "--" + name.replace("_", "-")) not in told
    ]
    assert missing == []


def test_a_comment_above_a_paragraph_is_that_of_its_settings() -> None:
    assert comments_of(Config)["max_burst"].startswith("requests of one caller at once")
    assert comments_of(Config)["max_rate"].startswith("Requests per second of one caller")
