"""fasta2a's server, with its in-memory storage and broker, and a worker that does nothing. Run by the peer's venv."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fasta2a import FastA2A, Worker
from fasta2a.broker import InMemoryBroker
from fasta2a.schema import Artifact, Message, TaskIdParams, TaskSendParams
from fasta2a.storage import InMemoryStorage


class NoOp(Worker[list[Message]]):
    """Every task is done at once."""

    async def run_task(self, params: TaskSendParams) -> None:
        await self.storage.update_task(params["id"], state="working")
        await self.storage.update_task(params["id"], state="completed")

    async def cancel_task(self, params: TaskIdParams) -> None:
        raise NotImplementedError  # the benchmark cancels nothing

    def build_message_history(self, history: list[Message]) -> list[Any]:
        return []

    def build_artifacts(self, result: Any) -> list[Artifact]:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    storage: InMemoryStorage[list[Message]] = InMemoryStorage()
    broker = InMemoryBroker()
    worker = NoOp(storage=storage, broker=broker)

    @asynccontextmanager
    async def lifespan(app: FastA2A) -> AsyncIterator[None]:
        async with app.task_manager, worker.run():
            yield

    app = FastA2A(storage=storage, broker=broker, lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
