"""`a2a-server db …`: look for damage and make copies while the server runs; put a copy back while it does not."""

import os
from pathlib import Path
from typing import Annotated

import typer

from a2a_server.cli.output import Failure, Format, Output, clean, print_json
from a2a_server.config import load
from core.databases import is_postgres, name_of
from core.model.errors import DatabaseInUse
from core.storage.sqlite import backup as copies
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.sql import database_path

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Check, back up and restore the database.")

Database = Annotated[str | None, typer.Option(metavar="URL", help="The database, for example sqlite:///tasks.db.")]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")]


@app.command()
def check(database: Database = None, config: Config = None, output: Output = Format.TEXT) -> None:
    """Check every page and row of the database. A server may be using it. Exits 1 if it is damaged."""
    path = _existing(database, config)
    verdict = examine(path)
    problems = list(verdict.problems)
    if not problems and verdict.schema is None:
        problems.append("this is not a database of a2a-server")
    if output is Format.JSON:
        print_json({"database": str(path), "ok": not problems, "schema": verdict.schema, "problems": problems})
    else:
        for problem in problems:
            print(clean(problem))
        print(f"{path} is {'damaged' if problems else 'whole'}")
    raise typer.Exit(1 if problems else 0)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist yet.")],
    database: Database = None,
    config: Config = None,
    output: Output = Format.TEXT,
) -> None:
    """Write a consistent copy of the database and check it. A server may be using the database."""
    path = _existing(database, config)
    size = copies.back_up(path, file.absolute())
    if output is Format.JSON:
        print_json({"database": str(path), "backup": str(file.absolute()), "bytes": size})
    else:
        print(f"{file} is a copy of {path}, {size} bytes")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by `db backup`.")],
    database: Database = None,
    config: Config = None,
    output: Output = Format.TEXT,
) -> None:
    """Check a backup and replace the database with it. No server may be using the database."""
    path = _path(database, config)
    try:
        size = copies.restore(file.absolute(), path)
    except DatabaseInUse as error:
        raise Failure(f"{error}; stop it first") from None
    if output is Format.JSON:
        print_json({"database": str(path), "backup": str(file.absolute()), "bytes": size})
    else:
        print(f"{path} was restored from {file}, {size} bytes")


def _path(database: str | None, config: str | None) -> Path:
    url = load({"database": database, "config": config}, os.environ, Path.cwd()).database
    if is_postgres(url):
        raise Failure(f"this is for SQLite files; for {name_of(url)} use pg_amcheck, pg_dump and pg_restore")
    return database_path(url)


def _existing(database: str | None, config: str | None) -> Path:
    path = _path(database, config)
    if not path.is_file():
        raise Failure(f"there is no database {path}")
    return path
