"""`a2a-server version`, and `--version`."""

from platform import python_version

import typer

from a2a_server.cli.output import Format, Output, print_json
from a2a_server.process import distribution

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def versions_line() -> str:
    """The versions of this program and of its Python, in one line."""
    return f"a2a-server {distribution.version()} (distribution {distribution.NAME}, Python {python_version()})"


@app.command()
def version(output: Output = Format.TEXT) -> None:
    """Show the version of this program."""
    if output is Format.JSON:
        print_json({distribution.NAME: distribution.version(), "python": python_version()})
    else:
        print(versions_line())
