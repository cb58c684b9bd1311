"""`a2a-server run`: executes a tree of tasks, here in a core of its own, or on a server."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from msgspec.structs import replace

from a2a_server import logs
from a2a_server.app import build
from a2a_server.cli.answers import ServerError
from a2a_server.cli.client import Ca, Client, Token
from a2a_server.cli.output import OUTCOMES, Failure, Format, Output, clean, print_json, say, stdout_kept, text_of
from a2a_server.cli.trees import located, read_tree
from a2a_server.cli.view import Screen, TreeView, screen, tree_view
from a2a_server.config import load
from a2a_server.extensions import load_executors
from a2a_server.process.forks import kept_from_children
from a2a_server.process.init_process import run_below_init
from a2a_server.views.task_objects import TreeObject
from a2a_server.views.task_view import tree_object
from core.model.errors import InvalidPlan, TaskNotCancelable
from core.model.streaming import stream_event
from core.session import Session
from core.storage.memory import MemoryStorage

app = typer.Typer(add_completion=False, rich_markup_mode=None)

LogLevel = Literal["debug", "info", "warning", "error"]

REASONS = {
    signal.SIGINT: "interrupted by Ctrl-C",
    signal.SIGTERM: "interrupted by SIGTERM",
    signal.SIGHUP: "interrupted by SIGHUP",
}


class Interrupted(KeyboardInterrupt):
    """One of the signals that end the command, which cancel the tree as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__()


@app.command()
def run(
    tree: Annotated[
        str, typer.Argument(metavar="TREE.json|yaml", help="File with an array of tasks; - reads JSON from stdin.")
    ],
    url: Annotated[str | None, typer.Option(help="Run it on the server at this address (default: here).")] = None,
    token: Token = None,
    ca: Ca = None,
    database: Annotated[
        str | None, typer.Option(metavar="URL", help="Store the tree there (default: in memory).")
    ] = None,
    executors: Annotated[
        list[str] | None,
        typer.Option(
            "-e", "--executors", metavar="FILE_OR_MODULE", help="File or module that registers executors. Repeatable."
        ),
    ] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Configuration file (TOML).")] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="Level of the log on stderr; warning shows tracebacks of executors.")
    ] = "warning",
    output: Output = Format.TEXT,
) -> None:
    """Execute a tree and show it while it runs. Ctrl-C cancels it. With -o json stdout gets the finished tree alone.

    Exits 0 completed, 1 failed, 2 wrong input, 3 cancelled or rejected, 4 waits for an answer, 130 after Ctrl-C.
    SIGTERM and SIGHUP cancel the tree, too, and then it exits with 143 or 129.
    """
    if url is not None and (database or executors or config):
        raise Failure("--database, --executors and --config are for running here, not with --url", 2)
    items = read_tree(tree)
    run_below_init()
    silent = output is Format.JSON
    try:
        if url is not None:
            view, finished = _run_there(Client(url, token, ca=ca), items, silent=silent)
        else:
            logs.configure(log_level, as_json=False)
            settings = {"database": database, "executors": executors or None, "config": config}
            with stdout_kept() if silent else nullcontext():
                view, finished = asyncio.run(_run_here(settings, items, silent=silent))
    except Interrupted as interrupted:
        raise typer.Exit(128 + interrupted.number) from None
    except InvalidPlan as error:
        raise Failure(located(tree, error.problems), 2) from None
    except ServerError as error:
        if not error.problems:
            raise
        raise Failure(f"{located(tree, error.problems)} (error {error.error.get('code')})") from None
    if silent:
        print_json(finished)
    else:
        _print_end(view, finished)
    if view.questions:
        say(_next(view, url, database))
    raise typer.Exit(OUTCOMES.get(view.outcome, 1))


async def _run_here(settings: dict[str, Any], items: list[Any], *, silent: bool) -> tuple[TreeView, TreeObject]:
    """The view at the end, and the tree as `tasks.tree` gives it."""
    config = replace(load(settings, os.environ, Path.cwd()), error_texts="full")  # its caller is its operator
    load_executors(config.executors)
    session = build(config, storage=None if settings["database"] else MemoryStorage()).session
    plan = session.plan(items)
    received: list[int] = []
    with _cancelled_by_signals(received), ExitStack() as forks:
        async with session:
            forks.enter_context(session.family.owns_forks())
            head = (await session.create(plan, execute=True)).head
            view = tree_view(tree_object(head, plan.tasks))
            await _show_to_its_end(session, view, received, silent=silent)
            stored = await session.storage.load(head.id)
    assert stored is not None, "a tree that ran is stored"
    return view, tree_object(*stored)


async def _show_to_its_end(session: Session, view: TreeView, received: Sequence[int], *, silent: bool) -> None:
    """Show the tree while it runs. Where that is cancelled, by a signal that was received or by Ctrl-C, so is it."""
    try:
        with screen(view, silent=silent) as shown:
            await _show(session, view, shown)
    except asyncio.CancelledError:
        await _cancel(session, view.root_id, REASONS[signal.Signals(received[0]) if received else signal.SIGINT])
        if received:
            raise Interrupted(received[0]) from None
        raise


@contextmanager
def _cancelled_by_signals(received: list[int]) -> Iterator[None]:
    """SIGTERM and SIGHUP cancel the running task and are noted; a second SIGTERM ends the process at once.

    One that is ignored (nohup) stays so. A terminal that is closed sends two SIGHUPs, from the shell and the kernel.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        received.append(number)
        if len(received) == 1:
            task.cancel()
        elif received.count(signal.SIGTERM) > 1:
            os._exit(128 + number)  # what it started ends with it

    with kept_from_children(), _handled(lambda number: loop.add_signal_handler(number, end, number)):
        yield


@contextmanager
def _handled(handle: Callable[[int], object]) -> Iterator[None]:
    """The two signals are handled so, unless they are ignored, and do what they did before at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            handle(number)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the second one of a closed terminal would break the cancel off
    raise Interrupted(number)


async def _show(session: Session, view: TreeView, shown: Screen) -> None:
    async for recorded in session.follow(view.root_id):
        if (event := stream_event(recorded)) is not None:
            shown.show(event)
        if view.final is not None or view.only_waits:
            return


async def _cancel(session: Session, task_id: str, reason: str) -> None:
    try:
        result = await session.cancel(task_id, reason)
    except TaskNotCancelable as error:
        typer.echo(f"a2a-server: {error}", err=True)
        return
    left = len(result.still_running) + len(result.not_cancelable)
    typer.echo(f"a2a-server: the tree was cancelled{f'; {left} tasks have not stopped' if left else ''}", err=True)


def _run_there(connection: Client, items: list[Any], *, silent: bool) -> tuple[TreeView, TreeObject]:
    with _handled(lambda number: signal.signal(number, _raise)), connection as server:
        view = tree_view(server.call("tasks.create", {"tasks": items}))
        try:
            server.call("tasks.execute", {"task_id": view.root_id})
            with screen(view, silent=silent) as shown:
                _show_there(server, view, shown)
        except KeyboardInterrupt as interrupted:
            number = interrupted.number if isinstance(interrupted, Interrupted) else signal.SIGINT
            _cancel_there(server, view.root_id, REASONS[signal.Signals(number)])
            raise
        return view, server.call("tasks.tree", {"task_id": view.root_id})


def _show_there(server: Client, view: TreeView, shown: Screen) -> None:
    for frame in server.follow(view.root_id):
        shown.show(frame.data)
        if view.only_waits:
            return


def _cancel_there(server: Client, task_id: str, reason: str) -> None:
    try:
        (answer,) = server.call("tasks.cancel", {"task_ids": [task_id], "error_message": reason})
        told = answer["message"]
    except Failure as failure:
        told = f"the tree was not cancelled: {failure}"
    typer.echo(f"a2a-server: {clean(told)}", err=True)


def _next(view: TreeView, url: str | None, database: str | None) -> str:
    """What a user can do about a tree that waits for an answer."""
    asked = next(iter(view.questions))
    if url is not None:
        answer, watch = f"tasks answer {asked} ANSWER --url {url}", f"watch {view.root_id} --url {url}"
        return f"the tree waits for an answer; run: a2a-server {answer}; then follow the tree: a2a-server {watch}"
    if database is not None:
        return (
            f"the tree waits for an answer: start `a2a-server serve --database {database}` with the same executors, "
            f"then a2a-server tasks answer {asked} ANSWER"
        )
    return (
        "the tree waits for an answer, but was only in memory and is gone: run it on a server (--url) or store it "
        "(--database), then answer with `a2a-server tasks answer`"
    )


def _print_end(view: TreeView, finished: TreeObject) -> None:
    """How it ended: the root's result, else what the tasks came to on which no other depends."""
    print(f"{view.outcome}: {clean(finished['name'])} ({view.root_id})")
    tasks = [finished]
    needed: set[str] = set()
    for task in tasks:
        tasks.extend(task["children"])
        needed.update(dependency["id"] for dependency in task["dependencies"])
    if finished["result"] is not None:
        print(text_of(finished["result"]))
        return
    for task in tasks:
        if task["result"] is not None and task["id"] not in needed:
            print(f"{clean(task['name'])}: {text_of(task['result'])}")
    for task in tasks:
        if task["error"] and task is not finished:
            print(f"{clean(task['name'])} {task['status']}: {clean(task['error'])}")
