"""Plays one seed from its first life to its end, and judges it."""

import asyncio
import logging
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from a2a_server.protocol.errors import InvalidParams
from a2a_server.push.webhooks import Webhooks
from core.model.commands import ProvideInput
from core.model.content import Part, Said
from core.model.errors import CallerError, CoreError, LogCompacted, StorageUnavailable, TaskNotFound
from core.model.plan import Plan
from core.run.retention import Retention
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from tests.core.cores import settle
from tests.simulation.judge import judge, judge_so_far
from tests.simulation.judge_webhooks import judge_late_calls
from tests.simulation.webhooks import PATIENCE, enroll_with_tree, make_webhooks, register, unregister
from tests.simulation.work import Executors, plan_items
from tests.simulation.world import Crash, Faults, Pace, SimulatedLoop, Violation, World

LOGGERS = ("core", "a2a_server")
MESSAGE = Said((Part(text="Ada"),), message_id="m")
HOUR = 3600.0
MANY_TURNS = 1_000
LONGEST_OUTAGE = 60.0  # virtual seconds between two lives
STUCK = 600.0  # virtual seconds; everything that works ends long before
SWEEP = 10.0  # virtual seconds between two looks for trees that are over
LONGEST_WAIT = 2 * PATIENCE.longest  # virtual seconds after which a webhook's reader has noticed that its tree is gone


class Server:
    """One process: a core, and the outbox and retention beside it, wired as in `a2a_server.app`."""

    def __init__(self, world: World, executors: Executors) -> None:
        limits = RunnerLimits(tasks=world.pace.attempts, tree=world.chance.choice([None, 2, 4]))
        self.world = world
        self.session = Session(world.storage, registry=executors.registry, clock=world.clock, limits=limits)
        self.webhooks: Webhooks = make_webhooks(world, self.session)
        self.retention = Retention(
            world.storage, self.session.feed, self.session.clock, world.times, self.webhooks.outbox.scanner.unread
        )

    async def start(self) -> None:
        await self.session.start()
        await self.session.resume()
        self.webhooks.outbox.start()
        self.retention.start()

    async def close(self, grace: float) -> None:
        self.session.feed.close()
        await self.retention.close()
        await self.session.close(grace)
        await self.webhooks.outbox.close()


class Probe(Protocol):
    """Who looks on."""

    def begin(self, server: Server) -> None: ...

    def tick(self, server: Server) -> None: ...

    def end(self, server: Server) -> None: ...


def simulate(
    seed: int,
    *,
    hours: float = 0.05,
    faults: Faults | None = None,
    pace: Pace | None = None,
    probe: Probe | None = None,
) -> World:
    """The world of that seed after so many virtual hours of callers and faults, and then peace.

    Raises Violation for the first broken promise.
    """
    world = World(seed=seed, faults=faults or Faults(), pace=pace or Pace())
    executors = Executors(world)
    while not _live(world, executors, probe, until=hours * HOUR):
        if world.life >= world.pace.lives:
            raise Violation(f"seed {seed} does not come to its end")
        if world.chance.random() < 0.3:
            world.now += world.chance.uniform(0.0, LONGEST_OUTAGE)  # much is due when the next life begins
    return world


def _live(world: World, executors: Executors, probe: Probe | None, until: float) -> bool:
    """One life of the server. False when it crashed or was stopped before everything had come to its end."""
    world.life += 1
    world.is_dead = False
    world.running = Counter()
    world.note("life", world.life, world.now)
    loop = SimulatedLoop(world.now)
    main = loop.create_task(_serve(world, executors, probe, until))
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
    """Whatever the dead process still held is gone, without a word."""
    for _ in range(MANY_TURNS):  # jobs of the outbox that end make room for others
        left = asyncio.all_tasks(loop)
        if not left:
            break
        for task in left:
            task.cancel()
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(settle(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loop.close()


async def _serve(world: World, executors: Executors, probe: Probe | None, until: float) -> bool:
    server = Server(world, executors)
    session = server.session
    await server.start()
    if probe is not None:
        probe.begin(server)
    ends_at = until if world.chance.random() < 0.7 else min(until, world.now + world.chance.uniform(5.0, 200.0))
    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(_follow_all(world, session)), group.create_task(_sweep(server, probe))]
        callers = [group.create_task(_call(server, ends_at)) for _ in range(world.pace.callers)]
        await asyncio.sleep(max(0.0, ends_at - asyncio.get_running_loop().time()))
        if ends_at < until:  # SIGTERM: the next life resumes what this one leaves
            await server.close(world.chance.choice([0.0, 3.0]))
            for each in (*watchers, *callers):
                each.cancel()
            return False
        world.is_calm = True
        await server.retention.close()  # who follows a tree is to see its end
        await asyncio.wait(callers)
        await asyncio.sleep(1)  # what is on its way to the disk arrives
        for tree_id in world.storage.trees_stored():
            await _come_to_an_end(world, session, tree_id)
        await asyncio.sleep(60)  # what was interrupted comes to its end, and the followers catch up
        await _all_is_told(server)
        for watcher in watchers:
            watcher.cancel()
    _check_nothing_is_left(server)
    judge(world)
    await _retire(server)
    if world.pace.clears:
        await _clear(server)
    if probe is not None:
        probe.end(server)
    await server.close(10.0)
    return True


async def _all_is_told(server: Server) -> None:
    """Wait until the webhooks have nothing to do, but for those of trees that are never started."""
    outbox = server.webhooks.outbox
    for _ in range(int(STUCK)):
        schedule = outbox.schedule
        due = [each for each in schedule.due if schedule.waiting(each) is not None]
        waiting = [schedule.shares.waiting, schedule.jobs, due, outbox.scanner.jobs]
        heads = [await server.session.storage.head(tree_id) for tree_id in outbox.readers.trees()]
        if not any(waiting) and not any(head is None or has_ended(head) for head in heads):
            return
        await asyncio.sleep(1)
    raise Violation(f"the webhooks never come to rest: {outbox.readers.trees()} {waiting} (seed {server.world.seed})")


def _check_nothing_is_left(server: Server) -> None:
    world, runner = server.world, server.session.runner
    counts = (
        runner.books.room.slots.used,
        runner.books.queue.waiting,
        len(runner.books.starting),
        len(runner.books.attempts),
    )
    room = runner.books.room
    lanes = (len(room.in_lane), len(room.held_in_lane))
    books = (*lanes, len(room.in_tree), room.threads.used, room.processes.used, len(runner.books.never_begun))
    if any(counts) or any(books) or server.session.orchestrator.trees.by_id:
        raise Violation(f"the runner still holds something at the end of seed {world.seed}: {counts} {books}")
    if server.webhooks._locks:
        raise Violation(f"locks of webhooks are left at the end of seed {world.seed}")
    if world.most_running > world.pace.attempts:
        text = f"{world.most_running} attempts worked at a time, and {world.pace.attempts} may"
        raise Violation(f"{text} (seed {world.seed})")


# Callers


async def _call(server: Server, ends_at: float) -> None:
    """One caller, who does one thing after the other until its time is over."""
    world = server.world
    orders: tuple[Callable[[Server], Awaitable[None]], ...] = (
        _create, _create, _create, _cancel, _execute, _answer, _answer, _answer, _register, _unregister,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(world.chance.expovariate(1 / world.pace.pause))
        if loop.time() >= ends_at:
            return
        with suppress(CallerError, StorageUnavailable, InvalidParams):
            await world.chance.choice(orders)(server)
        server.session.runner.check()


async def _create(server: Server) -> None:
    world, session = server.world, server.session
    plan = session.plan(plan_items(world.chance, world.pace.largest))
    world.plans[plan.root_id] = plan
    try:
        await _store_tree(server, plan)
    except StorageUnavailable:
        del world.plans[plan.root_id]
        raise


async def _store_tree(server: Server, plan: Plan) -> None:
    world, session = server.world, server.session
    enrolled = enroll_with_tree(world, server.webhooks, plan.root_id) if world.chance.random() < 0.6 else None
    documents = enrolled.documents if enrolled is not None else ()
    await session.create(plan, execute=world.chance.random() < 0.9, documents=documents)
    if enrolled is not None:
        server.webhooks.enroll(enrolled)
    world.acknowledged[plan.root_id] = world.clock.now()


async def _register(server: Server) -> None:
    await register(server.world, server.webhooks, *await _any_task(server))


async def _unregister(server: Server) -> None:
    tree_id = (await _any_task(server))[0]
    known = [hook.config for hook in server.world.ledger.of_tree(tree_id) if hook.config is not None]
    if known:
        await unregister(server.world, server.webhooks, tree_id, server.world.chance.choice(known).task_id)


async def _cancel(server: Server) -> None:
    world, session = server.world, server.session
    tree_id, task_id = await _any_task(server)
    result = await session.cancel(task_id, force=world.chance.random() < 0.3)
    at, run = world.clock.now(), result.head.run
    tree = await session.orchestrator.trees.load(tree_id)
    if slow := [each for each in result.still_running if tree.tasks[each].executor != "stubborn"]:
        raise Violation(f"{slow} went on working after their cancel\n{world.story(tree_id)}")
    spared = {*result.not_cancelable, *result.still_running}
    for each in tree.subtree(task_id):
        if each not in spared and tree.run == run and tree.tasks[each].status.is_terminal:
            world.stopped[each] = (at, run)


async def _execute(server: Server) -> None:
    _, task_id = await _any_task(server)
    await server.session.execute(task_id, force=server.world.chance.random() < 0.3)


async def _answer(server: Server) -> None:
    world = server.world
    waiting = [
        tree_id for tree_id in world.storage.trees_stored() if world.storage.head_stored(tree_id).status.is_interrupted
    ]
    if waiting:
        await server.session.provide_input(ProvideInput(world.chance.choice(waiting), "Ada", MESSAGE))


async def _any_task(server: Server) -> tuple[str, str]:
    """A tree that has lately been created, and its root or any of its tasks."""
    world = server.world
    trees = world.storage.trees_stored()[-12:]
    if not trees:
        raise TaskNotFound("none")
    tree_id = world.chance.choice(trees)
    tasks = [task.id for task in world.plans[tree_id].tasks]
    return tree_id, world.chance.choice([tree_id, world.chance.choice(tasks)])


# What goes on beside them


async def _sweep(server: Server, probe: Probe | None) -> None:
    """Delete the trees that have been over for a while, and judge those that are gone."""
    world = server.world
    world.ledger.drop_unstored()
    judge_so_far(world)
    for plan_id in [each for each in world.plans if each not in world.storage.trees_stored()]:
        del world.plans[plan_id]  # it died before it had been stored
    while True:
        await asyncio.sleep(SWEEP)
        for tree_id in world.storage.trees_stored() if not world.is_calm else ():
            head = world.storage.head_stored(tree_id) if world.storage.has_tree(tree_id) else None
            if head is not None and not head.is_live and world.clock.now() - head.updated_at >= world.pace.keep:
                with suppress(CallerError, StorageUnavailable):
                    await server.session.delete(tree_id)
        server.session.runner.check()
        judge_so_far(world)
        _judge_late_calls(world)
        world.ledger.drop_unstored(before=world.clock.now() - 60)
        if probe is not None:
            probe.tick(server)


async def _retire(server: Server) -> None:
    """Now that everything has come to its end, retention has no reason to leave anything that has a time."""
    world, storage = server.world, server.world.storage
    await asyncio.sleep(max(world.times.compact_after or 0.0, world.times.drop_after or 0.0))
    await server.retention.round()
    judge_so_far(world)
    for tree_id in storage.trees_stored():
        kept = storage.kept(tree_id)
        is_compacted = world.times.compact_after is None or kept.compacted == kept.head.version - 1
        if kept.head.status.is_terminal and (world.times.drop_after is not None or not is_compacted):
            raise Violation(f"retention has left what is due\n{world.story(tree_id)}")
    if not storage.is_swept:
        raise Violation(f"logs of dropped trees are left (seed {world.seed})")


async def _clear(server: Server) -> None:
    """Delete whatever is left, and wait until everybody has noticed."""
    world = server.world
    for tree_id in world.storage.trees_stored():
        await server.session.delete(tree_id)
    judge_so_far(world)
    await asyncio.sleep(LONGEST_WAIT + 60)  # and the runner's last alarm
    for hook in world.ledger.past(float("inf")):
        judge_late_calls(world, hook)
        world.ledger.forget(hook)


def _judge_late_calls(world: World) -> None:
    """A deleted tree's webhooks are watched until the longest wait of any of them is over."""
    for hook in world.ledger.past(world.clock.now() - LONGEST_WAIT):
        judge_late_calls(world, hook)
        world.ledger.forget(hook)


async def _follow_all(world: World, session: Session) -> None:
    """A follower for every tree as soon as there is one; each goes on where the one of the life before was cut."""
    async with asyncio.TaskGroup() as group:
        known: set[str] = set()
        while True:
            stored = world.storage.trees_stored()
            known.intersection_update(stored)
            for tree_id in stored:
                if tree_id not in known:
                    known.add(tree_id)
                    group.create_task(_follow(world, session, tree_id))
            await asyncio.sleep(0.5)


async def _follow(world: World, session: Session, tree_id: str) -> None:
    if tree_id not in world.seen and world.chance.random() < 0.1:
        await asyncio.sleep(world.chance.uniform(0.0, 60.0))  # it comes late
        if not world.storage.has_tree(tree_id):
            return
    seen, skipped = world.seen.setdefault(tree_id, []), world.skipped.setdefault(tree_id, [])
    while True:
        after = max(seen[-1].seq if seen else 0, skipped[-1][1] if skipped else 0)
        try:
            async for recorded in session.follow(tree_id, after):
                seen.append(recorded)
                after = recorded.seq
                if world.chance.random() < 0.05:
                    await asyncio.sleep(world.chance.uniform(0.0, 2.0))  # a slow reader
        except LogCompacted as gap:
            skipped.append((after, gap.until))
            world.note("sent away", tree_id, after, gap.until)
        else:
            return


async def _come_to_an_end(world: World, session: Session, tree_id: str) -> None:
    """Answer whatever is asked until the tree's run is over."""
    try:
        async with asyncio.timeout(STUCK):
            while True:
                head = await session.wait(tree_id, lambda head: not head.is_live or head.status.is_interrupted)
                if not head.is_live:
                    return
                with suppress(CoreError):
                    await session.provide_input(ProvideInput(tree_id, "Ada", MESSAGE))
                await asyncio.sleep(1)
    except TaskNotFound:  # deleted meanwhile
        return
    except TimeoutError:
        raise Violation(f"a live tree is stuck\n{world.story(tree_id)}") from None


def silence() -> None:
    """The log would tell of every fault; here the story of a tree is what counts."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
