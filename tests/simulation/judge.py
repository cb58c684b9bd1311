"""What must hold of a simulated world when everything has come to its end (reliability G2, G3, G5, G6).

The log is read as an outsider reads it: nothing here asks the core what it thinks of itself.
"""

from collections import Counter, defaultdict

from msgspec.structs import replace

from core.model import events as e
from core.model.decide import MAX_CRASHES
from core.model.events import Recorded
from core.model.task import Cause, On, Task, TaskStatus
from core.model.tree import TaskTree
from tests.simulation.judge_webhooks import judge_late_calls, judge_webhooks
from tests.simulation.work import sum_of
from tests.simulation.world import Violation, World

ENDS = e.TaskCompleted | e.TaskSkipped | e.TaskFailed | e.TaskCancelled | e.TaskRejected | e.GroupEnded


def judge(world: World) -> None:
    """Raise Violation, with the story of the tree, for the first promise that was broken."""
    judge_so_far(world)
    for tree_id in world.acknowledged:
        _require(tree_id in world.storage.trees_stored(), world, tree_id, "an acknowledged tree is lost")
    for tree_id in world.storage.trees_stored():
        judge_tree(world, tree_id, is_over=True)
    for hook in world.ledger.past(float("inf")):
        judge_late_calls(world, hook)


def judge_so_far(world: World) -> None:
    """What was seen that must not be, and the trees that are no more, which are forgotten then."""
    if world.broken:
        raise Violation(f"{world.broken[0]} (seed {world.seed})")
    for tree_id in list(world.storage.gone):
        judge_tree(world, tree_id, is_over=False)
        world.forget(tree_id)


def judge_tree(world: World, tree_id: str, *, is_over: bool) -> None:
    """One tree that is at rest. `is_over`: its followers and webhooks must have caught up."""
    log = list(world.storage.log(tree_id))
    try:
        _judge_log(world, tree_id, log)
        _judge_kept(world, tree_id, log)
        _judge_effects(world, log)
        _judge_follower(world, tree_id, log, is_over=is_over)
        judge_webhooks(world, tree_id, log, is_over=is_over)
    except Violation as violation:
        raise Violation(f"{violation}\n{world.story(tree_id)}") from None


def _require(holds: object, world: World, tree_id: str, what: str) -> None:
    if not holds:
        raise Violation(f"{what} (tree {tree_id}, seed {world.seed})")


def _judge_log(world: World, tree_id: str, log: list[Recorded]) -> None:
    """The log, event by event on a second tree: it is legal, and it tells what is stored."""
    plan = world.plans[tree_id]
    tree = TaskTree(world.storage.first_heads[tree_id], plan.tasks)
    history = _History()
    for n, recorded in enumerate(log, 1):
        _require(recorded.seq == n, world, tree_id, f"event {n} has the number {recorded.seq}")
        _require(n == 1 or recorded.at >= log[n - 2].at, world, tree_id, "time goes backwards in the log")
        history.look(tree, recorded.event)
        tree.apply(recorded.event, recorded.at)
        _require(recorded.tree_status is tree.status, world, tree_id, f"event {n} tells another status")
    tree.check()
    kept = world.storage.kept(tree_id)
    stored = {task.id: task for task in kept.tasks}
    _require(tree.tasks == stored, world, tree_id, "the log and the rows tell different stories")
    head, stored_head = tree.head, kept.head
    # A tree that was loaded adds its progress up anew, so the last digits may differ.
    is_near = abs(head.progress - stored_head.progress) < 1e-9
    _require(
        is_near and replace(head, progress=stored_head.progress) == stored_head, world, tree_id, "the head differs"
    )
    _require(not tree.is_live, world, tree_id, "the tree never ended")


class _History:
    """What must not happen between two events of one tree."""

    def __init__(self) -> None:
        self._ended: set[str] = set()  # in the present run
        self._attempts: set[tuple[str, int]] = set()
        self._failures: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._sums: dict[str, str] = {}  # of what was stored when it started

    def look(self, tree: TaskTree, event: e.Event) -> None:
        match event:
            case e.RunStarted():
                again = tree.tasks if event.scope is None else event.scope
                self._ended.difference_update(again)
                for task_id in again:
                    del self._failures[task_id], self._crashes[task_id]
            case e.TaskStarted():
                self._started(tree, tree.tasks[event.task_id], event)
            case e.TaskCompleted() if event.task_id in self._sums:
                if event.result != self._sums.pop(event.task_id):
                    raise Violation(f"the result of task {event.task_id} is not of what its dependencies returned")
            case e.TaskSkipped():
                _judge_skip(tree, tree.tasks[event.task_id])
            case e.AttemptFailed():
                self._failures[event.task_id] += 1
            case e.AttemptLost():
                self._crashes[event.task_id] += event.crash and event.alone
                if self._crashes[event.task_id] >= MAX_CRASHES:
                    raise Violation("a poisonous task was given one more attempt")
            case e.TreeFinished():
                if any(tree.is_open(task_id) for task_id in tree.tasks):
                    raise Violation("the run ended before its tasks")
        if isinstance(event, ENDS):
            if event.task_id in self._ended:
                raise Violation(f"the end of task {event.task_id} was overwritten")
            self._ended.add(event.task_id)
        speaks = isinstance(event, e.TaskProgressed | e.ArtifactAdded | e.MessageSent | e.InputRequested)
        if speaks and (event.task_id in self._ended or not tree.tasks[event.task_id].is_running):
            raise Violation(f"task {event.task_id} spoke when it did not run")

    def _started(self, tree: TaskTree, task: Task, event: e.TaskStarted) -> None:
        for dependency in task.dependencies:
            if not tree.tasks[dependency.id].status.is_terminal:
                raise Violation(f"task {task.id} started before {dependency.id} was done")
            if not lets_run(dependency.on, tree.tasks[dependency.id]):
                raise Violation(f"task {task.id} started although {dependency.id} ended otherwise")
        if (task.id, event.attempt) in self._attempts:
            raise Violation(f"attempt {event.attempt} of task {task.id} started twice")
        if self._failures[task.id] >= task.max_attempts:
            raise Violation(f"task {task.id} was given one attempt too many")
        self._attempts.add((task.id, event.attempt))
        if task.executor == "sum":
            needs = [tree.tasks[each.id] for each in task.dependencies]
            self._sums[task.id] = sum_of(
                {
                    it.key: it.result
                    for it in needs
                    if it.status is TaskStatus.COMPLETED and it.cause is not Cause.SKIPPED
                }
            )


def lets_run(on: On, end: Task) -> bool:
    """The rule of `on`, said once more: a skip is a completion that nobody's success follows from."""
    if on is On.FAILURE:
        return end.status is not TaskStatus.COMPLETED
    return on is On.ANY or (end.status is TaskStatus.COMPLETED and end.cause is not Cause.SKIPPED)


def _judge_skip(tree: TaskTree, task: Task) -> None:
    ends = [(each.on, tree.tasks[each.id]) for each in task.dependencies]
    if not all(end.status.is_terminal for _, end in ends):
        raise Violation(f"task {task.id} was skipped before its dependencies had ended")
    if all(lets_run(on, end) for on, end in ends):
        raise Violation(f"task {task.id} was skipped although it was to run")


def _judge_effects(world: World, log: list[Recorded]) -> None:
    """The ledger against the log: who touched the world, how often, and not after it was told to stop."""
    starts: dict[tuple[str, int], float] = {}
    runs: dict[tuple[str, int], int] = {}
    run = 0
    for recorded in log:
        match recorded.event:
            case e.RunStarted():
                run = recorded.event.run
            case e.TaskStarted() as started:
                starts[started.task_id, started.attempt] = world.storage.stored_at[recorded.tree_id, recorded.seq]
                runs[started.task_id, started.attempt] = run
    seen: defaultdict[tuple[str, bool], set[int]] = defaultdict(set)
    tree_tasks = {task_id for task_id, _ in starts}
    for effect in world.effects:
        if effect.task_id not in tree_tasks:
            continue
        attempt = (effect.task_id, effect.attempt)
        if attempt not in starts or effect.at < starts[attempt]:
            raise Violation(f"an effect of {effect.key} came before its attempt was stored")
        if effect.key != f"{effect.task_id}:{runs[attempt]}":
            raise Violation(f"the idempotency key {effect.key} is not that of run {runs[attempt]}")
        if effect.at_most_once and seen[effect.key, True]:
            raise Violation(f"the effect of {effect.key} happened twice, and must at most once")
        seen[effect.key, effect.at_most_once].add(effect.attempt)
        stopped_at, stopped_run = world.stopped.get(effect.task_id, (float("inf"), 0))
        if stopped_run == runs[attempt] and effect.at > stopped_at:
            raise Violation(f"an effect of {effect.key} came after its cancel was confirmed")


SAID = ENDS | e.MessageReceived | e.MessageSent | e.TreeCancelled


def _judge_kept(world: World, tree_id: str, log: list[Recorded]) -> None:
    """What remains of a compacted log tells what was said and made, and how everything ended; the rest is as it was."""
    kept = world.storage.kept(tree_id)
    gone, rest = log[: kept.compacted], log[kept.compacted :]
    before = [each for each in kept.events if each.seq <= kept.compacted]
    lasting = [each for each in gone if isinstance(each.event, SAID)]
    _require(rest, world, tree_id, "the end of the log is compacted")
    _require(kept.events[len(before) :] == rest, world, tree_id, "what is not compacted is not there any more")
    _require([each for each in before if isinstance(each.event, SAID)] == lasting, world, tree_id, "an end is lost")
    _require(_made(before) == _made(gone), world, tree_id, "a piece of an artifact is lost")


def _made(log: list[Recorded]) -> dict[tuple[str, str], list[object]]:
    """The parts of each artifact, in order."""
    made: defaultdict[tuple[str, str], list[object]] = defaultdict(list)
    for recorded in log:
        if isinstance(recorded.event, e.ArtifactAdded):
            made[recorded.task_id, recorded.event.artifact.artifact_id] += recorded.event.artifact.parts
    return made


def _judge_follower(world: World, tree_id: str, log: list[Recorded], *, is_over: bool) -> None:
    """The follower got everything, but for what it was told to be compacted."""
    skipped = world.skipped.get(tree_id, [])
    compacted = world.storage.kept(tree_id).compacted
    _require(all(after < until <= compacted for after, until in skipped), world, tree_id, "a follower was sent away")
    log = [each for each in log if not any(after < each.seq <= until for after, until in skipped)]
    seen = world.seen.get(tree_id)
    if seen is not None and seen != (log if is_over else log[: len(seen)]):
        got = [recorded.seq for recorded in seen]
        raise Violation(f"the follower got the events {got}, and the log has {len(log)}")
