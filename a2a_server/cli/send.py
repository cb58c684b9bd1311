"""`a2a-server send`: an A2A message, and what comes back as it comes."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

import typer

from a2a_server.cli.client import DEFAULT_URL, Ca, Client, Token, Url
from a2a_server.cli.output import OUTCOMES, Format, OutputLines, clean, print_json_line, text_of_parts
from a2a_server.cli.trees import read_data, read_part
from a2a_server.cli.view import event_line
from a2a_server.protocol.states import STATUSES

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_ENDS = {
    "completed": "task_completed",
    "failed": "task_failed",
    "cancelled": "task_cancelled",
    "rejected": "task_failed",
}


@app.command()
def send(
    message: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT|FILE]", help="A text, or a file with text, data or tasks; - reads stdin."),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    data: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="Inputs as JSON, with or without a text.")
    ] = None,
    skill: Annotated[str | None, typer.Option(help="The skill to use.")] = None,
    context: Annotated[str | None, typer.Option(help="The context (conversation) to continue.")] = None,
    task: Annotated[str | None, typer.Option(help="The task whose question this message answers.")] = None,
    output: OutputLines = Format.TEXT,
) -> None:
    """Send an A2A message and show its stream.

    Exit codes: 0 completed, 1 failed, 3 cancelled or rejected, 4 waits for an answer.
    """
    if message is None and data is None:
        raise typer.BadParameter("give a text, a file, or --data", param_hint="TEXT|FILE")
    parts = [] if message is None else [read_part(message)]
    parts += [] if data is None else [read_data(data)]
    status = "completed"  # a direct reply comes without a status
    with Client(url, token, ca=ca) as server:
        for frame in server.send(request(parts, skill, context, task)):
            result = frame.data.get("result") or {}
            status = status_of(result) or status
            if output is Format.JSON:
                print_json_line(result)
            else:
                _print(result, status)
    raise typer.Exit(OUTCOMES.get(status, 1))


def request(parts: list[dict[str, Any]], skill: str | None, context: str | None, task: str | None) -> dict[str, Any]:
    """The params of `SendMessage` and `SendStreamingMessage`."""
    body: dict[str, Any] = {"messageId": str(uuid4()), "role": "ROLE_USER", "parts": parts}
    given = {"contextId": context, "taskId": task, "metadata": {"skillId": skill} if skill else None}
    return {"message": body | {name: value for name, value in given.items() if value}}


def status_of(result: Mapping[str, Any]) -> str | None:
    """The status of the task after this part of an A2A stream, in the core's words; None where it says none."""
    holder = result.get("task") or result.get("statusUpdate") or {}
    return STATUSES.get(holder.get("status", {}).get("state", ""))


def event_of(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """A status update of an A2A stream as an event of `tasks.*` (semantics §7), which is what the view understands."""
    update = result.get("statusUpdate")
    if update is None:
        return None
    root_id, metadata, status = update["taskId"], update.get("metadata", {}), update["status"]
    event: dict[str, Any] = {"root_task_id": root_id, "task_id": root_id, "timestamp": status.get("timestamp")}
    if "nodeId" not in metadata:
        state = STATUSES.get(status["state"], "")
        kind = "final" if state in _ENDS else "input_required" if state.endswith("_required") else "progress"
        return event | {"type": kind, "name": "", "status": state, "message": status.get("message")}
    state = metadata["nodeStatus"]
    kind = _ENDS.get(state) or ("input_required" if state.endswith("_required") else "progress")
    if state == "in_progress" and not {"progress", "retryAt", "error"} & set(metadata) and "message" not in status:
        kind = "task_start"
    return event | {
        "type": kind,
        "task_id": metadata["nodeId"],
        "name": metadata["nodeName"],
        "status": state,
        "progress": metadata.get("progress"),
        "error": metadata.get("error"),
        "message": metadata.get("progressMessage") or status.get("message"),
    }


def _print(result: Mapping[str, Any], status: str) -> None:
    if "message" in result:
        print(text_of_parts(result["message"]["parts"]), flush=True)
    elif "task" in result:
        task = result["task"]
        print(f"task {task['id']}  context {task.get('contextId', '')}  {status}", flush=True)
        for artifact in task.get("artifacts", ()):
            _print_artifact(artifact)
        if (said := task["status"].get("message")) and status != "in_progress":
            print(text_of_parts(said["parts"]), flush=True)
    elif "artifactUpdate" in result:
        _print_artifact(result["artifactUpdate"]["artifact"])
    elif (event := event_of(result)) is not None:
        print(event_line(event), flush=True)
        if event["type"] == "input_required":
            print(f"answer with: a2a-server send --task {event['root_task_id']} TEXT", flush=True)


def _print_artifact(artifact: Mapping[str, Any]) -> None:
    name = clean(artifact.get("name") or artifact["artifactId"])
    text = text_of_parts(artifact["parts"])
    print(f"[{name}] {text}", flush=True)
