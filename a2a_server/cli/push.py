"""`a2a-server push …`: push notifications of a running server that did not arrive."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from a2a_server.cli.client import DEFAULT_URL, Ca, Client, Token, Url
from a2a_server.cli.output import Failure, Format, Output, print_json, print_table

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="List push notifications that were not delivered, and resend them.",
)

PAGE = 500  # deliveries asked for at once
MOST_RESENT = 100  # in one call


class Which(StrEnum):
    """Dead letters, or webhooks that wait for a retry."""

    DEAD = "dead"
    WAITING = "waiting"


@app.command("list")
def list_deliveries(
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    status: Annotated[Which, typer.Option(help="dead: no more retries; waiting: retried later.")] = Which.DEAD,
    output: Output = Format.TEXT,
) -> None:
    """List undelivered events, oldest first."""
    with Client(url, token, ca=ca) as server:
        found = _all(server, status)
    if output is Format.JSON:
        print_json(found)
        return
    if status is Which.DEAD:
        rows = [(each["delivery_id"], str(each["attempts"]), each["given_up_at"], each["error"]) for each in found]
        print_table(("DELIVERY", "ATTEMPTS", "GIVEN UP", "ERROR"), rows)
        return
    waits = [
        (each["task_id"], each["config_id"], str(each["attempts"]), each["retry_at"], each["error"]) for each in found
    ]
    print_table(("TASK", "WEBHOOK", "ATTEMPTS", "NEXT", "ERROR"), waits)


@app.command()
def resend(
    delivery_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[DELIVERY_ID]…", help="Ids from `push list`.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    ca: Ca = None,
    output: Output = Format.TEXT,
) -> None:
    """Send dead letters again. Exits 1 unless all of them were delivered."""
    if bool(delivery_ids) == every:
        raise Failure("give delivery ids, or --all", 2)
    answers: list[dict[str, Any]] = []
    with Client(url, token, ca=ca) as server:
        ids = delivery_ids or [each["delivery_id"] for each in _all(server, Which.DEAD)]
        for start in range(0, len(ids), MOST_RESENT):
            answers += server.call("push.resend", {"delivery_ids": ids[start : start + MOST_RESENT]})
    if output is Format.JSON:
        print_json(answers)
    else:
        rows = [(each["delivery_id"], "delivered" if each["delivered"] else each["error"]) for each in answers]
        print_table(("DELIVERY", "OUTCOME"), rows)
    raise typer.Exit(0 if all(each["delivered"] for each in answers) else 1)


def _all(server: Client, status: Which) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = server.call("push.deliveries", {"status": status.value, "limit": PAGE, "after": after})
        found += page["deliveries"]
        if not page["next"]:
            return found
        after = page["next"]
