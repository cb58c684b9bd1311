"""`a2a-server serve`."""

import inspect
import os
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from a2a_server.cli.output import Format, print_json_line, stdout_kept
from a2a_server.cli.reload import OPTION, serve_again_and_again
from a2a_server.config import FILE_NAME, FILE_SETTING, PREFIX, Config, load
from a2a_server.process.init_process import run_below_init
from a2a_server.server import serve as run_server

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Files = Annotated[
    list[str] | None, typer.Argument(metavar="[FILES_OR_MODULES]…", help="Files or modules that register executors.")
]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--allowed-host", metavar="NAME", help="Accept this name in the Host header. Repeatable."),
]
Proxies = Annotated[
    list[str] | None,
    typer.Option("--trusted-proxy", metavar="ADDRESS", help="Trust X-Forwarded-* from this address. Repeatable."),
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--cors-origin", metavar="ORIGIN", help="Let pages of this web origin call the server. Repeatable."),
]
Programs = Annotated[
    list[str] | None, typer.Option("--command", metavar="PROGRAM", help="Let command_executor run it. Repeatable.")
]
Destinations = Annotated[
    list[str] | None,
    typer.Option("--egress-allow", metavar="HOST", help="Let executors call this private host. Repeatable."),
]
Insecure = Annotated[bool | None, typer.Option("--insecure", help="Listen beyond loopback without authentication.")]
PasswordFile = Annotated[str | None, typer.Option(metavar="FILE", help="File with the private key's password.")]
Authority = Annotated[str | None, typer.Option(metavar="FILE", help="CA bundle for client certificates (PEM).")]
ClientAuth = Annotated[
    str | None, typer.Option(metavar="MODE", help="Client certificates: none, optional or required.")
]
OutputFormat = Annotated[
    Format, typer.Option("-o", "--output", help='json: print {"url": …, "address": …, "pid": …} on stdout when ready.')
]
Auth = Annotated[
    list[str] | None, typer.Option(metavar="KIND", help="Require credentials: keys (API keys) or jwt. Repeatable.")
]
Reload = Annotated[
    bool, typer.Option(OPTION, help="Restart when a Python file beside the executors changes (for development).")
]


def _without_option() -> str:
    """The settings without an option of their own, for the help text."""
    names = {field.name for field in msgspec.structs.fields(Config)} - set(inspect.signature(serve).parameters)
    return f"Settings without an option (see docs/settings.md): {', '.join(sorted(names))}."


def serve(
    context: typer.Context,
    executors: Files = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on (default: 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on; 0: any free port.")] = None,
    database: Annotated[str | None, typer.Option(metavar="URL", help="For example sqlite:///tasks.db.")] = None,
    default_skill: Annotated[str | None, typer.Option(metavar="ID", help="Skill for messages that name none.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")] = None,
    card: Annotated[str | None, typer.Option(metavar="FILE", help="Agent card template (JSON).")] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address that callers use, if a proxy is in front.")
    ] = None,
    root_path: Annotated[str | None, typer.Option(metavar="PATH", help="Path prefix behind a proxy.")] = None,
    trusted_proxies: Proxies = None,
    allowed_hosts: Hosts = None,
    cors_origins: Origins = None,
    tls_cert: Annotated[str | None, typer.Option(metavar="FILE", help="Server certificate and chain (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="Private key of the certificate (PEM).")] = None,
    tls_key_password_file: PasswordFile = None,
    tls_ca: Authority = None,
    tls_client_auth: ClientAuth = None,
    commands: Programs = None,
    egress_allow: Destinations = None,
    auth: Auth = None,
    insecure: Insecure = None,
    log_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")] = None,
    log_json: Annotated[bool | None, typer.Option("--log-json", help="Log JSON lines.")] = None,
    reload: Reload = False,
    output: OutputFormat = Format.TEXT,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    `a2a-server config` shows every setting with its value in force. Settings without an option here are set by
    A2A_SERVER_* variables or in the file a2a-server.toml.
    """
    # Each other parameter is a setting of the same name; a list without items was not given.
    given = {
        name: value or None if isinstance(value, list | tuple) else value for name, value in context.params.items()
    }
    del given["output"], given["reload"]
    run_below_init()
    settings = load(given, os.environ, Path.cwd())
    if reload:
        raise typer.Exit(serve_again_and_again(sys.argv[1:], *_watched(settings, context.params["config"])))
    if output is Format.TEXT:
        raise typer.Exit(run_server(settings))
    with stdout_kept() as stdout:

        def say_ready(url: str, address: str) -> None:
            print_json_line({"url": url, "address": address, "pid": os.getpid()}, stdout)

        code = run_server(settings, ready=say_ready)
    raise typer.Exit(code)


app.command(epilog=_without_option())(serve)


def _watched(settings: Config, config: str | None) -> tuple[set[Path], set[Path]]:
    """The folders of the executors' files and modules, and the files that the settings name."""
    folders = {Path(name).absolute().parent if name.endswith(".py") else Path.cwd() for name in settings.executors}
    file = config or os.environ.get(PREFIX + FILE_SETTING.upper()) or FILE_NAME
    named = (file, settings.card, settings.extended_card)
    return folders, {Path(name).absolute() for name in named if name is not None}
