"""The command line. Each command is a module of its own, imported when it is called: `serve` starts without the
client's half, and a client command without the server's."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from a2a_server.cli.output import Failure, fail
from a2a_server.cli.version import versions_line
from core.model.errors import CallerError, ConfigurationError, CoreError

PROGRAM = "a2a-server"
FAILED, USAGE, CONFIGURATION, INTERRUPTED = 1, 2, 78, 130  # 78 is EX_CONFIG

# Command -> its module, in the order of the help text.
COMMANDS = {
    "serve": "a2a_server.cli.serve",
    "send": "a2a_server.cli.send",
    "run": "a2a_server.cli.run",
    "watch": "a2a_server.cli.watch",
    "tasks": "a2a_server.cli.tasks",
    "push": "a2a_server.cli.push",
    "keys": "a2a_server.cli.keys",
    "card": "a2a_server.cli.card",
    "db": "a2a_server.cli.db",
    "migrate": "a2a_server.cli.migrate",
    "config": "a2a_server.cli.settings",
    "version": "a2a_server.cli.version",
}


class Commands(TyperGroup):
    """Finds a command by importing its module. This is the only place that imports by name."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = get_command(import_module(COMMANDS[cmd_name]).app)
        command.name = cmd_name
        return command


# What stands in the context of the program holds for every command of it.
app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(versions_line())
        raise typer.Exit


@app.callback(invoke_without_command=True)
def introduce(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A task server for AI agents: A2A and JSON-RPC, durable trees of tasks, every step streamed over SSE."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code. A command that fails prints a one-line reason to stderr."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to stop.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = get_command(app).main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        code = fail(f"{error.format_message().rstrip('.')} (see {PROGRAM} --help)", USAGE)
    except Failure as failure:
        code = fail(str(failure), failure.code)
    except ConfigurationError as error:
        code = fail(str(error), CONFIGURATION)
    except CallerError as error:
        code = fail(str(error), USAGE)
    except CoreError as error:
        code = fail(str(error), FAILED)
    except BrokenPipeError:
        # The reader has seen enough (`| head`). The interpreter would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except OSError as error:
        code = fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), FAILED)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code or 0)
