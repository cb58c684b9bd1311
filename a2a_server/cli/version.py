"""`a2a-server version`."""

from importlib.metadata import version as version_of
from platform import python_version

import typer

from a2a_server.cli.output import Format, Output, print_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def version(output: Output = Format.TEXT) -> None:
    """The version of this program."""
    versions = {"a2a-server": version_of("a2a-server"), "python": python_version()}
    if output is Format.JSON:
        print_json(versions)
    else:
        print(f"a2a-server {versions['a2a-server']} (Python {versions['python']})")
