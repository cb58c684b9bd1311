"""`a2a-server card`: what agents read about a server, or about the one that would be started here."""

import os
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from a2a_server.app import build
from a2a_server.cli.client import Server
from a2a_server.cli.output import Format, Output, clean, print_json
from a2a_server.config import load
from a2a_server.extensions import load_executors

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def card(
    executors: Annotated[
        list[str] | None, typer.Argument(metavar="[FILES_OR_MODULES]…", help="As for serve; without --url.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Ask the server at this address.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="The configuration, TOML.")] = None,
    output: Output = Format.TEXT,
) -> None:
    """The agent card of the server at --url, else of the one that `serve` would start here."""
    if url is not None:
        with Server(url) as server:
            found = server.card()
    else:
        settings = load({"executors": executors or None, "config": config}, os.environ, Path.cwd())
        load_executors(settings.executors)
        found = msgspec.json.decode(build(settings).card.body)
    if output is Format.JSON:
        print_json(found)
        return
    print(f"{clean(found['name'])} {clean(found.get('version', ''))}: {clean(found['description'])}")
    for interface in found["supportedInterfaces"]:
        print(f"  {interface['protocolBinding']} {interface['protocolVersion']} at {clean(interface['url'])}")
    for skill in found["skills"]:
        print(f"  skill {clean(skill['id'])}: {clean(skill['description'])}")
