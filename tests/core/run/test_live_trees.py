"""Trees in memory: how they come there, which of them stay, and what they hold meanwhile."""

import asyncio

from core.model.errors import StorageUnavailable, TaskNotFound
from core.model.in_flight import ByteBudget, Holdings
from core.model.plan import Plan
from core.model.submission import BARE
from core.model.task import Task, TreeHead
from core.model.tree import TaskTree
from core.run.appends import Appends, Turn
from core.run.live_trees import LiveTrees
from core.run.orchestrator import new_tree
from core.storage.base import Append
from tests.core.cores import FaultyStorage, settle, virtual_time


class Rig:
    """Trees of one storage, of which `live` runs and `rests` does not."""

    def __init__(self) -> None:
        self.storage = FaultyStorage()
        self.appends = Appends(self.storage, self._answered)
        self.holdings = Holdings(ByteBudget())
        self.told: list[str] = []
        self.trees = LiveTrees(self.storage, self.appends, self.holdings, lambda tree: self.told.append(tree.id))

    def _answered(self, turn: Turn, head: TreeHead, error: BaseException | None) -> None:
        self.appends.leave(turn)
        turn.settle(error)

    async def open(self) -> "Rig":
        await self.storage.open()
        for name in ("live", "rests"):
            head = TreeHead(id=name, size=1, created_at=0.0, updated_at=0.0)
            task = Task(id=name, tree_id=name, name="work", executor="work", created_at=0.0)
            tree, events = new_tree(head, Plan(name, (task,)), BARE, 1.0, execute=name == "live")
            await self.storage.append(
                Append(head=tree.head, events=tuple(events), tasks=tuple(tree.tasks.values()), is_new=True)
            )
        return self


@virtual_time
async def test_a_tree_is_loaded_once_for_many_who_ask() -> None:
    rig = await Rig().open()
    for name in ("live", "rests"):
        found = await asyncio.gather(*(rig.trees.load(name) for _ in range(10)))
        assert len({id(tree) for tree in found}) == 1
    assert rig.told == ["live"]


@virtual_time
async def test_only_a_live_tree_stays_and_counts_for_its_owner() -> None:
    rig = await Rig().open()
    await rig.trees.load("rests")
    assert (rig.trees.by_id, rig.holdings._trees) == ({}, {})
    tree = await rig.trees.load("live")
    assert await rig.trees.load("live") is tree is rig.trees.by_id["live"]
    assert [*rig.holdings._trees] == ["live"]
    rig.trees.drop("live")
    assert (rig.trees.by_id, rig.holdings._trees) == ({}, {})


@virtual_time
async def test_many_are_read_together_and_those_in_memory_stay_as_they_are() -> None:
    rig = await Rig().open()
    tree = await rig.trees.load("live")
    await rig.trees.load_live(["live", "rests"])
    assert rig.trees.by_id == {"live": tree}
    assert rig.told == ["live"]
    rig.trees.drop("live")
    await rig.trees.load_live(["live", "rests", "none"])
    assert [*rig.trees.by_id] == ["live"] and rig.told == ["live", "live"]


@virtual_time
async def test_what_is_on_its_way_to_the_storage_belongs_to_the_tree() -> None:
    rig = await Rig().open()
    rig.storage.held = []
    rig.appends.add(await rig.trees.load("rests"), (), (), is_new=False)
    loading = asyncio.create_task(rig.trees.load("rests"))
    await settle()
    assert not loading.done()
    rig.storage.fail_held(StorageUnavailable("disk full"))
    assert isinstance(await loading, TaskTree)


@virtual_time
async def test_an_error_reaches_all_who_ask_and_is_not_kept() -> None:
    rig = await Rig().open()
    found = await asyncio.gather(*(rig.trees.load("none") for _ in range(2)), return_exceptions=True)
    assert [type(each) for each in found] == [TaskNotFound] * 2
    assert rig.trees._loading == {}
