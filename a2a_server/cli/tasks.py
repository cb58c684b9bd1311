"""`a2a-server tasks …`: stored tasks of a running server."""

import json
import sys
from typing import Annotated, Any

import typer

from a2a_server.cli.client import DEFAULT_URL, Server, Token, Url
from a2a_server.cli.output import Format, Output, OutputLines, clean, print_json, print_json_line, print_table, text_of
from a2a_server.cli.view import event_line

app = typer.Typer(add_completion=False, rich_markup_mode=None, help="Look at stored tasks, cancel them, remove them.")

PAGE = 500  # events asked for at once

TaskId = Annotated[str, typer.Argument(metavar="TASK_ID")]


@app.command("list")
def list_tasks(
    url: Url = DEFAULT_URL,
    token: Token = None,
    status: Annotated[str | None, typer.Option(help="Only tasks with this status.")] = None,
    name: Annotated[str | None, typer.Option(help="Only tasks with this name.")] = None,
    user: Annotated[str | None, typer.Option(help="Only tasks of this user_id.")] = None,
    context: Annotated[str | None, typer.Option(help="Only tasks of this context.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All tasks, not only the roots of trees.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    page: Annotated[str | None, typer.Option(help="The page_token of the last task of the page before.")] = None,
    output: Output = Format.TEXT,
) -> None:
    """Tasks, newest first."""
    given = {"status": status, "name": name, "user_id": user, "context_id": context, "page_token": page}
    params: dict[str, Any] = {"root_only": not every, "limit": limit}
    with Server(url, token) as server:
        tasks = server.call("tasks.list", params | {key: value for key, value in given.items() if value is not None})
    if output is Format.JSON:
        print_json(tasks)
        return
    rows = [
        (
            task["id"],
            task.get("tree_status") or task["status"],
            f"{task.get('tree_progress') or task['progress']:.0%}",
            task["created_at"],
            task["name"],
        )
        for task in tasks
    ]
    print_table(("ID", "STATUS", "DONE", "CREATED", "NAME"), rows)
    if len(tasks) == limit:
        print(f"the page behind these: --page {tasks[-1]['page_token']}", file=sys.stderr)


@app.command()
def get(task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, output: Output = Format.TEXT) -> None:
    """One task with its inputs and result."""
    with Server(url, token) as server:
        task = server.call("tasks.get", {"task_id": task_id})
    if output is Format.JSON:
        print_json(task)
        return
    width = max(map(len, task))
    for field, value in task.items():
        if value is not None:
            print(f"{field:<{width}}  {clean(text_of(value))}")


@app.command()
def tree(task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, output: Output = Format.TEXT) -> None:
    """The whole tree of a task."""
    with Server(url, token) as server:
        found = server.call("tasks.tree", {"task_id": task_id})
    if output is Format.JSON:
        print_json(found)
        return
    waiting = [(found, 0)]
    while waiting:
        task, depth = waiting.pop()
        error = f"  {clean(task['error'])}" if task["error"] else ""
        print(f"{task['id']}  {task['status']:<14}  {'  ' * depth}{clean(task['name'])}{error}")
        waiting.extend((child, depth + 1) for child in reversed(task["children"]))


@app.command()
def cancel(
    task_ids: Annotated[list[str], typer.Argument(metavar="TASK_ID…")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    reason: Annotated[str | None, typer.Option(help="Becomes the error of the tasks.")] = None,
    force: Annotated[bool, typer.Option(help="Also what cannot be interrupted: its result is dropped.")] = False,
    output: Output = Format.TEXT,
) -> None:
    """Cancel tasks with all below them. Exits 1 when one could not be cancelled."""
    params: dict[str, Any] = {"task_ids": task_ids, "force": force}
    with Server(url, token) as server:
        answers = server.call("tasks.cancel", params | ({"error_message": reason} if reason else {}))
    if output is Format.JSON:
        print_json(answers)
    else:
        print_table(("ID", "STATUS", "MESSAGE"), [(a["task_id"], a["status"], a["message"]) for a in answers])
    raise typer.Exit(int(any(answer["status"] == "failed" for answer in answers)))


@app.command()
def answer(
    task_id: TaskId,
    text: Annotated[str, typer.Argument(metavar="ANSWER", help="Text, or with --json any JSON value.")],
    is_json: Annotated[bool, typer.Option("--json", help="The answer is a JSON value.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    output: Output = Format.TEXT,
) -> None:
    """Answer the open question of a task; a root stands for the oldest one of its tree."""
    try:
        given = json.loads(text) if is_json else text
    except ValueError as error:
        raise typer.BadParameter(f"not a JSON value: {error}", param_hint="ANSWER") from None
    with Server(url, token) as server:
        task = server.call("tasks.answer", {"task_id": task_id, "answer": given})
    if output is Format.JSON:
        print_json(task)
    else:
        print(f"{task['id']}  {task['status']}  {clean(task['name'])}")


@app.command()
def delete(task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, output: Output = Format.TEXT) -> None:
    """Remove a tree that does not run."""
    with Server(url, token) as server:
        answer = server.call("tasks.delete", {"task_id": task_id})
    if output is Format.JSON:
        print_json(answer)
    else:
        print(clean(answer["message"]))


@app.command()
def events(
    task_id: TaskId,
    url: Url = DEFAULT_URL,
    token: Token = None,
    after: Annotated[int, typer.Option(min=0, help="Begin after the event with this number.")] = 0,
    output: OutputLines = Format.TEXT,
) -> None:
    """The stored events of a task; of a root, those of its whole tree."""
    with Server(url, token) as server:
        while page := server.call("tasks.events", {"task_id": task_id, "after": after, "limit": PAGE}):
            for event in page:
                if output is Format.JSON:
                    print_json_line(event)
                else:
                    print(f"{event['seq']:>6}  {event_line(event)}")
            after = page[-1]["seq"]
