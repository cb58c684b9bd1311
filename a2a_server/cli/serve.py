"""`a2a-server serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from a2a_server.cli.output import Format, print_json_line, stdout_kept
from a2a_server.config import load
from a2a_server.server import serve as run_server

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Auth = Annotated[
    list[str] | None, typer.Option(metavar="KIND", help="Callers identify themselves: keys or jwt. Repeatable.")
]


@app.command()
def serve(
    executors: Annotated[
        list[str] | None, typer.Argument(metavar="[FILES_OR_MODULES]…", help="They register executors.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one.")] = None,
    database: Annotated[str | None, typer.Option(metavar="URL", help="Such as sqlite:///tasks.db.")] = None,
    default_skill: Annotated[str | None, typer.Option(metavar="ID", help="For messages that name none.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="The configuration, TOML.")] = None,
    card: Annotated[str | None, typer.Option(metavar="FILE", help="The agent card's template, JSON.")] = None,
    public_url: Annotated[str | None, typer.Option(metavar="URL", help="The address that callers use.")] = None,
    allowed_hosts: Annotated[
        list[str] | None, typer.Option("--allowed-host", metavar="NAME", help="A further name in `Host`. Repeatable.")
    ] = None,
    commands: Annotated[
        list[str] | None,
        typer.Option("--command", metavar="PROGRAM", help="command_executor may run it. Repeatable."),
    ] = None,
    egress_allow: Annotated[
        list[str] | None,
        typer.Option("--egress-allow", metavar="HOST", help="Executors may call this private host. Repeatable."),
    ] = None,
    auth: Auth = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen beyond this machine although callers are not identified.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Logs as JSON lines.")] = None,
    output: Annotated[
        Format, typer.Option("-o", "--output", help='json: {"url": …, "pid": …} on stdout when it is ready.')
    ] = Format.TEXT,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    Every setting, with its value in force, is shown by `a2a-server config`; what has no option here is set by an
    A2A_SERVER_* variable or in the file a2a-server.toml.
    """
    given = {
        "executors": executors or None,
        "host": host,
        "port": port,
        "database": database,
        "default_skill": default_skill,
        "config": config,
        "card": card,
        "public_url": public_url,
        "allowed_hosts": allowed_hosts or None,
        "commands": commands or None,
        "egress_allow": egress_allow or None,
        "auth": auth or None,
        "insecure": insecure,
        "log_level": log_level,
        "log_json": log_json,
    }
    settings = load(given, os.environ, Path.cwd())
    if output is Format.TEXT:
        raise typer.Exit(run_server(settings))
    with stdout_kept() as stdout:
        code = run_server(settings, ready=lambda url: print_json_line({"url": url, "pid": os.getpid()}, stdout))
    raise typer.Exit(code)
