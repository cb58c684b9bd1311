"""`a2a-server config`: the settings in force."""

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from a2a_server.cli.output import Format, Output, print_json
from a2a_server.config import effective, load

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("config")
def show(
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")] = None,
    output: Output = Format.TEXT,
) -> None:
    """Show the settings in force: A2A_SERVER_* variables, the configuration file and the defaults.

    Secrets are masked. The output is a valid a2a-server.toml.
    """
    settings = effective(load({"config": config}, os.environ, Path.cwd()))
    if output is Format.JSON:
        print_json(settings)
        return
    width = max(map(len, settings))
    for name, value in settings.items():
        if value is None:
            print(f"# {name} is not set")
        else:
            print(f"{name:<{width}} = {_toml(value)}")


def _toml(value: Any) -> str:
    """A setting's value. A JSON string, number, boolean or flat array is TOML as well; a table is not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    return msgspec.json.encode(value).decode()
