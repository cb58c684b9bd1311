"""Ready tasks of all trees of a process, in the order in which they are to start. Pure.

Callers share what there is by their weights: each has a virtual time, which a start moves on by 1/weight, and the
caller whose time is the earliest is served first (weighted fair queueing). Within one caller priority decides, among
equals its trees take turns, and within a tree the position decides. Tasks stand in one lane for each executor, so that
an executor at its limit holds up no other. A start costs O(log n) for each lane that has tasks.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush, heapreplace

from core.model.room import Fit, Room

MANY_CALLERS = 1_000  # from here on callers that have nothing in line are forgotten
MANY_VOID = 64  # void entries of a heap, beside as many as there are valid ones, after which it is made anew

Entry = tuple[float, int, str]  # a caller in line: its virtual time, its number, its id


class _Lane:
    """One caller's ready tasks for one executor: a heap for each tree, and a heap of the trees by what starts next."""

    def __init__(self) -> None:
        self.tasks: dict[str, list[tuple[int, int, str]]] = {}  # tree -> heap of (priority, position, task)
        self.entry: dict[str, tuple[int, int]] = {}  # tree -> its (priority, turn) in `trees`
        self.trees: list[tuple[int, int, str]] = []

    def enter(self, tree_id: str, turn: int) -> None:
        """Let the tree stand in line with its best task."""
        entry = (self.tasks[tree_id][0][0], turn)
        self.entry[tree_id] = entry
        heappush(self.trees, (*entry, tree_id))
        if len(self.trees) > MANY_VOID and len(self.trees) > 2 * len(self.entry) + MANY_VOID:
            self.trees = [(*entry, tree_id) for tree_id, entry in self.entry.items()]
            heapify(self.trees)

    def first(self) -> tuple[int, int, str]:
        """The entry of the tree whose turn it is; entries that were replaced are thrown away on the way.

        Raises IndexError when no tree stands in line.
        """
        while True:
            priority, turn, tree_id = self.trees[0]
            if self.entry.get(tree_id) == (priority, turn):
                return self.trees[0]
            heappop(self.trees)

    def take(self, tree_id: str, turn: int) -> str:
        """The best task of the first tree, which stands in line again with what it has left."""
        heappop(self.trees)
        del self.entry[tree_id]
        _, _, task_id = heappop(self.tasks[tree_id])
        if self.tasks[tree_id]:
            self.enter(tree_id, turn)
        else:
            del self.tasks[tree_id]
        return task_id


class _Caller:
    """One caller's ready tasks, by lane."""

    def __init__(self, caller_id: str, number: int, stride: float, time: float) -> None:
        self.id = caller_id
        self.number = number
        self.stride = stride
        self.time = time  # its virtual time
        self.lanes: dict[str, _Lane] = {}

    def leave(self, lane_id: str, line: "_Line | None") -> None:
        """No tree of the caller's stands in line for this executor any more.

        Without a `line`, its trees have been at their limits since they came to this executor.
        """
        if line is not None:
            line.entry.pop(self.id, None)
        if not self.lanes[lane_id].tasks:
            del self.lanes[lane_id]


class _Line:
    """The callers that wait for one executor. Those that have nothing running stand apart: some places are theirs."""

    def __init__(self) -> None:
        self.idle: list[Entry] = []
        self.busy: list[Entry] = []
        self.entry: dict[str, Entry] = {}  # caller -> its entry; any other entry of it in the heaps is void

    def enter(self, caller: _Caller, *, is_idle: bool) -> None:
        """Let the caller stand in line, wherever it stood before."""
        heap = self.idle if is_idle else self.busy
        entry = (caller.time, caller.number, caller.id)
        self.entry[caller.id] = entry
        heappush(heap, entry)
        if len(heap) > MANY_VOID and len(heap) > 2 * len(self.entry) + MANY_VOID:
            heap[:] = [each for each in heap if self.entry.get(each[2]) is each]
            heapify(heap)

    def first(self, callers: Mapping[str, _Caller], room: Room, fit: Fit) -> Entry | None:
        """The entry of the caller that is the first in line."""
        idle = self._top(self.idle, callers, room) if self.idle else None
        busy = self._top(self.busy, callers) if fit is Fit.ANYBODY and self.busy else None
        return busy if idle is None or (busy is not None and busy < idle) else idle

    def _top(self, heap: list[Entry], callers: Mapping[str, _Caller], room: Room | None = None) -> Entry | None:
        """The first valid entry of the heap; with a `room`, of a caller that has nothing running there.

        A caller's time only moves on, so an old entry never stands too late.
        """
        while heap:
            entry = heap[0]
            if entry[2] not in self.entry or self.entry[entry[2]] is not entry:
                heappop(heap)
                continue
            caller = callers[entry[2]]
            if room is not None and not room.is_idle(caller.id):
                heappop(heap)
                self.enter(caller, is_idle=False)
            elif entry[0] != caller.time:
                self.entry[caller.id] = moved = (caller.time, caller.number, caller.id)
                heapreplace(heap, moved)
            else:
                return entry
        return None


class ReadyQueue:
    """Ready tasks of callers. A task that has been taken or cancelled meanwhile is for the user to skip.

    `room` says what may start; `weigh` gives a caller's weight, a number above 0.
    """

    def __init__(self, room: Room, weigh: Callable[[str], float] = lambda caller: 1.0) -> None:
        self._room = room
        self._weigh = weigh
        self._callers: dict[str, _Caller] = {}
        self._lines: dict[str, _Line] = {}
        self._caller_of: dict[str, str] = {}  # tree -> caller
        self._parked: dict[str, set[str]] = {}  # tree at its own limit -> lanes in which it would stand
        self.waiting = 0  # tasks
        self._turn = 0
        self._number = 0
        self._now = 0.0  # the virtual time of the caller served last: no caller enters with an earlier one
        self._latest = 0.0
        self._many = MANY_CALLERS

    def offer(self, caller_id: str, lane_id: str, tree_id: str, priority: int, position: int, task_id: str) -> None:
        """Put a ready task in line."""
        if not self.waiting:
            self._now = self._latest  # no caller waited, so there are no debts
        caller = self._callers[caller_id] if caller_id in self._callers else self._add(caller_id)
        if not caller.lanes and caller.time < self._now:
            caller.time = self._now
        self._caller_of[tree_id] = caller_id
        self.waiting += 1
        if lane_id not in caller.lanes:
            caller.lanes[lane_id] = _Lane()
        lane = caller.lanes[lane_id]
        if tree_id not in lane.tasks:
            lane.tasks[tree_id] = []
        heappush(lane.tasks[tree_id], (priority, position, task_id))
        if tree_id in self._parked:
            self._parked[tree_id].add(lane_id)
        elif tree_id not in lane.entry:
            lane.enter(tree_id, self._turn)
            self._enter(caller, lane_id)
        elif priority < lane.entry[tree_id][0]:
            lane.enter(tree_id, lane.entry[tree_id][1])

    def _add(self, caller_id: str) -> _Caller:
        if len(self._callers) >= self._many:
            self._callers = {each.id: each for each in self._callers.values() if each.lanes}
            self._many = max(MANY_CALLERS, 2 * len(self._callers))
        self._number += 1
        caller = _Caller(caller_id, self._number, 1.0 / self._weigh(caller_id), self._now)
        self._callers[caller_id] = caller
        return caller

    def _enter(self, caller: _Caller, lane_id: str) -> None:
        """Let the caller stand in line for this executor, where it does not yet."""
        if lane_id not in self._lines:
            self._lines[lane_id] = _Line()
        line = self._lines[lane_id]
        if caller.id not in line.entry:
            line.enter(caller, is_idle=self._room.keeps_places and self._room.is_idle(caller.id))

    def pop(self) -> tuple[str, str] | None:
        """The (tree, task) to start next, or None when nothing may start. `started` tells of its start.

        Callers and trees without room step aside until `released` says that they have some.
        """
        while True:
            found = self._best()
            if found is None:
                return None
            lane_id, caller = found
            lane = caller.lanes[lane_id]
            _, _, tree_id = lane.first()
            if not self._room.caller_has_room(caller.id, lane_id):
                del self._lines[lane_id].entry[caller.id]
            elif not self._room.tree_has_room(tree_id):
                self._park(caller, tree_id)
            else:
                self.waiting -= 1
                self._turn += 1
                task_id = lane.take(tree_id, self._turn)
                if not lane.entry:
                    caller.leave(lane_id, self._lines[lane_id])
                return tree_id, task_id

    def _best(self) -> tuple[str, _Caller] | None:
        """The lane and the caller whose turn it is."""
        best: tuple[str, _Caller] | None = None
        best_entry: Entry = (0.0, 0, "")
        for lane_id, line in self._lines.items():
            if not line.entry:
                continue
            fit = self._room.fit(lane_id)
            if fit is Fit.NOBODY:
                continue
            entry = line.first(self._callers, self._room, fit)
            if entry is None or (best is not None and entry > best_entry):
                continue
            caller = self._callers[entry[2]]
            if best is None or entry < best_entry or caller.lanes[lane_id].first() < caller.lanes[best[0]].first():
                best, best_entry = (lane_id, caller), entry
        return best

    def started(self, caller_id: str) -> None:
        """A task of the caller's has started: it moves back in the line."""
        if caller_id in self._callers:
            caller = self._callers[caller_id]
            if caller.time > self._now:
                self._now = caller.time
            # Who could not start anything for a while has no claim to what others did meanwhile.
            caller.time = self._now + caller.stride
            if caller.time > self._latest:
                self._latest = caller.time

    def passed_over(self, tree_id: str) -> None:
        """Many tasks of the tree's caller were taken and did not start: that costs it a turn, as a start does."""
        if tree_id in self._caller_of:
            self.started(self._caller_of[tree_id])

    def _park(self, caller: _Caller, tree_id: str) -> None:
        lanes = {lane_id for lane_id, lane in caller.lanes.items() if lane.entry.pop(tree_id, None) is not None}
        self._parked[tree_id] = lanes
        for lane_id in lanes:
            if not caller.lanes[lane_id].entry:
                caller.leave(lane_id, self._lines.get(lane_id))

    def released(self, caller_id: str, tree_id: str) -> None:
        """The caller or the tree holds less than before."""
        if caller_id not in self._callers or not self._callers[caller_id].lanes:
            return
        caller = self._callers[caller_id]
        for lane_id in self._parked.pop(tree_id, ()):
            caller.lanes[lane_id].enter(tree_id, self._turn)  # its tasks are there: a parked tree's are not taken
        is_idle = self._room.keeps_places and self._room.is_idle(caller_id)
        for lane_id, lane in caller.lanes.items():
            if lane.entry:
                if is_idle:
                    self._lines[lane_id].enter(caller, is_idle=True)
                else:
                    self._enter(caller, lane_id)

    @property
    def trees(self) -> set[str]:
        """Those of which it knows."""
        return {*self._caller_of, *self._parked}

    def discard(self, tree_id: str) -> None:
        """Forget all tasks of a tree."""
        self._parked.pop(tree_id, None)
        caller = self._callers.get(self._caller_of.pop(tree_id, ""))
        if caller is None:
            return
        for lane_id, lane in list(caller.lanes.items()):
            lane.entry.pop(tree_id, None)
            self.waiting -= len(lane.tasks.pop(tree_id, ()))
            if not lane.entry:
                caller.leave(lane_id, self._lines.get(lane_id))


# For tests and simulations


def is_in_line(queue: ReadyQueue, tree_id: str, task_id: str) -> bool:
    """Whether the task is in line."""
    caller = queue._callers.get(queue._caller_of.get(tree_id, ""))
    lanes = () if caller is None else caller.lanes.values()
    return any(task_id == found for lane in lanes for _, _, found in lane.tasks.get(tree_id, ()))


def check_queue(queue: ReadyQueue) -> None:
    """Raise AssertionError when the lanes disagree, or somebody in line would never have a turn."""
    waiting = 0
    for caller in queue._callers.values():
        for lane_id, lane in caller.lanes.items():
            waiting += sum(map(len, lane.tasks.values()))
            _check_lane(queue, caller, lane_id)
    assert queue.waiting == waiting, f"{queue.waiting} tasks are counted, and {waiting} are in line"
    for lane_id, line in queue._lines.items():
        for caller_id in line.entry:
            caller_lanes = queue._callers[caller_id].lanes
            is_needed = lane_id in caller_lanes and caller_lanes[lane_id].entry
            assert is_needed, f"caller {caller_id!r} is in line for {lane_id!r} with nothing to start"


def _check_lane(queue: ReadyQueue, caller: _Caller, lane_id: str) -> None:
    """Each tree with tasks is in line with its best one, or steps aside because it has no room."""
    lane = caller.lanes[lane_id]
    where = f"of {caller.id!r} for {lane_id!r}"
    assert lane.tasks, f"the lane {where} is empty and was kept"
    assert lane.entry.keys() <= lane.tasks.keys(), f"trees without tasks are in the line {where}"
    for tree_id, (priority, turn) in lane.entry.items():
        assert (priority, turn, tree_id) in lane.trees, f"tree {tree_id} is lost in the line {where}"
        best = min(lane.tasks[tree_id])
        assert lane.tasks[tree_id][0] == best and priority == best[0], f"tree {tree_id} waits with the wrong task"
    for tree_id in lane.tasks:
        assert queue._caller_of.get(tree_id) == caller.id, f"tree {tree_id} is in another caller's lane"
        is_parked = lane_id in queue._parked.get(tree_id, ())
        assert is_parked is not (tree_id in lane.entry), f"tree {tree_id} is not once in the line {where}"
        is_held_up = is_parked and queue._room.tree_has_room(tree_id)
        assert not is_held_up, f"tree {tree_id} steps aside although it has room"
    if lane.entry:
        _check_entry(queue, caller, lane_id)


def _check_entry(queue: ReadyQueue, caller: _Caller, lane_id: str) -> None:
    """The caller is in line, where its tasks may start, or has stepped aside."""
    line, room = queue._lines[lane_id], queue._room
    entry = line.entry.get(caller.id)
    who = f"caller {caller.id!r}"
    if entry is None:
        assert not room.caller_has_room(caller.id, lane_id), f"{who} steps aside from {lane_id!r} although it has room"
        return
    heap = line.idle if room.keeps_places and room.is_idle(caller.id) else [*line.idle, *line.busy]
    assert any(each is entry for each in heap), f"{who} is not where it would be served by {lane_id!r}"
    assert entry[0] <= caller.time, f"{who} stands behind its turn for {lane_id!r}"
