"""Tests of core.model.queue: the order of start over all callers and trees of a process."""

from collections import Counter
from collections.abc import Callable, Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.executors.base import ExecutorSpec
from core.model.queue import MANY_CALLERS, MANY_VOID, ReadyQueue, check_queue, is_in_line
from core.model.room import Claim, Demand, Fit, Room, RoomLimits


class Hall(Room):
    """A room with as many slots as a test wants, in which lanes and trees can be said to be full."""

    def __init__(
        self,
        slots: int = 1_000_000,
        caller: int | None = None,
        demand_of: Callable[[str], Demand | None] = lambda lane: None,
    ) -> None:
        super().__init__(RoomLimits(slots=slots, threads=1, processes=1, caller=caller), demand_of)
        self.full_lanes: Collection[str] = ()
        self.full_trees: Collection[str] = ()

    def fit(self, lane: str) -> Fit:
        return Fit.NOBODY if lane in self.full_lanes else super().fit(lane)

    def tree_has_room(self, tree_id: str) -> bool:
        return tree_id not in self.full_trees


class Line:
    """A queue with its room, as the runner uses them: what is taken starts."""

    def __init__(
        self,
        slots: int = 1_000_000,
        caller: int | None = None,
        weigh: Callable[[str], float] = lambda caller: 1.0,
        demand_of: Callable[[str], Demand | None] = lambda lane: None,
    ) -> None:
        self.hall = Hall(slots, caller, demand_of)
        self.queue = ReadyQueue(self.hall, weigh)
        self.running: list[tuple[str, Claim]] = []
        self._caller_of: dict[str, str] = {}
        self._lane_of: dict[str, str] = {}

    def offer(self, lane: str, tree: str, priority: int, position: int, task: str, caller: str = "anonymous") -> None:
        self._caller_of[tree], self._lane_of[task] = caller, lane
        self.queue.offer(caller, lane, tree, priority, position, task)

    def offer_many(self, count: int, tree: str, caller: str, lane: str = "work", priority: int = 2) -> None:
        for position in range(count):
            self.offer(lane, tree, priority, position, f"{tree}{position}", caller)

    def pop(self) -> tuple[str, str] | None:
        """Start the next task."""
        found = self.queue.pop() if self.hall.slots.fit else None
        if found is not None:
            tree, task = found
            caller = self._caller_of[tree]
            self.running.append((task, self.hall.take(caller, tree, self._lane_of[task])))
            self.queue.started(caller)
        return found

    def end(self, n: int = 0) -> str:
        """The n-th running task ends; its name."""
        task, claim = self.running.pop(n)
        self.hall.give(claim)
        self.queue.released(claim.caller, claim.tree_id)
        return task

    def fill(self) -> list[str]:
        """Start what may start; the names."""
        found = []
        while (each := self.pop()) is not None:
            found.append(each[1])
        return found


def drain(line: Line, full_lanes: Collection[str] = (), full_trees: Collection[str] = ()) -> list[tuple[str, str]]:
    line.hall.full_lanes, line.hall.full_trees = full_lanes, full_trees
    found = []
    while (task := line.pop()) is not None:
        found.append(task)
    line.hall.full_lanes, line.hall.full_trees = (), ()
    return found


LANES = ("work", "narrow", "wide", "thread", "process")


def _spec(lane: str) -> ExecutorSpec | None:
    return ExecutorSpec(
        id=lane,
        make=lambda: pytest.fail("it is not run here"),
        uses_thread=lane == "thread",
        uses_process=lane == "process",
        concurrency={"narrow": 1, "wide": 3}.get(lane),
    )


def names(found: list[tuple[str, str]]) -> str:
    return " ".join(task for _, task in found)


def test_priority_holds_over_all_trees_of_a_caller() -> None:
    line = Line()
    line.offer("work", "A", 2, 0, "a")
    line.offer("work", "B", 0, 0, "b")
    line.offer("work", "C", -7, 0, "c")
    line.offer("work", "A", 1, 1, "d")
    assert names(drain(line)) == "c b d a"


def test_within_a_tree_equals_start_in_order_of_creation() -> None:
    line = Line()
    for position in (3, 1, 2):
        line.offer("work", "A", 2, position, f"a{position}")
    assert names(drain(line)) == "a1 a2 a3"


def test_among_equals_trees_take_turns() -> None:
    """A huge tree starves nobody, whoever came first."""
    line = Line()
    for position in range(100):
        line.offer("work", "huge", 2, position, f"h{position}")
    for tree in "AB":
        for position in range(2):
            line.offer("work", tree, 2, position, f"{tree}{position}")
    assert names(drain(line)[:7]) == "A0 B0 h0 A1 B1 h1 h2"


def test_a_tree_that_comes_later_gets_its_turn_at_once() -> None:
    line = Line()
    for position in range(10):
        line.offer("work", "huge", 2, position, f"h{position}")
    for _ in range(3):
        line.pop()
    line.offer("work", "late", 2, 0, "late")
    assert "late" in names(drain(line)[:2])


def test_trees_take_turns_over_lanes_too() -> None:
    """Two executors of the same tree do not give it two turns."""
    line = Line()
    for position in range(4):
        line.offer(f"lane{position % 2}", "huge", 2, position, f"h{position}")
        line.offer("lane0", "B", 2, position, f"b{position}")
    found = drain(line)
    assert [tree for tree, _ in found[:4]].count("B") >= 1
    assert sorted(found) == sorted([("huge", f"h{i}") for i in range(4)] + [("B", f"b{i}") for i in range(4)])


def test_a_lane_without_room_holds_up_nobody_else() -> None:
    line = Line()
    line.offer("full", "A", 0, 0, "urgent")
    line.offer("work", "A", 2, 1, "a")
    assert names(drain(line, full_lanes={"full"})) == "a"
    assert names(drain(line)) == "urgent"


def test_books_of_a_line_whose_only_tree_has_stepped_aside_agree() -> None:
    line = Line()
    line.offer_many(2, "a", "ada")
    assert drain(line, full_trees={"a"}) == []

    line.hall.full_trees = {"a"}
    check_queue(line.queue)
    line.hall.full_trees = ()
    with pytest.raises(AssertionError, match="tree a steps aside although it has room"):
        check_queue(line.queue)


def test_a_tree_without_room_steps_aside_until_it_is_released() -> None:
    line = Line()
    line.offer("work", "A", 0, 0, "a")
    line.offer("work", "B", 2, 0, "b")
    assert names(drain(line, full_trees={"A"})) == "b"
    line.offer("other", "A", 0, 1, "a2")
    assert drain(line) == []
    line.queue.released("anonymous", "A")
    assert names(drain(line)) == "a a2"
    line.queue.released("anonymous", "A")
    assert drain(line) == []


def test_a_more_urgent_task_moves_its_tree_forward() -> None:
    line = Line()
    line.offer("work", "A", 2, 0, "a")
    line.offer("work", "B", 1, 0, "b")
    line.offer("work", "A", 0, 1, "urgent")
    assert names(drain(line)) == "urgent b a"


def test_a_discarded_tree_is_forgotten() -> None:
    line = Line()
    line.offer("work", "A", 0, 0, "a")
    line.offer("other", "A", 0, 1, "a2")
    line.offer("work", "B", 2, 0, "b")
    line.queue.discard("A")
    line.queue.discard("never there")
    assert line.queue.waiting == 1
    assert names(drain(line)) == "b"
    line.offer("work", "A", 2, 2, "a3")
    assert names(drain(line)) == "a3"


@pytest.mark.parametrize("gone", ["a", "b"])
def test_a_tree_is_discarded_while_one_at_its_limit_waits_for_an_executor_of_its_own(gone: str) -> None:
    """What a parked tree offers stands in no line yet, also when its executor is new to its caller."""
    line = Line()
    line.offer("work", "a", 2, 0, "a0")
    drain(line, full_trees={"a"})
    line.offer("other", "a", 2, 1, "a1")
    line.offer("work", "b", 2, 0, "b0")
    line.queue.discard(gone)
    line.queue.released("anonymous", "a")
    assert names(drain(line)) == {"a": "b0", "b": "a0 a1"}[gone]


def test_a_discarded_tree_is_not_parked_any_more() -> None:
    line = Line()
    line.offer("work", "A", 0, 0, "a")
    assert drain(line, full_trees={"A"}) == []
    line.queue.discard("A")
    line.offer("work", "A", 0, 1, "b")
    assert names(drain(line)) == "b"


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("ABC"), st.integers(0, 2)), max_size=40))
def test_no_tree_is_passed_over_twice_by_an_equal(offers: list[tuple[str, str, int]]) -> None:
    """Between two starts of one tree, every other tree with an equal task in the same lane has had its turn."""
    line = Line()
    waiting: set[tuple[str, str, int, int]] = set()
    for position, (lane, tree, priority) in enumerate(offers):
        line.offer(lane, tree, priority, position, str(position))
        waiting.add((lane, tree, priority, position))
    passed_over: dict[tuple[str, str, str, int], int] = {}  # (who waits, lane, who started, priority) -> times
    for tree, task in drain(line):
        (started,) = [each for each in waiting if each[3] == int(task)]
        lane, _, priority, _ = started
        assert priority == min(each[2] for each in waiting)
        assert started[3] == min(e[3] for e in waiting if (e[0], e[1], e[2]) == (lane, tree, priority))
        waiting.remove(started)
        for other in {e[1] for e in waiting if e[0] == lane and e[2] == priority and e[1] != tree}:
            key = (other, lane, tree, priority)
            passed_over[key] = passed_over.get(key, 0) + 1
            assert passed_over[key] <= 1
        for key in [key for key in passed_over if key[0] == tree and key[1] == lane]:
            del passed_over[key]
    assert not waiting


# Callers


def test_priorities_compare_within_one_caller_only() -> None:
    line = Line()
    for position in range(3):
        line.offer("work", "A", -(2**63), position, f"a{position}", "ada")
        line.offer("work", "B", 2, position, f"b{position}", "bob")
    line.offer("work", "B2", 0, 3, "urgent", "bob")
    assert names(drain(line)) == "a0 urgent a1 b0 a2 b1 b2"


def test_a_caller_with_200_trees_of_100_tasks_lets_another_one_start_next() -> None:
    """However many trees it has: turns are taken by callers first."""
    line = Line(slots=10)
    for tree in range(200):
        line.offer_many(100, f"h{tree}-", "huge")
    line.fill()
    for _ in range(50):
        line.end()
        line.fill()
    line.offer("work", "one", 2, 0, "the one", "small")
    line.end()
    assert line.fill() == ["the one"]


def test_a_caller_that_comes_later_owes_nothing_and_has_nothing_to_claim() -> None:
    line = Line()
    line.offer_many(100, "a", "ada")
    for _ in range(50):
        line.pop()
    line.offer_many(100, "b", "bob")
    begun = [(line.pop() or ("", ""))[0] for _ in range(20)]
    assert Counter(begun) == {"a": 10, "b": 10}


def test_when_nobody_waits_all_accounts_are_settled() -> None:
    """What a light caller took while nobody else wanted anything is not held against it later."""
    line = Line(weigh=lambda caller: 0.001 if caller == "light" else 1.0)
    line.offer_many(1, "alone", "light")
    line.fill()
    line.offer_many(10, "a", "light")
    line.offer_many(10, "b", "bob")
    assert "a0" in names([line.pop() or ("", ""), line.pop() or ("", "")])


def test_a_caller_that_was_kept_waiting_by_a_full_executor_does_not_catch_up() -> None:
    line = Line()
    line.offer_many(100, "a", "ada", lane="narrow")
    line.offer_many(300, "b", "bob")
    line.hall.full_lanes = {"narrow"}
    for _ in range(100):
        line.pop()
    line.hall.full_lanes = ()
    begun = [(line.pop() or ("", ""))[0] for _ in range(20)]
    assert begun.count("b") >= 9


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.5, 2.0, 10.0), (100.0, 1.0, 0.01)])
def test_while_all_wait_starts_are_shared_by_weight(weights: tuple[float, ...]) -> None:
    """Never more than one start off, for each of the others."""
    by_name = dict(zip("abc", weights, strict=True))
    line = Line(weigh=lambda caller: by_name[caller])
    for name in by_name:
        line.offer_many(1000, f"{name}-", name)
    begun: Counter[str] = Counter()
    for started in range(1, 901):
        tree, _ = line.pop() or ("", "")
        begun[tree[0]] += 1
        for name, weight in by_name.items():
            assert abs(begun[name] - started * weight / sum(weights)) <= len(by_name)


def test_a_caller_gets_no_more_than_its_share_and_others_start_at_once() -> None:
    line = Line(slots=10, caller=5)
    line.offer_many(100, "a", "ada")
    assert len(line.fill()) == 5
    for name in ("bob", "eve", "joe"):
        line.offer_many(1, name, name)
        assert line.fill() == [f"{name}0"]


def test_a_caller_that_fills_its_part_of_an_executor_keeps_nobody_else_from_it() -> None:
    line = Line(slots=10, caller=5, demand_of=_spec)
    line.offer_many(5, "a", "ada", lane="wide")
    assert line.fill() == ["a0", "a1"]
    line.offer_many(5, "b", "bob", lane="wide")
    assert line.fill() == ["b0"]
    assert [line.end(0), line.end(0)] == ["a0", "a1"]
    assert sorted(line.fill()) == ["a2", "b1"], "a caller that stepped aside stands in line again"


def test_the_last_place_waits_for_a_caller_that_has_nothing_running() -> None:
    line = Line(slots=10, caller=5)
    line.offer_many(100, "a", "ada")
    line.offer_many(100, "b", "bob")
    assert len(line.fill()) == 9
    line.offer_many(2, "e", "eve")
    assert line.fill() == ["e0"]
    line.end(0)
    assert line.fill() == [], "the place that is free again is the one that is kept"
    line.end(0)
    assert len(line.fill()) == 1


def test_cancelled_tasks_cost_their_caller_no_turn() -> None:
    """What was taken out of the queue and did not start is not charged."""
    line = Line()
    line.offer_many(1000, "a", "ada")
    line.offer("full", "waits", 2, 0, "waits", "bob")  # so that the queue is never empty, which settles all accounts
    line.hall.full_lanes = {"full"}
    for _ in range(1000):
        line.queue.pop()
    line.offer_many(10, "a2", "ada")
    line.offer_many(10, "b2", "bob")
    begun = [(line.pop() or ("", ""))[0] for _ in range(4)]
    assert sorted(begun) == ["a2", "a2", "b2", "b2"]


def test_many_tasks_that_do_not_start_cost_their_caller_a_turn() -> None:
    """So that another caller's task never waits until all of them are out of the line."""
    line = Line()
    line.offer_many(1000, "a", "ada")
    line.offer_many(5, "b", "bob")
    line.pop()
    assert (line.queue.pop() or ("", ""))[0] == "b"
    line.queue.started("bob")
    taken = [(line.queue.pop() or ("", ""))[0] for _ in range(20)]
    assert taken == ["a"] * 20
    line.queue.passed_over("a")
    assert (line.queue.pop() or ("", ""))[0] == "b"
    line.queue.discard("a")
    line.queue.passed_over("a")


def test_callers_that_have_nothing_in_line_are_forgotten() -> None:
    line = Line()
    line.offer_many(3 * MANY_CALLERS, "busy", "busy")
    for n in range(3 * MANY_CALLERS):
        line.offer("work", f"t{n}", 2, 0, "task", f"caller {n}")
        line.queue.discard(f"t{n}")
    assert len(line.queue._callers) <= MANY_CALLERS + 1
    assert len(line.queue._caller_of) == 1


def test_trees_that_come_and_go_behind_a_full_executor_leave_nothing() -> None:
    line = Line()
    line.hall.full_lanes = {"work"}
    line.offer("work", "stays", 2, 0, "task", "ada")
    for n in range(1000):
        line.offer("work", f"t{n}", 2, 0, "task", f"caller {n % 10}")
        line.offer("work", f"u{n}", 2, 0, "task", "ada")
        line.queue.discard(f"t{n}")
        line.queue.discard(f"u{n}")
    assert len(line.queue._lines["work"].busy) <= 2 * MANY_VOID
    assert len(line.queue._callers["ada"].lanes["work"].trees) <= 2 * MANY_VOID


@pytest.mark.parametrize("callers", [10, 1000])
def test_the_cost_of_a_start_grows_with_the_logarithm_of_the_callers(callers: int) -> None:
    """Counted in looks at callers, also when nearly all of them are at their share."""
    line = Line(slots=4 * callers, caller=1)
    looks = 0
    has_room = line.hall.caller_has_room

    def counted(caller: str, lane: str) -> bool:
        nonlocal looks
        looks += 1
        return has_room(caller, lane)

    line.hall.caller_has_room = counted  # type: ignore[method-assign]
    for n in range(callers):
        line.offer_many(5, f"t{n}-", f"caller {n}")
    assert len(line.fill()) == callers
    looks = 0
    for _ in range(callers):
        line.end()
        line.fill()
    assert looks <= 3 * callers


class QueueMachine(RuleBasedStateMachine):
    """Against a plain set: nothing is lost or invented, limits are kept, no slot is idle while anybody may run."""

    slots = 4
    caller = 2

    def __init__(self) -> None:
        super().__init__()
        self.limits = RoomLimits(slots=self.slots, threads=3, processes=2, caller=self.caller, tree=2)
        self.room = Room(self.limits, _spec)
        self.queue = ReadyQueue(self.room, {"p": 1.0, "q": 2.0, "r": 0.5}.__getitem__)
        self.model: dict[str, tuple[str, str, str, int, int]] = {}  # task -> caller, lane, tree, priority, position
        self.running: list[Claim] = []
        self.hung: list[Claim] = []
        self.count = 0

    @rule(
        caller=st.sampled_from("pqr"),
        lane=st.sampled_from(LANES),
        tree=st.sampled_from("AB"),
        priority=st.integers(-1, 2),
    )
    def offer(self, caller: str, lane: str, tree: str, priority: int) -> None:
        self.count += 1
        tree = caller + tree
        self.queue.offer(caller, lane, tree, priority, self.count, str(self.count))
        self.model[str(self.count)] = (caller, lane, tree, priority, self.count)

    def may_start(self, task: str) -> bool:
        caller, lane, tree, _, _ = self.model[task]
        return self.room.has_room(caller, tree, lane)

    @rule()
    def start(self) -> None:
        able = {task for task in self.model if self.may_start(task)}
        found = self.queue.pop() if self.room.slots.fit else None
        if found is None:
            assert not able, "a slot is idle, and somebody may run"
            return
        tree, task = found
        assert task in able, "a limit is broken"
        caller, lane, owner_tree, priority, position = self.model.pop(task)
        assert tree == owner_tree
        for other in able - {task}:
            theirs = self.model[other]
            if theirs[0] == caller:
                assert theirs[3] >= priority, "priority is not kept within a caller"
                assert theirs[1:3] != (lane, tree) or theirs[3:] > (priority, position)
        self.running.append(self.room.take(caller, tree, lane))
        self.queue.started(caller)

    @precondition(lambda self: self.running)
    @rule(n=st.integers(0, 9), hangs=st.booleans())
    def end(self, n: int, hangs: bool) -> None:
        claim = self.running.pop(n % len(self.running))
        if hangs and claim.uses_thread:
            self.room.give_slot(claim)
            self.hung.append(claim)
        else:
            self.room.give(claim)
        self.queue.released(claim.caller, claim.tree_id)

    @precondition(lambda self: self.hung)
    @rule(n=st.integers(0, 9))
    def end_of_a_hung_one(self, n: int) -> None:
        claim = self.hung.pop(n % len(self.hung))
        self.room.give_rest(claim)
        self.queue.released(claim.caller, claim.tree_id)

    @rule(tree=st.sampled_from(["pA", "pB", "qA", "rB"]))
    def discard(self, tree: str) -> None:
        self.queue.discard(tree)
        self.model = {task: each for task, each in self.model.items() if each[2] != tree}

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.queue.waiting == len(self.model)
        assert all(is_in_line(self.queue, each[2], task) for task, each in self.model.items())
        check_queue(self.queue)


class SmallShareMachine(QueueMachine):
    """The same where a caller's part of an executor's `concurrency` is smaller than its share of the slots."""

    slots = 12
    caller = 4


TestQueueMachine = QueueMachine.TestCase
TestSmallShareMachine = SmallShareMachine.TestCase


@given(
    st.lists(st.tuples(st.sampled_from("pqrs"), st.integers(-3, 3), st.sampled_from(["work", "thread"])), max_size=60),
    st.integers(1, 4),
)
def test_whoever_waits_is_passed_over_no_more_than_once_by_each_of_the_others(
    offers: list[tuple[str, int, str]], slots: int
) -> None:
    """No starvation: between two starts of a caller with equal weights, nobody else starts more than two tasks."""
    room = Room(RoomLimits(slots=slots, threads=slots, processes=1), _spec)
    queue = ReadyQueue(room)
    waiting: Counter[str] = Counter()
    for position, (caller, priority, lane) in enumerate(offers):
        queue.offer(caller, lane, f"{caller}-{position % 3}", priority, position, f"{position}")
        waiting[caller] += 1
    passed: dict[str, Counter[str]] = {caller: Counter() for caller in waiting}
    while (found := queue.pop()) is not None:
        caller = found[0][0]
        claim = room.take(caller, found[0], offers[int(found[1])][2])
        queue.started(caller)
        waiting[caller] -= 1
        passed[caller].clear()
        for other in [name for name, count in waiting.items() if count and name != caller]:
            passed[other][caller] += 1
            assert passed[other][caller] <= 2
        room.give(claim)
        queue.released(caller, found[0])
    assert not waiting.total()


def test_a_start_of_a_caller_that_has_nothing_in_line_changes_nothing() -> None:
    """A suspect starts without having stood in line (`core.model.quarantine`)."""
    queue = ReadyQueue(Hall())
    queue.started("nobody")
    queue.released("nobody", "tree")
    assert queue.pop() is None


def test_a_caller_that_is_released_stays_out_of_lanes_whose_trees_are_all_at_their_limit() -> None:
    hall = Hall()
    queue = ReadyQueue(hall)
    hall.full_trees = {"one"}
    queue.offer("ann", "fast", "one", 2, 0, "a")
    queue.offer("ann", "slow", "two", 2, 0, "b")
    assert queue.pop() == ("two", "b")
    queue.started("ann")
    queue.released("ann", "two")
    assert queue.pop() is None
    hall.full_trees = ()
    queue.released("ann", "one")
    assert queue.pop() == ("one", "a")
