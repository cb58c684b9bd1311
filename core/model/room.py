"""What runs here, and which callers may start more: slots, threads and child processes, shared by callers. Pure.

A caller is the owner of a tree. It may hold a part of each kind of place, and the last places of each kind are kept
for callers that have nothing running, so that no caller can take all of them. The same part limits what one caller runs
of an executor that has a `concurrency`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Protocol

from msgspec import Struct

KEPT_FREE = 10  # one place of so many is kept for callers that have nothing running


class Demand(Protocol):
    """What one executor needs of the process; an ExecutorSpec says so."""

    @property
    def concurrency(self) -> int | None: ...

    @property
    def uses_process(self) -> bool: ...

    @property
    def uses_thread(self) -> bool: ...


class Claim(Struct, frozen=True):
    """What one attempt takes."""

    caller: str
    tree_id: str
    lane: str  # its executor's id
    uses_process: bool = False
    uses_thread: bool = False


class Fit(IntEnum):
    """Whose tasks may start."""

    NOBODY = 0
    IDLE = 1  # only those of callers that have nothing running
    ANYBODY = 2


class Places:
    """Places of one kind. `share`: how many of them one caller may hold; `reserve`: the last ones, for idle callers."""

    def __init__(self, total: int, share: int, reserve: int) -> None:
        self.total = total
        self.share = share
        self.reserve = reserve
        self.used = 0
        self.held: defaultdict[str, int] = defaultdict(int)  # by caller; no entry has 0
        self.fit = self.fit_now()

    def fit_now(self) -> Fit:
        """`fit`, worked out."""
        free = self.total - self.used
        return Fit.ANYBODY if free > self.reserve else Fit.IDLE if free > 0 else Fit.NOBODY

    def take(self, caller: str) -> None:
        """Let the caller hold one more."""
        self.held[caller] += 1
        self.used += 1
        free = self.total - self.used
        self.fit = Fit.ANYBODY if free > self.reserve else Fit.IDLE if free > 0 else Fit.NOBODY

    def give(self, caller: str) -> None:
        """The caller holds one less."""
        self.held[caller] -= 1
        if not self.held[caller]:
            del self.held[caller]
        self.used -= 1
        free = self.total - self.used
        self.fit = Fit.ANYBODY if free > self.reserve else Fit.IDLE if free > 0 else Fit.NOBODY


class RoomLimits(Struct, frozen=True, kw_only=True):
    """How much may run at a time."""

    slots: int  # attempts
    threads: int  # attempts of plain functions, and threads that outlive theirs
    processes: int
    caller: int | None = None  # slots of one caller: also its part of the threads, processes and each `concurrency`
    tree: int | None = None  # attempts of one tree


class Room:
    """The places of one process. `demand_of` says what an executor needs; None: a slot and nothing else."""

    def __init__(self, limits: RoomLimits, demand_of: Callable[[str], Demand | None]) -> None:
        self._demand_of = demand_of
        self._tree_limit = limits.tree
        self._total, self._share = limits.slots, limits.slots if limits.caller is None else limits.caller
        self.slots = _places(limits.slots, limits)
        self.threads = _places(limits.threads, limits)
        self.processes = _places(limits.processes, limits)
        self.keeps_places = self.slots.reserve + self.threads.reserve + self.processes.reserve > 0
        self.in_lane: defaultdict[str, int] = defaultdict(int)
        self.held_in_lane: defaultdict[tuple[str, str], int] = defaultdict(int)  # by (lane, caller)
        self.in_tree: defaultdict[str, int] = defaultdict(int)

    def fit(self, lane: str) -> Fit:
        """Whose tasks of this executor may start."""
        fit = self.slots.fit
        demand = self._demand_of(lane)
        if demand is None:
            return fit
        if demand.concurrency is not None and self.in_lane.get(lane, 0) >= demand.concurrency:
            return Fit.NOBODY
        if demand.uses_process:
            fit = min(fit, self.processes.fit)
        if demand.uses_thread:
            fit = min(fit, self.threads.fit)
        return fit

    def is_idle(self, caller: str) -> bool:
        """Whether the caller has nothing running."""
        return caller not in self.slots.held

    def caller_has_room(self, caller: str, lane: str) -> bool:
        """Whether the caller's share leaves it one more attempt of this executor."""
        if caller in self.slots.held and self.slots.held[caller] >= self.slots.share:
            return False
        demand = self._demand_of(lane)
        if demand is None:
            return True
        if demand.uses_process and self.processes.held.get(caller, 0) >= self.processes.share:
            return False
        if demand.uses_thread and self.threads.held.get(caller, 0) >= self.threads.share:
            return False
        if demand.concurrency is None or self._share >= self._total or (lane, caller) not in self.held_in_lane:
            return True
        # The part is rounded up, so that a caller may always hold one: held < concurrency * share / total.
        return self.held_in_lane[lane, caller] * self._total < demand.concurrency * self._share

    def tree_has_room(self, tree_id: str) -> bool:
        """Whether the tree may run one more attempt."""
        return self._tree_limit is None or self.in_tree.get(tree_id, 0) < self._tree_limit

    def has_room(self, caller: str, tree_id: str, lane: str) -> bool:
        """Whether such an attempt may start now."""
        needed = Fit.IDLE if self.is_idle(caller) else Fit.ANYBODY
        return self.fit(lane) >= needed and self.caller_has_room(caller, lane) and self.tree_has_room(tree_id)

    def take(self, caller: str, tree_id: str, lane: str) -> Claim:
        """Take what one attempt needs. The caller has checked that there is room."""
        demand = self._demand_of(lane)
        claim = Claim(
            caller, tree_id, lane, demand is not None and demand.uses_process, demand is not None and demand.uses_thread
        )
        self.slots.take(caller)
        self.in_tree[tree_id] += 1
        self.in_lane[lane] += 1
        self.held_in_lane[lane, caller] += 1
        if claim.uses_process:
            self.processes.take(caller)
        if claim.uses_thread:
            self.threads.take(caller)
        return claim

    def give(self, claim: Claim) -> None:
        """The attempt has ended, and nothing of it goes on."""
        self.give_slot(claim)
        self.give_rest(claim)

    def give_slot(self, claim: Claim) -> None:
        """The attempt has ended, but what it runs goes on: its executor, thread and process stay taken."""
        self.slots.give(claim.caller)
        self.in_tree[claim.tree_id] -= 1
        if not self.in_tree[claim.tree_id]:
            del self.in_tree[claim.tree_id]

    def give_rest(self, claim: Claim) -> None:
        """What went on without its attempt has ended, too."""
        self.in_lane[claim.lane] -= 1
        if not self.in_lane[claim.lane]:
            del self.in_lane[claim.lane]
        self.held_in_lane[claim.lane, claim.caller] -= 1
        if not self.held_in_lane[claim.lane, claim.caller]:
            del self.held_in_lane[claim.lane, claim.caller]
        if claim.uses_process:
            self.processes.give(claim.caller)
        if claim.uses_thread:
            self.threads.give(claim.caller)

    def check(self, held: Iterable[Claim], left: Iterable[Claim]) -> None:
        """Raise AssertionError unless these claims are what is taken. Of those that are `left` the slot is given."""
        held = list(held)
        all_held = [*held, *left]
        callers = Counter(each.caller for each in held)
        for name, places, expected in (
            ("slots", self.slots, callers),
            ("threads", self.threads, Counter(each.caller for each in all_held if each.uses_thread)),
            ("processes", self.processes, Counter(each.caller for each in all_held if each.uses_process)),
        ):
            assert places.held == expected, f"{name} are taken by {dict(places.held)}, and held by {dict(expected)}"
            assert places.used == expected.total(), f"{places.used} {name} are taken, and {expected.total()} are held"
            assert places.fit is places.fit_now(), (
                f"{name} say {places.fit!r} with {places.used} of {places.total} taken"
            )
        for name, counted, by in (
            ("trees", self.in_tree, Counter(each.tree_id for each in held)),
            ("executors", self.in_lane, Counter(each.lane for each in all_held)),
            ("callers' executors", self.held_in_lane, Counter((each.lane, each.caller) for each in all_held)),
        ):
            assert counted == by, f"the counts of {name} are {dict(counted)}, and attempts hold {dict(by)}"


def _places(total: int, limits: RoomLimits) -> Places:
    """So many places, shared as the limits say for slots."""
    if limits.caller is None or limits.caller >= limits.slots:
        return Places(total, total, 0)
    share = max(1, total * limits.caller // limits.slots)
    return Places(total, share, max(1, total // KEPT_FREE) if total > 1 else 0)
