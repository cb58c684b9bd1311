"""A hypothesis state machine that plays whole trees against the pure core and a simple model of what must hold."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from core.model import commands as c
from core.model import decide as decide_module
from core.model import events as e
from core.model.errors import CoreError, StaleAttempt
from core.model.graph import check_graph
from core.model.queue import ReadyQueue
from core.model.retry import RetryPolicy
from core.model.room import Room, RoomLimits
from core.model.task import Cause, Dependency, On, Task, TaskStatus, TreeHead
from core.model.tree import TaskTree
from tests.core.contents import texts
from tests.core.trees import NOW


def _above(parents: list[int | None], n: int) -> set[int]:
    found: set[int] = set()
    while (parent := parents[n]) is not None:
        found.add(parent)
        n = parent
    return found


def _lets_run(on: On, end: Task) -> bool:
    """The rule of `on`, said once more: a skip is a completion that nobody's success follows from."""
    if on is On.FAILURE:
        return end.status in (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.REJECTED)
    return on is On.ANY or (end.status is TaskStatus.COMPLETED and end.cause is not Cause.SKIPPED)


@st.composite
def plans(draw: st.DrawFn) -> list[Task]:
    """A valid tree of up to nine tasks: groups, required and optional dependencies, priorities, retries."""
    size = draw(st.integers(1, 8))
    parents = [None] + [draw(st.integers(0, n - 1)) for n in range(1, size + 1)]
    inner = {p for p in parents if p is not None}
    tasks = []
    for n, parent in enumerate(parents):
        is_group = n in inner and draw(st.booleans())
        above = _above(parents, n)  # a dependency on one's own group would be a cycle
        choices = [i for i in range(n) if i not in above]
        # Edges are what the rules are about, so every second task has one at least.
        fewest = min(len(choices), n % 2)
        needs = (
            draw(st.dictionaries(st.sampled_from(choices), st.sampled_from(On), min_size=fewest, max_size=3))
            if choices
            else {}
        )
        tasks.append(
            Task(
                id=f"t{n}",
                tree_id="t0",
                name=f"t{n}",
                position=n,
                parent_id=None if parent is None else f"t{parent}",
                executor=None if is_group else "work",
                priority=draw(st.integers(0, 3)),
                max_attempts=1 if is_group else draw(st.sampled_from([1, 1, 2, 3])),
                retry=RetryPolicy() if is_group else RetryPolicy(initial=1, jitter=0),
                timeout=draw(st.sampled_from([None, None, 7.0])) if is_group else None,
                queue_timeout=None if is_group else draw(st.sampled_from([None, None, None, 3.0])),
                deadline=draw(st.sampled_from([None, None, None, NOW + 20])),
                dependencies=tuple(Dependency(f"t{i}", on) for i, on in needs.items()),
                created_at=NOW,
                updated_at=NOW,
            )
        )
    return [replace(task, dependencies=()) for task in tasks] if check_graph(tasks) else tasks


class TreeMachine(RuleBasedStateMachine):
    """Commands in any order; after each, the promises of the tree are checked against the tasks themselves."""

    limit = 2  # running tasks

    @initialize(tasks=plans())
    def create(self, tasks: list[Task]) -> None:
        self.first = tasks
        self.head = TreeHead(id="t0", size=len(tasks), created_at=NOW, updated_at=NOW)
        self.tree = TaskTree(self.head, tasks)
        self.log: list[tuple[e.Event, float]] = []
        self.now = NOW
        limits = RoomLimits(slots=self.limit, threads=1, processes=1)
        self.queue = ReadyQueue(Room(limits, lambda lane: None))
        self.asked: dict[str, int] = {}
        self.finished: dict[str, tuple[int, TaskStatus, object]] = {}
        self.seen_attempts: set[tuple[str, int]] = set()
        self._record([e.TreeCreated(len(tasks), "t0")])

    def _record(self, events: list[e.Event]) -> None:
        for event in events:
            was_live = self.tree.is_live
            self._judge(event)
            self.tree.apply(event, self.now)
            self.log.append((event, self.now))
            if isinstance(event, e.TreeFinished):
                assert was_live or self.tree.status is TaskStatus.CANCELLED
        for task in self.tree.take_ready():
            self.queue.offer(task.owner, task.executor or "", "t0", task.priority, task.position, task.id)

    def _judge(self, event: e.Event) -> None:
        """What must hold at the moment of an event, seen from the tasks alone."""
        tasks = self.tree.tasks
        if isinstance(event, e.RunStarted):
            again = tasks if event.scope is None else event.scope
            for i in again:
                self.finished.pop(i, None)
        if isinstance(event, e.TaskStarted):
            task = tasks[event.task_id]
            for d in task.dependencies:
                assert tasks[d.id].status.is_terminal, "started too early"
                assert _lets_run(d.on, tasks[d.id]), "started although its dependency ended otherwise"
            assert (event.task_id, event.attempt) not in self.seen_attempts, "an attempt number was used twice"
            self.seen_attempts.add((event.task_id, event.attempt))
            assert task.failures < task.max_attempts, "one attempt too many"
        if isinstance(event, e.TaskSkipped):
            ends = [(d.on, tasks[d.id]) for d in tasks[event.task_id].dependencies]
            assert all(end.status.is_terminal for _, end in ends), "skipped too early"
            assert not all(_lets_run(on, end) for on, end in ends), "skipped although it was to run"
            assert all(end.status is TaskStatus.COMPLETED for on, end in ends if on is On.SUCCESS), "not cancelled"
            assert tasks[event.task_id].attempt == 0 or tasks[event.task_id].status is TaskStatus.PENDING
        if isinstance(
            event, e.TaskCompleted | e.TaskSkipped | e.TaskFailed | e.TaskCancelled | e.TaskRejected | e.GroupEnded
        ):
            assert event.task_id not in self.finished, "a terminal status was overwritten"
            self.finished[event.task_id] = (0, TaskStatus.PENDING, None)
        if isinstance(event, e.TreeFinished):
            scope = tasks if self.tree.scope is None else self.tree.scope
            assert all(tasks[i].status.is_terminal for i in scope), "the tree ended before its tasks"
        if isinstance(event, e.TaskCancelled) and "required dependency" in event.error:
            culprits = [d.id for d in tasks[event.task_id].dependencies if d.required]
            assert any(tasks[i].status.is_terminal and tasks[i].status is not TaskStatus.COMPLETED for i in culprits)

    def _do(self, command: c.Command) -> bool:
        before = (self.tree.head, dict(self.tree.tasks))
        try:
            events = decide_module.decide(command, self.tree, self.now)
        except CoreError:
            assert before == (self.tree.head, self.tree.tasks), "a refusal changed something"
            return False
        assert before == (self.tree.head, self.tree.tasks), "deciding changed something"
        self._record(events)
        return True

    def _pick(self, ids: set[str], n: int) -> str:
        return sorted(ids)[n % len(ids)]

    @rule(force=st.booleans())
    @precondition(lambda self: not self.tree.is_live)
    def execute(self, force: bool) -> None:
        self._do(c.Execute(None, force))

    @rule(n=st.integers(0, 8), force=st.booleans())
    @precondition(lambda self: not self.tree.is_live)
    def execute_one(self, n: int, force: bool) -> None:
        target = self._pick(set(self.tree.tasks), n)
        if self._do(c.Execute(target, force)):
            scope = self.tree.scope
            done = self.tree.tasks[target].status is not TaskStatus.COMPLETED
            assert scope is None or not done or target in scope

    @rule()
    @precondition(lambda self: self.tree.is_live and len(self.tree.running) < self.limit)
    def start(self) -> None:
        expected = [t for t in self.tree.startable() if t.runnable_at <= self.now]
        found = None
        while (entry := self.queue.pop()) is not None:
            if any(t.id == entry[1] for t in expected):
                found = entry[1]
                break
            late = self.tree.tasks[entry[1]]
            if self.tree.is_startable(late):  # it waits for its backoff
                expected_later = late.runnable_at > self.now
                assert expected_later
                self.delayed = [*getattr(self, "delayed", []), late.id]
        for task_id in getattr(self, "delayed", []):
            task = self.tree.tasks[task_id]
            self.queue.offer(task.owner, "work", "t0", task.priority, task.position, task.id)
        self.delayed = []
        assert (found is not None) == bool(expected), "a ready task was forgotten"
        if found is not None:
            best = min(expected, key=lambda t: (t.priority, t.position))
            assert found == best.id, "out of the order of priority"
            assert self._do(c.StartTask(found))

    @rule(n=st.integers(0, 8), what=st.sampled_from(["complete", "complete", "fail", "fail", "ask", "lose", "reject"]))
    @precondition(lambda self: self.tree.running)
    def end_attempt(self, n: int, what: str) -> None:
        task_id = self._pick(self.tree.running, n)
        attempt = self.tree.tasks[task_id].attempt
        commands: dict[str, c.Command] = {
            "complete": c.CompleteTask(task_id, attempt, n),
            "fail": c.FailAttempt(task_id, attempt, "boom"),
            "ask": c.RequestInput(task_id, attempt, texts("?")),
            "lose": c.LoseAttempt(task_id, attempt),
            "reject": c.RejectTask(task_id, attempt, "no"),
        }
        assert self._do(commands[what])

    @rule(n=st.integers(0, 8))
    @precondition(lambda self: self.tree.questions)
    def answer(self, n: int) -> None:
        assert self._do(c.ProvideInput(self._pick(set(self.tree.questions), n), "answer"))

    @rule(n=st.integers(0, 8), force=st.booleans(), is_stubborn=st.booleans())
    def cancel(self, n: int, force: bool, is_stubborn: bool) -> None:
        target = self._pick(set(self.tree.tasks), n)
        stubborn = frozenset(self.tree.running) if is_stubborn else frozenset()
        if self._do(c.Cancel(target, None, force, stubborn)):
            kept = stubborn if not force else frozenset()
            for i in self.tree.subtree(target):
                below = set(self.tree.subtree(i))
                assert not self.tree.is_open(i) or below & kept, "a cancel left something open"

    @rule(n=st.integers(0, 8), back=st.integers(0, 2))
    @precondition(lambda self: self.tree.is_live)
    def late_report(self, n: int, back: int) -> None:
        """An attempt that does not own the task any more is refused, whatever it says."""
        task = self.tree.tasks[self._pick(set(self.tree.tasks), n)]
        attempt = task.attempt - back
        if task.is_running and attempt == task.attempt:
            return
        try:
            decide_module.decide(c.CompleteTask(task.id, attempt, "late"), self.tree, self.now)
        except StaleAttempt:
            return
        raise AssertionError("a late attempt was accepted")

    @rule(n=st.integers(0, 8))
    @precondition(lambda self: self.tree.is_live)
    def expire(self, n: int) -> None:
        """A group whose time is over leaves nothing open below it."""
        target = self._pick(set(self.tree.tasks), n)
        before = self.tree.version
        self._do(c.ExpireTask(target))
        if self.tree.version > before:
            assert not any(self.tree.is_open(i) for i in self.tree.subtree(target) if self.tree.tasks[target].is_group)

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def books_are_right(self) -> None:
        if not hasattr(self, "tree"):
            return
        self.tree.check()
        assert len(self.tree.running) <= self.limit

    @invariant()
    def a_live_tree_can_go_on(self) -> None:
        """Something runs, is ready (perhaps later), or waits for an answer: a live tree is never stuck."""
        if hasattr(self, "tree") and self.tree.is_live:
            assert self.tree.running or self.tree.startable() or self.tree.questions, "the tree is stuck"

    def teardown(self) -> None:
        """Replaying the log gives the same tree; and left alone, a live tree ends."""
        if not hasattr(self, "tree"):
            return
        again = TaskTree(self.head, self.first)
        for event, at in self.log:
            again.apply(event, at)
        assert (again.head, again.tasks) == (self.tree.head, self.tree.tasks), "the log tells another story"
        for _ in range(1000):
            if not self.tree.is_live:
                return
            self.now += 1000
            for task_id in list(self.tree.questions):
                self._do(c.ProvideInput(task_id, "answer"))
            for task_id in list(self.tree.running):
                self._do(c.CompleteTask(task_id, self.tree.tasks[task_id].attempt))
            for task in self.tree.startable()[: self.limit]:
                self._do(c.StartTask(task.id))
        raise AssertionError("a live tree did not end")
