"""`a2a-server watch`: the events of a task's tree as they happen, across restarts of the server."""

from typing import Annotated

import typer

from a2a_server.cli.client import DEFAULT_URL, Ca, Client, Token, Url
from a2a_server.cli.output import OUTCOMES, Format, OutputLines, print_json_line
from a2a_server.cli.view import TreeView, screen, tree_view

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def watch(
    task_id: Annotated[str, typer.Argument(help="Id of any task of the tree.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    after: Annotated[int, typer.Option(min=0, help="Start after the event with this number.")] = 0,
    output: OutputLines = Format.TEXT,
) -> None:
    """Follow a tree until it ends. Exit codes: 0 completed, 1 failed, 3 cancelled or rejected."""
    with Client(url, token, ca=ca) as server:
        view = tree_view(server.call("tasks.tree", {"task_id": task_id}))
        _show(server, view, after, output)
    raise typer.Exit(OUTCOMES.get(view.outcome, 1))


def _show(server: Client, view: TreeView, after: int, output: Format) -> None:
    with screen(view, silent=output is Format.JSON) as shown:
        for frame in server.follow(view.root_id, after):
            shown.show(frame.data)
            if output is Format.JSON:
                print_json_line(frame.data)
