"""Whether time tells what the bytes do not: somebody else's task from one that never existed, a key's right beginning
from a wrong one.

The two kinds are asked for in random order, over JSON-RPC, on a database in a temporary folder. Welch's t of the two
samples says whether they differ; below 3 nothing can be told (reliability R19, T5). The slowest twentieth of
both is left out: that is the machine, not the server.
"""

import argparse
import asyncio
import json
import logging
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from math import sqrt

from a2a_server.app import Application, build
from a2a_server.auth.apikeys import ApiKeys
from a2a_server.auth.errors import BadCredential
from a2a_server.auth.principal import Principal
from a2a_server.auth.stored_keys import Grant
from a2a_server.bindings.context import RequestContext
from a2a_server.config import Config
from core.executors.registry import ExecutorRegistry
from core.model.owners import owner_of
from core.model.submission import Submission

MOST = 3.0
FOREIGN_TREES = 200

Ask = Callable[[str], Awaitable[None]]


def principal(name: str) -> Principal:
    return Principal(id=name, is_operator=True, owner=owner_of("", name))


async def call(application: Application, method: str, params: object, who: Principal) -> dict[str, object]:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    reply = await application.json_rpc.handle(body, RequestContext(principal=who, a2a_version="1.0"))
    answer: dict[str, object] = json.loads(reply.body)
    return answer


async def welch(ask: Ask, one: list[str], other: list[str], samples: int) -> float:
    """t of the times that the two kinds take; so many samples of each."""
    times: tuple[list[float], list[float]] = ([], [])
    kinds = [0, 1] * samples
    random.shuffle(kinds)
    for kind in kinds:
        item = random.choice((one, other)[kind])
        begin = time.perf_counter()
        await ask(item)
        times[kind].append(time.perf_counter() - begin)
    a, b = (sorted(each)[: int(0.95 * samples)] for each in times)
    error = sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    return (statistics.mean(a) - statistics.mean(b)) / error


async def measure(samples: int, key_samples: int, folder: str) -> bool:
    config = Config(database=f"sqlite:///{folder}/access.db")
    application = build(config, registry=ExecutorRegistry())
    await application.start()
    await application.resume()
    session = application.session
    roots, nodes, missing = [], [], []
    for _ in range(FOREIGN_TREES):
        tasks = [{"id": "a", "name": "system_info_executor"}, {"name": "system_info_executor", "parent_id": "a"}]
        plan = session.plan(tasks, owner=owner_of("", "ann"))
        head = (await session.create(plan, Submission(origin="a2a"))).head
        missing.append(session.clock.new_id())  # among the others: where an id lies in the index is no secret
        roots.append(head.id)
        nodes += [task.id for task in await session.storage.children(head.id)]
    results = []
    for method, name in (("GetTask", "id"), ("CancelTask", "id"), ("SubscribeToTask", "id"), ("tasks.get", "task_id")):

        async def ask(task_id: str, method: str = method, name: str = name) -> None:
            await call(application, method, {name: task_id}, principal("bob"))

        results.append((f"{method}: root of another", await welch(ask, roots, missing, samples)))
        results.append((f"{method}: node of another", await welch(ask, nodes, missing, samples)))
    results.append(("keys: right beginning", await key_times(application.keys, key_samples)))
    await application.stop(5)
    for what, t in results:
        print(f"{what:<34} t = {t:+.2f}{'' if abs(t) < MOST else '   DIFFERS'}")
    return all(abs(t) < MOST for _, t in results)


async def key_times(keys: ApiKeys, samples: int) -> float:
    """Keys whose first half is right, against keys with another one.

    Made in turns, and the wrong half is always the same, too: a processor is faster with a text that it has seen.
    """
    _, text = await keys.create(Grant(principal="ann"))
    right, wrong = text[:-32], text[:-64] + secrets.token_hex(16)
    pairs = [(right + secrets.token_hex(16), wrong + secrets.token_hex(16)) for _ in range(FOREIGN_TREES)]
    near, far = ([pair[i] for pair in pairs] for i in (0, 1))

    async def ask(key: str) -> None:
        try:
            await keys.principal(key)
        except BadCredential:
            return
        raise SystemExit("a wrong key was taken")

    return await welch(ask, near, far, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--key-samples", type=int, default=10_000)
    given = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if asyncio.run(measure(given.samples, given.key_samples, folder)) else 1)


if __name__ == "__main__":
    main()
