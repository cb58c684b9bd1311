"""`a2a-server migrate`: brings the database to the schema that this version needs. `serve` does it too."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from a2a_server.cli.output import Format, Output, print_json
from a2a_server.config import load
from core.databases import name_of, storage_of
from core.storage.base import Storage
from core.storage.tables import REVISIONS

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def migrate(
    database: Annotated[str | None, typer.Option(metavar="URL", help="For example sqlite:///tasks.db.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")] = None,
    output: Output = Format.TEXT,
) -> None:
    """Upgrade the database to this version's schema, or create it. No server may be using it."""
    url = load({"database": database, "config": config}, os.environ, Path.cwd()).database
    asyncio.run(_open_once(storage_of(url)))
    if output is Format.JSON:
        print_json({"database": name_of(url), "schema": REVISIONS[-1]})
    else:
        print(f"{name_of(url)} has schema {REVISIONS[-1]}")


async def _open_once(storage: Storage) -> None:
    await storage.open()
    await storage.close()
