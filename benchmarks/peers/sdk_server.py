"""a2a-sdk's own server with an agent that does what `benchmarks/agents.py` does. Run by the peer's venv.

Its SQLite store gets the journal and the sync that our server has (WAL, FULL): with SQLite's defaults it is slower.
"""

import argparse
import asyncio
from typing import Any

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import DatabaseTaskStore, InMemoryTaskStore, TaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette

CHUNKS, CHUNK = 400, "x" * 200


class Agent(AgentExecutor):
    """Does what the message's text says: `noop`, `chunks`, `ask` or `census`."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task
        if task is None:
            assert context.message is not None
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        match context.get_user_input():
            case "ask":
                await updater.requires_input()
                return
            case "census":
                await updater.add_artifact([Part(text=str(len(asyncio.all_tasks())))])
            case "chunks":
                for n in range(CHUNKS):
                    await updater.add_artifact([Part(text=CHUNK)], artifact_id="out", append=n > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError  # the benchmark cancels nothing


def make_store(path: str | None) -> TaskStore:
    if path is None:
        return InMemoryTaskStore()
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=30000")

    return DatabaseTaskStore(engine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", help="a file; without it tasks are kept in memory")
    given = parser.parse_args()
    url = f"http://127.0.0.1:{given.port}"
    card = AgentCard(
        name="peer",
        description="does nothing",
        version="1",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="noop", name="noop", description="does nothing", tags=["noop"])],
    )
    handler = DefaultRequestHandler(agent_executor=Agent(), task_store=make_store(given.database), agent_card=card)
    app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
