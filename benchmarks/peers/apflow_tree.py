"""How long apflow takes to run a fan or a chain of no-op tasks: seconds on stdout. Run by the peer's venv."""

import argparse
import asyncio
import logging
import tempfile
import time
from typing import Any

from apflow import TaskManager, create_session
from apflow.core.base import BaseTask
from apflow.core.execution.task_creator import TaskCreator
from apflow.core.extensions.decorators import executor_register


@executor_register()
class NoOp(BaseTask):
    """Returns at once."""

    id = "noop"
    name = "noop"
    type = "noop"
    description = "does nothing"

    async def execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {}

    def get_input_schema(self) -> dict[str, Any]:
        return {}


async def run(shape: str, n: int, path: str) -> float:
    session = create_session(f"sqlite:///{path}")
    tasks: list[dict[str, Any]] = [{"id": "root", "name": "root", "schemas": {"method": "noop"}}]
    for i in range(n):
        tasks.append({"id": f"t{i}", "name": f"t{i}", "parent_id": "root", "schemas": {"method": "noop"}})
        if shape == "chain" and i:
            tasks[-1]["dependencies"] = [{"id": f"t{i - 1}"}]
    tree = await TaskCreator(session).create_task_tree_from_array(tasks)
    begin = time.perf_counter()
    tree = await TaskManager(session).distribute_task_tree(tree)
    seconds = time.perf_counter() - begin
    if any(node.task.status != "completed" for node in (tree, *tree.children)):
        raise SystemExit("not every task has completed")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=("fan", "chain"))
    parser.add_argument("n", type=int)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(run(given.shape, given.n, f"{folder}/apflow.db")))


if __name__ == "__main__":
    main()
