"""`a2a-server keys …`: API keys, in a database, or with `--url` on a running server, which has a SQLite file alone."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from a2a_server.auth.apikeys import ApiKeys
from a2a_server.cli.client import Ca, Client, Token
from a2a_server.cli.output import Failure, Format, Output, clean, print_json, print_table
from a2a_server.config import load
from a2a_server.methods.keys import CreateKeyParams, KeyObject, grant_of, key_object
from core.databases import DocumentStore, documents_of
from core.model.errors import DatabaseInUse
from core.model.problems import Misfit, convert
from core.outside.clock import SystemClock

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Create, list, rotate and revoke API keys.")

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

KeyId = Annotated[str, typer.Argument(metavar="KEY_ID")]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The database: postgresql://…, or a file such as sqlite:///tasks.db, which no server may be using.",
    ),
]
Config = Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")]
ServerUrl = Annotated[
    str | None, typer.Option("--url", help="Address of a running server; needs an operator's credential in A2A_TOKEN.")
]


@app.command()
def create(
    principal: Annotated[str, typer.Argument(help="Name of the key's holder.")],
    tenant: Annotated[
        str | None, typer.Option(help="Tenant of the key's holder (default with --url: your own).")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Allow tasks.*, keys.* and every executor.")] = False,
    skill: Annotated[
        list[str] | None, typer.Option(help="Skill the key may use (default: all skills). Repeatable.")
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Lifetime of the key: 12h, 90d.")] = None,
    database: Database = None,
    config: Config = None,
    url: ServerUrl = None,
    token: Token = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Create a key and print it. The key is shown only once."""
    given: dict[str, Any] = {"principal": principal, "tenant": tenant, "is_operator": operator, "skills": skill or None}
    given["expires_in"] = None if expires is None else _seconds(expires, "--expires")

    async def work(keys: ApiKeys) -> dict[str, Any]:
        try:
            params = convert(given, CreateKeyParams)
        except Misfit as misfit:
            wrong = "; ".join(f"{each.field}: {each.message}" for each in misfit.problems)
            raise Failure(f"the key cannot be created: {wrong}", 2) from None
        key, text = await keys.create(grant_of(params, SystemClock(), own_tenant=""))
        return key_object(key) | {"key": text}

    if url is not None:
        _print_secret(_call(url, token, ca, "keys.create", given), output)
    else:
        _print_secret(_on_file(work, database, config), output)


@app.command("list")
def list_keys(
    database: Database = None,
    config: Config = None,
    url: ServerUrl = None,
    token: Token = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """List the keys, without their secrets."""

    async def work(keys: ApiKeys) -> list[KeyObject]:
        return [key_object(key) for key in await keys.all()]

    listed = _on_file(work, database, config) if url is None else _call(url, token, ca, "keys.list", {})
    if output is Format.JSON:
        print_json(listed)
        return
    header = ("ID", "PRINCIPAL", "TENANT", "MAY USE", "CREATED", "STATE", "ENDS WITH")
    print_table(header, [_row(key) for key in listed])


@app.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the old secret stays valid: 10m, 1d.")] = "0s",
    database: Database = None,
    config: Config = None,
    url: ServerUrl = None,
    token: Token = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Give a key a new secret and print it. The secret is shown only once."""
    seconds = _seconds(grace, "--grace")

    async def work(keys: ApiKeys) -> dict[str, Any]:
        key, text = await keys.rotate(key_id, seconds)
        return key_object(key) | {"key": text}

    if url is not None:
        _print_secret(_call(url, token, ca, "keys.rotate", {"id": key_id, "grace": seconds}), output)
    else:
        _print_secret(_on_file(work, database, config), output)


@app.command()
def revoke(
    key_id: KeyId,
    database: Database = None,
    config: Config = None,
    url: ServerUrl = None,
    token: Token = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Revoke a key for good. On a running server its open streams end at once."""

    async def work(keys: ApiKeys) -> KeyObject:
        return key_object(await keys.revoke(key_id))

    key = _on_file(work, database, config) if url is None else _call(url, token, ca, "keys.revoke", {"id": key_id})
    if output is Format.JSON:
        print_json(key)
    else:
        print(f"key {key['id']} of {clean(key['principal'])} is revoked")


def _call(url: str, token: str | None, ca: str | None, method: str, params: Mapping[str, Any]) -> Any:
    with Client(url, token, ca=ca) as server:
        return server.call(method, params)


def _on_file(work: Callable[[ApiKeys], Awaitable[Any]], database: str | None, config: str | None) -> Any:
    storage = documents_of(load({"database": database, "config": config}, os.environ, Path.cwd()).database)
    try:
        return asyncio.run(_opened(storage, work))
    except DatabaseInUse as error:
        raise Failure(f"{error}; to change the keys of a running server, give its address with --url") from None


async def _opened(storage: DocumentStore, work: Callable[[ApiKeys], Awaitable[Any]]) -> Any:
    await storage.open()
    try:
        return await work(ApiKeys(storage, SystemClock()))
    finally:
        await storage.close()


def _seconds(text: str, option: str) -> float:
    if not (matched := re.fullmatch(r"([0-9]{1,9})([smhd])", text)):
        raise typer.BadParameter("must be a number with s, m, h or d, such as 90d", param_hint=option)
    return float(int(matched[1]) * _UNITS[matched[2]])


def _print_secret(key: Mapping[str, Any], output: Format) -> None:
    if output is Format.JSON:
        print_json(key)
        return
    print(key["key"])
    typer.echo(f"key {key['id']} of {clean(key['principal'])}; it is not shown again", err=True)


def _row(key: Mapping[str, Any]) -> tuple[str, ...]:
    may_use = (
        "everything" if key["is_operator"] else "every skill" if key["skills"] is None else ", ".join(key["skills"])
    )
    state = f"revoked {key['revoked_at']}" if key["revoked_at"] else f"until {key['expires_at'] or 'revoked'}"
    return (
        key["id"],
        key["principal"],
        key["tenant"],
        may_use,
        key["created_at"],
        state,
        f"…{key['last_characters']}",
    )
