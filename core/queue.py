"""Ready tasks of all trees of a process, in the order in which they are to start. Pure.

The order (semantics §3): by priority over everything; among equals trees take turns; within a tree by position. Tasks
stand in one lane for each executor, so that an executor at its limit holds up nobody else.
"""

from collections.abc import Callable
from heapq import heappop, heappush


class _Lane:
    """The ready tasks of one executor: a heap for each tree, and a heap of the trees by what each would start next."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[tuple[int, int, str]]] = {}  # tree -> heap of (priority, position, task)
        self.entry: dict[str, tuple[int, int]] = {}  # tree -> its (priority, turn) in `trees`
        self.trees: list[tuple[int, int, str]] = []

    def enter(self, tree_id: str, turn: int) -> None:
        """Let the tree stand in line with its best task."""
        entry = (self.tasks[tree_id][0][0], turn)
        self.entry[tree_id] = entry
        heappush(self.trees, (*entry, tree_id))

    def first(self) -> tuple[int, int, str] | None:
        """The entry of the tree whose turn it is; entries that were replaced are thrown away on the way."""
        while self.trees:
            priority, turn, tree_id = self.trees[0]
            if self.entry.get(tree_id) == (priority, turn):
                return self.trees[0]
            heappop(self.trees)
        return None


class ReadyQueue:
    """Ready tasks by lane. A task that has been taken or cancelled meanwhile is for the caller to skip."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._parked: dict[str, set[str]] = {}  # tree at its own limit -> lanes in which it would stand
        self._turn = 0

    def offer(self, lane_id: str, tree_id: str, priority: int, position: int, task_id: str) -> None:
        """Put a ready task in its lane."""
        lane = self._lanes.setdefault(lane_id, _Lane())
        heappush(lane.tasks.setdefault(tree_id, []), (priority, position, task_id))
        if tree_id in self._parked:
            self._parked[tree_id].add(lane_id)
        elif (entry := lane.entry.get(tree_id)) is None:
            lane.enter(tree_id, self._turn)
        elif priority < entry[0]:
            lane.enter(tree_id, entry[1])

    def pop(self, lane_has_room: Callable[[str], bool], tree_has_room: Callable[[str], bool]) -> tuple[str, str] | None:
        """The (tree, task) to start next, or None when nothing may start. Trees without room step aside."""
        while True:
            best: tuple[tuple[int, int, str], str] | None = None
            for lane_id, lane in self._lanes.items():
                first = lane.first()
                if first is not None and (best is None or first < best[0]) and lane_has_room(lane_id):
                    best = (first, lane_id)
            if best is None:
                return None
            (_, _, tree_id), lane_id = best
            if tree_has_room(tree_id):
                return tree_id, self._take(lane_id, tree_id)
            self._park(tree_id)

    def _take(self, lane_id: str, tree_id: str) -> str:
        lane = self._lanes[lane_id]
        heappop(lane.trees)
        del lane.entry[tree_id]
        _, _, task_id = heappop(lane.tasks[tree_id])
        self._turn += 1
        if lane.tasks[tree_id]:
            lane.enter(tree_id, self._turn)
        else:
            del lane.tasks[tree_id]
            if not lane.tasks:
                del self._lanes[lane_id]
        return task_id

    def _park(self, tree_id: str) -> None:
        lanes = {lane_id for lane_id, lane in self._lanes.items() if lane.entry.pop(tree_id, None) is not None}
        self._parked[tree_id] = lanes

    def unpark(self, tree_id: str) -> None:
        """The tree has room again."""
        for lane_id in self._parked.pop(tree_id, ()):
            self._lanes[lane_id].enter(tree_id, self._turn)  # its tasks are there: a parked tree's are not taken

    def discard(self, tree_id: str) -> None:
        """Forget all tasks of a tree."""
        self._parked.pop(tree_id, None)
        for lane_id, lane in list(self._lanes.items()):
            lane.entry.pop(tree_id, None)
            if lane.tasks.pop(tree_id, None) is not None and not lane.tasks:
                del self._lanes[lane_id]

    def __len__(self) -> int:
        return sum(len(heap) for lane in self._lanes.values() for heap in lane.tasks.values())
