"""Tests of core.queue: the order of start over all trees of a process (semantics §3)."""

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from core.queue import ReadyQueue


def drain(
    queue: ReadyQueue, full_lanes: Collection[str] = (), full_trees: Collection[str] = ()
) -> list[tuple[str, str]]:
    found = []
    while (task := queue.pop(lambda lane: lane not in full_lanes, lambda tree: tree not in full_trees)) is not None:
        found.append(task)
    return found


def names(found: list[tuple[str, str]]) -> str:
    return " ".join(task for _, task in found)


def test_priority_holds_over_all_trees() -> None:
    queue = ReadyQueue()
    queue.offer("work", "A", 2, 0, "a")
    queue.offer("work", "B", 0, 0, "b")
    queue.offer("work", "C", -7, 0, "c")
    queue.offer("work", "A", 1, 1, "d")
    assert names(drain(queue)) == "c b d a"


def test_within_a_tree_equals_start_in_order_of_creation() -> None:
    queue = ReadyQueue()
    for position in (3, 1, 2):
        queue.offer("work", "A", 2, position, f"a{position}")
    assert names(drain(queue)) == "a1 a2 a3"


def test_among_equals_trees_take_turns() -> None:
    """A huge tree starves nobody, whoever came first."""
    queue = ReadyQueue()
    for position in range(100):
        queue.offer("work", "huge", 2, position, f"h{position}")
    for tree in "AB":
        for position in range(2):
            queue.offer("work", tree, 2, position, f"{tree}{position}")
    assert names(drain(queue)[:7]) == "A0 B0 h0 A1 B1 h1 h2"


def test_a_tree_that_comes_later_gets_its_turn_at_once() -> None:
    queue = ReadyQueue()
    for position in range(10):
        queue.offer("work", "huge", 2, position, f"h{position}")
    for _ in range(3):
        queue.pop(lambda _: True, lambda _: True)
    queue.offer("work", "late", 2, 0, "late")
    assert "late" in names(drain(queue)[:2])


def test_trees_take_turns_over_lanes_too() -> None:
    """Two executors of the same tree do not give it two turns."""
    queue = ReadyQueue()
    for position in range(4):
        queue.offer(f"lane{position % 2}", "huge", 2, position, f"h{position}")
        queue.offer("lane0", "B", 2, position, f"b{position}")
    found = drain(queue)
    assert [tree for tree, _ in found[:4]].count("B") >= 1
    assert sorted(found) == sorted([("huge", f"h{i}") for i in range(4)] + [("B", f"b{i}") for i in range(4)])


def test_a_lane_without_room_holds_up_nobody_else() -> None:
    queue = ReadyQueue()
    queue.offer("full", "A", 0, 0, "urgent")
    queue.offer("work", "A", 2, 1, "a")
    assert names(drain(queue, full_lanes={"full"})) == "a"
    assert names(drain(queue)) == "urgent"


def test_a_tree_without_room_steps_aside_until_it_is_unparked() -> None:
    queue = ReadyQueue()
    queue.offer("work", "A", 0, 0, "a")
    queue.offer("work", "B", 2, 0, "b")
    assert names(drain(queue, full_trees={"A"})) == "b"
    queue.offer("other", "A", 0, 1, "a2")
    assert drain(queue) == []
    queue.unpark("A")
    assert names(drain(queue)) == "a a2"
    queue.unpark("A")
    assert drain(queue) == []


def test_a_more_urgent_task_moves_its_tree_forward() -> None:
    queue = ReadyQueue()
    queue.offer("work", "A", 2, 0, "a")
    queue.offer("work", "B", 1, 0, "b")
    queue.offer("work", "A", 0, 1, "urgent")
    assert names(drain(queue)) == "urgent b a"


def test_a_discarded_tree_is_forgotten() -> None:
    queue = ReadyQueue()
    queue.offer("work", "A", 0, 0, "a")
    queue.offer("other", "A", 0, 1, "a2")
    queue.offer("work", "B", 2, 0, "b")
    queue.discard("A")
    queue.discard("never there")
    assert len(queue) == 1
    assert names(drain(queue)) == "b"
    queue.offer("work", "A", 2, 2, "a3")
    assert names(drain(queue)) == "a3"


def test_a_discarded_tree_is_not_parked_any_more() -> None:
    queue = ReadyQueue()
    queue.offer("work", "A", 0, 0, "a")
    assert drain(queue, full_trees={"A"}) == []
    queue.discard("A")
    queue.offer("work", "A", 0, 1, "b")
    assert names(drain(queue)) == "b"


@given(st.lists(st.tuples(st.sampled_from("xy"), st.sampled_from("ABC"), st.integers(0, 2)), max_size=40))
def test_no_tree_is_passed_over_twice_by_an_equal(offers: list[tuple[str, str, int]]) -> None:
    """Between two starts of one tree, every other tree with an equal task in the same lane has had its turn."""
    queue = ReadyQueue()
    waiting: set[tuple[str, str, int, int]] = set()
    for position, (lane, tree, priority) in enumerate(offers):
        queue.offer(lane, tree, priority, position, str(position))
        waiting.add((lane, tree, priority, position))
    passed_over: dict[tuple[str, str, str, int], int] = {}  # (who waits, lane, who started, priority) -> times
    for tree, task in drain(queue):
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


class QueueMachine(RuleBasedStateMachine):
    """Against a plain set of tasks: nothing is lost, nothing is invented, the most urgent that may start does."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ReadyQueue()
        self.model: set[tuple[str, str, int, int]] = set()
        self.parked: set[str] = set()
        self.count = 0

    @rule(lane=st.sampled_from("xyz"), tree=st.sampled_from("ABC"), priority=st.integers(-1, 2))
    def offer(self, lane: str, tree: str, priority: int) -> None:
        self.count += 1
        self.queue.offer(lane, tree, priority, self.count, str(self.count))
        self.model.add((lane, tree, priority, self.count))

    @rule(full_lanes=st.sets(st.sampled_from("xyz")), full_trees=st.sets(st.sampled_from("ABC")))
    def pop(self, full_lanes: set[str], full_trees: set[str]) -> None:
        found = self.queue.pop(lambda lane: lane not in full_lanes, lambda tree: tree not in full_trees)
        free = [e for e in self.model if e[0] not in full_lanes and e[1] not in full_trees | self.parked]
        # A tree without room is parked when its turn comes; one whose turn did not come is not.
        best = min((e[2] for e in free), default=None)
        in_line = [e for e in self.model if e[0] not in full_lanes and e[1] in full_trees - self.parked]
        ahead = {e[1] for e in in_line if best is None or e[2] < best}
        self.parked |= ahead
        if found is None:
            assert not free
            return
        tree, task = found
        (entry,) = [e for e in free if e[3] == int(task)]
        assert (entry[1], entry[2]) == (tree, best)
        self.model.remove(entry)
        # Equals without room may or may not have been met first: ask for all of them again.
        for equal in {e[1] for e in in_line if e[2] == best}:
            self.queue.unpark(equal)
            self.parked.discard(equal)

    @rule(tree=st.sampled_from("ABC"))
    def unpark(self, tree: str) -> None:
        self.queue.unpark(tree)
        self.parked.discard(tree)

    @rule(tree=st.sampled_from("ABC"))
    def discard(self, tree: str) -> None:
        self.queue.discard(tree)
        self.model = {e for e in self.model if e[1] != tree}
        self.parked.discard(tree)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.model)


TestQueueMachine = QueueMachine.TestCase
