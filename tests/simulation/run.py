"""Plays one seed from its first life to its end, and judges it."""

import asyncio
import logging
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from core.errors import CallerError, CoreError, LogFolded, StorageUnavailable, TaskNotFound
from core.retention import Retention
from core.runner import RunnerLimits
from core.session import Session
from tests.core.cores import settle
from tests.simulation.judge import judge
from tests.simulation.work import Executors, plan_items
from tests.simulation.world import Crash, Faults, SimulatedLoop, Violation, World

LIMIT = 6  # attempts at a time
MAX_LIVES = 200
CALLERS = 3
HOUR = 3600.0
STUCK = 600.0  # virtual seconds; everything that works ends long before


def simulate(seed: int, *, hours: float = 0.05, faults: Faults | None = None) -> World:
    """The world of that seed after so many virtual hours of callers and faults, and then peace.

    Raises Violation for the first broken promise.
    """
    world = World(seed=seed, faults=faults or Faults())
    executors = Executors(world)
    while not _live(world, executors, until=hours * HOUR):
        if world.life >= MAX_LIVES:
            raise Violation(f"seed {seed} does not come to its end")
    judge(world)
    return world


def _live(world: World, executors: Executors, until: float) -> bool:
    """One life of the server. False when it crashed or was stopped before everything had come to its end."""
    world.life += 1
    world.is_dead = False
    world.running = Counter()
    world.note("life", world.life, world.now)
    loop = SimulatedLoop(world.now)
    main = loop.create_task(_serve(world, executors, until))
    try:
        return loop.run_until_complete(main)
    except BaseExceptionGroup as group:
        raise _innermost(group) from None
    except Crash as crash:
        world.note("crash", str(crash), loop.time())
        return False
    finally:
        world.now = loop.time()
        world.is_dead = True
        _bury(loop)


def _innermost(error: BaseException) -> BaseException:
    """What task groups have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _bury(loop: asyncio.AbstractEventLoop) -> None:
    """Whatever the dead process still had in hand is gone, without a word."""
    for _ in range(3):
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(settle(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.close()


async def _serve(world: World, executors: Executors, until: float) -> bool:
    limits = RunnerLimits(tasks=LIMIT, tree=world.chance.choice([None, 2, 4]))
    session = Session(world.storage, registry=executors.registry, clock=world.clock, limits=limits)
    await session.start()
    await session.resume()
    retention = Retention(world.storage, session.feed, world.clock, world.times)
    retention.start()
    ends_at = until if world.chance.random() < 0.7 else min(until, world.now + world.chance.uniform(5.0, 200.0))
    async with asyncio.TaskGroup() as group:
        followers = group.create_task(_follow_all(world, session))
        try:
            async with asyncio.timeout_at(ends_at):
                await asyncio.gather(*(_call(world, session) for _ in range(CALLERS)))
        except TimeoutError:
            pass
        if ends_at < until:  # SIGTERM: the next life takes up what this one leaves
            await retention.close()
            await session.close(world.chance.choice([0.0, 3.0]))
            followers.cancel()
            return False
        world.is_calm = True
        await asyncio.sleep(1)  # what is on its way to the disk arrives
        for tree_id in world.storage.trees_stored():
            with suppress(TaskNotFound):  # it was dropped
                await _come_to_an_end(world, session, tree_id)
        await asyncio.sleep(60)  # what was interrupted comes to its end, and the followers catch up
        followers.cancel()
        await retention.close()
    _check_nothing_is_left(world, session)
    await session.close()
    return True


def _check_nothing_is_left(world: World, session: Session) -> None:
    runner = session.runner
    counts = (runner._running, len(runner._queue), len(runner._starting), len(runner._attempts))
    books = (runner._in_lane.total(), runner._in_tree.total(), runner._processes, len(runner._never_begun))
    if any(counts) or any(books) or session.orchestrator._trees:
        raise Violation(f"the runner still holds something at the end of seed {world.seed}: {counts} {books}")
    if world.most_running > LIMIT:
        raise Violation(f"{world.most_running} attempts worked at a time, and {LIMIT} may (seed {world.seed})")


# Callers


async def _call(world: World, session: Session) -> None:
    """One caller, who does one thing after the other until his time is over."""
    orders = (_create, _create, _cancel, _execute, _answer, _answer)
    while True:
        await asyncio.sleep(world.chance.expovariate(0.1))
        order: Callable[[World, Session], Awaitable[None]] = world.chance.choice(orders)
        with suppress(CallerError, StorageUnavailable):
            await order(world, session)


async def _create(world: World, session: Session) -> None:
    plan = session.plan(plan_items(world.chance))
    world.plans[plan.root_id] = plan
    await session.create(plan, execute=world.chance.random() < 0.9)
    world.acknowledged[plan.root_id] = world.clock.now()


async def _cancel(world: World, session: Session) -> None:
    tree_id, task_id = await _any_task(world, session)
    result = await session.cancel(task_id, force=world.chance.random() < 0.3)
    at, run = world.clock.now(), result.head.run
    tree = await session.orchestrator.load(tree_id)
    if slow := [each for each in result.still_running if tree.tasks[each].executor != "stubborn"]:
        raise Violation(f"{slow} went on working after their cancel\n{world.story(tree_id)}")
    spared = {*result.not_cancelable, *result.still_running}
    for each in tree.subtree(task_id):
        if each not in spared and tree.run == run and tree.tasks[each].status.is_terminal:
            world.stopped[each] = (at, run)


async def _execute(world: World, session: Session) -> None:
    _, task_id = await _any_task(world, session)
    await session.execute(task_id, force=world.chance.random() < 0.3)


async def _answer(world: World, session: Session) -> None:
    waiting = [
        tree_id for tree_id in world.storage.trees_stored() if world.storage.head_stored(tree_id).status.is_interrupted
    ]
    if waiting:
        await session.provide_input(world.chance.choice(waiting), "Ada", {"messageId": "m"})


async def _any_task(world: World, session: Session) -> tuple[str, str]:
    """A tree that has lately been created, and its root or any of its tasks."""
    trees = world.storage.trees_stored()[-12:]
    if not trees:
        raise TaskNotFound("none")
    tree_id = world.chance.choice(trees)
    tasks = [task.id for task in world.plans[tree_id].tasks]
    return tree_id, world.chance.choice([tree_id, world.chance.choice(tasks)])


async def _follow_all(world: World, session: Session) -> None:
    """A follower for every tree as soon as there is one; each goes on where the one of the life before was cut."""
    async with asyncio.TaskGroup() as group:
        known: set[str] = set()
        while True:
            for tree_id in world.storage.trees_stored():
                if tree_id not in known:
                    known.add(tree_id)
                    group.create_task(_follow(world, session, tree_id))
            await asyncio.sleep(0.5)


async def _follow(world: World, session: Session, tree_id: str) -> None:
    seen = world.seen.setdefault(tree_id, [])
    after = max([seen[-1].seq if seen else 0, *(until for name, _, until in world.skipped if name == tree_id)])
    if not seen and world.chance.random() < 0.1:
        await asyncio.sleep(world.chance.uniform(0.0, 60.0))  # he comes late
    try:
        async for recorded in session.follow(tree_id, after):
            seen.append(recorded)
            after = recorded.seq
            if world.chance.random() < 0.05:
                await asyncio.sleep(world.chance.uniform(0.0, 2.0))  # a slow reader
    except LogFolded as gap:
        world.skipped.append((tree_id, after, gap.until))
        await _follow(world, session, tree_id)


async def _come_to_an_end(world: World, session: Session, tree_id: str) -> None:
    """Answer whatever is asked until the tree's run is over."""
    try:
        async with asyncio.timeout(STUCK):
            while True:
                head = await session.wait(tree_id, lambda head: not head.is_live or head.status.is_interrupted)
                if not head.is_live:
                    return
                with suppress(CoreError):
                    await session.provide_input(tree_id, "Ada", {"messageId": "m"})
                await asyncio.sleep(1)
    except TimeoutError:
        raise Violation(f"a live tree is stuck\n{world.story(tree_id)}") from None


def silence() -> None:
    """The core's own log would tell of every fault; here the story of a tree is what counts."""
    logging.getLogger("core").setLevel(logging.CRITICAL)
