"""What simulated callers ask for, and the executors that do it. Everything comes from the world's one seed."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from core.executors.base import ExecutorSpec, Rejected, TaskContext
from core.executors.registry import ExecutorRegistry
from tests.simulation.world import Effect, World

Work = Callable[[dict[str, Any], TaskContext], Awaitable[Any]]

NARROW = 3  # attempts of the executor `narrow` that may run at a time
PATIENCE = 40.0  # virtual seconds; the longest that anything works without a timeout


ENDS = ("success",) * 14 + ("any",) * 3 + ("failure",) * 3  # of a dependency, by their frequency
NAMES = ("nap", "narrow", "flaky", "hang", "ask", "stream", "effect", "once", "stubborn", "no", "draw", "sum")


def sum_of(results: Mapping[str, Any]) -> str:
    """In short, what a task of the executor `sum` was given."""
    return sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:16]


def plan_items(chance: random.Random, largest: int) -> list[dict[str, Any]]:
    """A tree of fewer tasks than `largest`, some groups, edges of each kind, retries, timeouts."""
    size = chance.randrange(1, largest)
    items: list[dict[str, Any]] = [{"id": "root", "name": "root" if size > 1 or chance.random() < 0.5 else "nap"}]
    if items[0]["name"] == "nap":
        return [items[0] | {"inputs": {"seconds": 1}}]
    groups = ["root"]
    for n in range(size):
        parent = chance.choice(groups)
        item: dict[str, Any] = {"id": f"t{n}", "parent_id": parent, "priority": chance.randrange(4)}
        item |= _kind(chance)
        tasks = [each for each in items if each["id"].startswith("t")]
        needs = chance.sample(tasks, min(len(tasks), chance.choice([0, 0, 1, 1, 2, 3])))
        item["dependencies"] = [{"id": each["id"], "on": chance.choice(ENDS)} for each in needs]
        items.append(item)
        if chance.random() < 0.15 and n + 1 < size:
            groups.append(f"g{n}")
            items.append({"id": f"g{n}", "name": f"group {n}", "parent_id": parent})
            items.append({"id": f"t{n}.g", "parent_id": f"g{n}", "dependencies": [], **_kind(chance)})
    return items


def _kind(chance: random.Random) -> dict[str, Any]:
    name = chance.choice(["nap", *NAMES])
    item: dict[str, Any] = {"name": name, "inputs": {"seconds": round(chance.uniform(0.0, 8.0), 3)}}
    if name == "flaky":
        item |= {"max_attempts": chance.randrange(1, 4), "retry": {"initial": chance.choice([0.1, 2.0])}}
    if name == "hang" or chance.random() < 0.15:
        item["timeout"] = round(chance.uniform(0.5, 6.0), 3)
    return item


class Executors:
    """The executors of a world; they live on in every life, and report what they do to the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.registry = ExecutorRegistry()
        for work in (self.nap, self.narrow, self.flaky, self.hang, self.ask, self.stream, self.effect, self.no):
            self._add(work)
        self._add(self.draw, has_effects=False)
        self._add(self.sum, has_effects=False)
        self._add(self.once, at_most_once=True)
        self._add(self.stubborn, cancelable=False)

    def _add(self, work: Work, **declared: bool) -> None:
        world, name = self._world, work.__name__
        concurrency = NARROW if name == "narrow" else None

        class Watched:
            async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
                life = world.life
                if world.is_dead:
                    await asyncio.get_running_loop().create_future()
                world.running[name] += 1
                world.running[context.task_id] += 1
                world.most_running = max(world.most_running, sum(world.running[each] for each in NAMES))
                if world.running[context.task_id] > 1:
                    world.broken.append(f"two attempts of task {context.task_id} worked at a time")
                if world.running["narrow"] > NARROW:
                    world.broken.append("an executor worked more often at a time than it may")
                try:
                    return await work(inputs, context)
                finally:
                    if world.life == life:
                        world.running[name] -= 1
                        world.running[context.task_id] -= 1

        self.registry.register(ExecutorSpec(id=name, make=Watched, concurrency=concurrency, **declared))

    def _touch(self, context: TaskContext) -> None:
        """Something happens in the outside world, unless the process that wants it is dead."""
        world = self._world
        if world.is_dead:
            return
        effect = Effect(
            task_id=context.task_id,
            key=context.idempotency_key,
            attempt=context.attempt,
            at=world.clock.now(),
            life=world.life,
            at_most_once=context.at_most_once,
        )
        world.effects.append(effect)
        world.note("effect", effect.key, effect.attempt, effect.at)

    async def nap(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.sleep(inputs["seconds"])
        return {"slept": inputs["seconds"]}

    async def narrow(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.sleep(inputs["seconds"])

    async def flaky(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        self._touch(context)
        await asyncio.sleep(inputs["seconds"] / 4)
        if self._world.chance.random() < 0.5:
            raise RuntimeError("flaky")

    async def hang(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.sleep(PATIENCE)

    async def ask(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return [await context.ask("first?"), await context.ask("second?", auth=self._world.chance.random() < 0.2)]

    async def stream(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        for n in range(3):
            await context.artifact(f"piece {n} ", last_chunk=n == 2)
            await context.progress((n + 1) / 3, f"piece {n}")
            await asyncio.sleep(inputs["seconds"] / 6)

    async def effect(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        for _ in range(2):
            self._touch(context)
            await asyncio.sleep(inputs["seconds"] / 4)
        self._touch(context)
        return "done"

    async def draw(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        """Never the same twice, so that what was worked out from a forgotten result shows."""
        if self._world.chance.random() < 0.3:
            await asyncio.sleep(inputs["seconds"] / 4)
        return self._world.chance.random()

    async def sum(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        if self._world.chance.random() < 0.3:
            await context.progress(0.5)
        if self._world.chance.random() < 0.3:
            await asyncio.sleep(inputs["seconds"] / 4)
        return sum_of(context.dependencies)

    async def once(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        self._touch(context)
        await asyncio.sleep(inputs["seconds"] / 4)
        return "done once"

    async def stubborn(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(inputs["seconds"] / 2)
        return "not to be stopped"

    async def no(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        if self._world.chance.random() < 0.5:
            raise Rejected("no")
        return {"success": False, "message": "no"}
