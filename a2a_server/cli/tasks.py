"""`a2a-server tasks …`: stored tasks of a running server."""

import json
import sys
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from a2a_server.cli.client import DEFAULT_URL, Ca, Client, Token, Url
from a2a_server.cli.output import Format, Output, OutputLines, clean, print_json, print_json_line, print_table, text_of
from a2a_server.cli.times import duration_of, moment
from a2a_server.cli.view import event_line, status_of

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Show, rerun, cancel, answer and delete stored tasks."
)

PAGE = 500  # events asked for at once

LISTED_AT_ONCE = 1000  # tasks
CANCELLED_AT_ONCE = 50  # trees
OWNER = ("tenant", "principal")  # fields of a task that only operators get
MAX_ERROR = 80  # characters of an error in a list

TaskId = Annotated[str, typer.Argument(metavar="TASK_ID")]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Only tasks created since then: 90s, 15m, 2h, 7d (ago), or a time such as 2026-01-31."
    ),
]


class OpenStatus(StrEnum):
    """The statuses of a tree that can be cancelled."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    INPUT_REQUIRED = "input_required"
    AUTH_REQUIRED = "auth_required"


@app.command("list")
def list_tasks(
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    status: Annotated[str | None, typer.Option(help="Only tasks with this status.")] = None,
    name: Annotated[str | None, typer.Option(help="Only tasks with this name.")] = None,
    user: Annotated[str | None, typer.Option(help="Only tasks of this user_id.")] = None,
    context: Annotated[str | None, typer.Option(help="Only tasks of this context.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every task, not only the roots of trees.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Tasks on a page.")] = 100,
    page: Annotated[
        str | None, typer.Option(help="Next page: the page_token of the last task of the page before.")
    ] = None,
    since: Since = None,
    output: Output = Format.TEXT,
) -> None:
    """List tasks, newest first; for an operator, with the tenant and the principal of each."""
    given = {"status": status, "name": name, "user_id": user, "context_id": context, "page_token": page}
    params: dict[str, Any] = {"root_only": not every, "limit": limit}
    if since is not None:
        params["since"] = moment(since).isoformat()
    with Client(url, token, ca=ca) as server:
        tasks = server.call("tasks.list", params | {key: value for key, value in given.items() if value is not None})
    if output is Format.JSON:
        print_json(tasks)
        return
    owner = OWNER if any("principal" in task for task in tasks) else ()  # an operator is told whose each task is
    rows = [
        (
            task["id"],
            *(task[field] for field in owner),
            status_of(task),
            f"{task.get('tree_progress') or task['progress']:.0%}",
            task["created_at"],
            duration_of(task),
            task["name"],
            clean(task["error"] or "")[:MAX_ERROR],
        )
        for task in tasks
    ]
    print_table(("ID", *map(str.upper, owner), "STATUS", "DONE", "CREATED", "TOOK", "NAME", "ERROR"), rows)
    if len(tasks) == limit:
        print(f"for the next page: --page {tasks[-1]['page_token']}", file=sys.stderr)


@app.command()
def get(
    task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, ca: Ca = None, output: Output = Format.TEXT
) -> None:
    """Show one task with its inputs and result."""
    with Client(url, token, ca=ca) as server:
        task = server.call("tasks.get", {"task_id": task_id})
    if output is Format.JSON:
        print_json(task)
        return
    width = max(map(len, task))
    for field, value in task.items():
        if value is not None:
            print(f"{field:<{width}}  {clean(text_of(value))}")


@app.command()
def tree(
    task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, ca: Ca = None, output: Output = Format.TEXT
) -> None:
    """Show the whole tree of a task."""
    with Client(url, token, ca=ca) as server:
        found = server.call("tasks.tree", {"task_id": task_id})
    if output is Format.JSON:
        print_json(found)
        return
    waiting = [(found, 0)]
    while waiting:
        task, depth = waiting.pop()
        error = f"  {clean(task['error'])}" if task["error"] else ""
        told = f"{task['id']}  {task['status']:<14}  {duration_of(task):>8}  {'  ' * depth}{clean(task['name'])}"
        print(f"{told}{error}")
        waiting.extend((child, depth + 1) for child in reversed(task["children"]))


@app.command()
def rerun(
    task_ids: Annotated[list[str], typer.Argument(metavar="TASK_ID…")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    force: Annotated[bool, typer.Option(help="Also rerun completed tasks.")] = False,
    output: OutputLines = Format.TEXT,
) -> None:
    """Rerun tasks and everything below them, except completed tasks (--force: those too).

    A task created by an A2A message is final once it ends: a new tree keeps its completed tasks and runs the others.
    """
    with Client(url, token, ca=ca) as server:
        for task_id in task_ids:
            started = server.call("tasks.execute", {"task_id": task_id, "force": force})
            if output is Format.JSON:
                print_json_line(started)
            else:
                print(f"{started['task_id']}  {started['status']}  {clean(started['message'])}", flush=True)


@app.command()
def cancel(
    task_ids: Annotated[list[str] | None, typer.Argument(metavar="[TASK_ID]…")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    status: Annotated[
        OpenStatus | None, typer.Option(help="Cancel every tree with this status (as in `tasks list`).")
    ] = None,
    since: Since = None,
    reason: Annotated[str | None, typer.Option(help="Reason, stored as the error of the tasks.")] = None,
    force: Annotated[
        bool, typer.Option(help="Also cancel tasks that cannot be interrupted; their results are dropped.")
    ] = False,
    output: Output = Format.TEXT,
) -> None:
    """Cancel tasks and everything below them. Exits 1 when one could not be cancelled."""
    if bool(task_ids) == (status is not None) or (since is not None and status is None):
        raise typer.BadParameter("give either ids, or --status (and perhaps --since)", param_hint="TASK_ID")
    params: dict[str, Any] = {"force": force} | ({"error_message": reason} if reason else {})
    answers: list[dict[str, Any]] = []
    with Client(url, token, ca=ca) as server:
        chosen = task_ids or _roots_with(server, status or "", None if since is None else moment(since))
        for at in range(0, len(chosen), CANCELLED_AT_ONCE):
            answers += server.call("tasks.cancel", params | {"task_ids": chosen[at : at + CANCELLED_AT_ONCE]})
    if output is Format.JSON:
        print_json(answers)
    else:
        print_table(("ID", "STATUS", "MESSAGE"), [(a["task_id"], a["status"], a["message"]) for a in answers])
    raise typer.Exit(int(any(answer["status"] == "failed" for answer in answers)))


def _roots_with(server: Client, status: str, earliest: datetime | None) -> list[str]:
    """The ids of trees whose status is this one, newest first; of those made since then, root and tasks alike.

    A root's own status may be another: a group does not run, what is below it does. Some task of the tree has it.
    """
    found: dict[str, None] = {}
    params: dict[str, Any] = {"status": status, "root_only": False, "limit": LISTED_AT_ONCE}
    if earliest is not None:
        params["since"] = earliest.isoformat()
    while page := server.call("tasks.list", params):
        found |= dict.fromkeys(task["root_task_id"] for task in page)
        params["page_token"] = page[-1]["page_token"]
    roots = [server.call("tasks.get", {"task_id": root_id}) for root_id in found]
    return [
        root["id"]
        for root in roots
        if status_of(root) == status and (earliest is None or datetime.fromisoformat(root["created_at"]) >= earliest)
    ]


@app.command()
def answer(
    task_id: TaskId,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="ANSWER…",
            help="A text, or with --json any JSON value. If several questions were asked at once, give one answer for "
            "each, in order; a single answer is for the first, and the others are asked again.",
        ),
    ],
    is_json: Annotated[bool, typer.Option("--json", help="Each answer is a JSON value.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Answer the open question of a task. With the id of a root, the oldest open question of its tree."""
    try:
        given = [json.loads(text) for text in texts] if is_json else texts
    except ValueError as error:
        raise typer.BadParameter(f"not a JSON value: {error}", param_hint="ANSWER") from None
    params = {"answer": given[0]} if len(given) == 1 else {"answers": given}
    with Client(url, token, ca=ca) as server:
        task = server.call("tasks.answer", {"task_id": task_id, **params})
    if output is Format.JSON:
        print_json(task)
    else:
        print(f"{task['id']}  {task['status']}  {clean(task['name'])}")


@app.command()
def delete(
    task_id: TaskId, url: Url = DEFAULT_URL, token: Token = None, ca: Ca = None, output: Output = Format.TEXT
) -> None:
    """Delete a tree that is not running."""
    with Client(url, token, ca=ca) as server:
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
    ca: Ca = None,
    after: Annotated[int, typer.Option(min=0, help="Start after the event with this number.")] = 0,
    output: OutputLines = Format.TEXT,
) -> None:
    """Show the stored events of a task; with the id of a root, those of its whole tree."""
    show = print_json_line if output is Format.JSON else _print_event
    with Client(url, token, ca=ca) as server:
        while page := server.call("tasks.events", {"task_id": task_id, "after": after, "limit": PAGE}):
            for event in page:
                show(event)
            after = page[-1]["seq"]


def _print_event(event: dict[str, Any]) -> None:
    print(f"{event['seq']:>6}  {event_line(event)}")
