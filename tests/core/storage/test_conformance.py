"""What every storage promises (`core.storage.base`)."""

import asyncio
import random
import time
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from core.model.content import Part, Said
from core.model.errors import InvalidPlan, Problem, StorageUnavailable, TaskNotFound, TreeIsRunning, VersionConflict
from core.model.events import MessageReceived
from core.model.owners import owner_of
from core.model.retry import RetryPolicy
from core.model.task import Cause, Dependency, On, Question, Task, TaskStatus, TreeHead
from core.storage.base import OF_NOBODY, Append, Document, EndedQuery, EventQuery, Node, Storage, TaskQuery, TreeQuery
from core.storage.memory import MemoryStorage
from tests.core.contents import said, texts
from tests.core.storage.samples import created, finished, make_tasks, recorded, started, updated


@pytest.mark.asyncio
async def test_a_created_tree_is_loaded_as_it_was(storage: Storage) -> None:
    append = created("t", 5, context_id="c", metadata={"k": [1, {"x": None}]}, scope=("t", "t.1"), origin="a2a")

    await storage.append(append)

    assert await storage.load("t") == (append.head, list(append.tasks))
    assert await storage.task("t.3") == append.tasks[3]
    assert await storage.children("t") == list(append.tasks[1:])
    assert list(await storage.events(EventQuery(tree_id="t"))) == list(append.events)


@pytest.mark.asyncio
async def test_the_first_nodes_of_a_tree_come_by_position(storage: Storage) -> None:
    append = created("t", 5)
    await storage.append(append)
    nodes = [Node(task.id, task.name, task.status, task.parent_id) for task in append.tasks]
    assert await storage.nodes("t", 3) == nodes[:3]
    assert await storage.nodes("t", 9) == nodes
    assert await storage.nodes("x", 3) == []
    assert [await storage.node(each.id) for each in nodes] == nodes
    assert await storage.node("x") is None


@pytest.mark.asyncio
async def test_versions_of_several_trees_are_read_at_once(storage: Storage) -> None:
    first, second = created("a"), created("b")
    for append in (first, second, started(second.head, second.tasks[0])):
        await storage.append(append)
    assert await storage.versions(["a", "unknown", "b"]) == {"a": 1, "b": 2}
    assert await storage.versions([]) == {}
    await storage.delete("a")
    assert await storage.versions(["a"]) == {}


@pytest.mark.asyncio
async def test_every_field_of_a_task_survives(storage: Storage) -> None:
    task = Task(
        id="t",
        tree_id="t",
        owner="ann",
        name='na"me\u2028\0',
        ref="r",
        executor="x",
        user_id="u",
        priority=-7,
        dependencies=(Dependency("a", On.ANY),),
        inputs={"status": "failed", "n": 2**70, "deep": [{"ü": None}]},
        schemas={"method": "x"},
        params={"p": 1},
        timeout=1.5,
        deadline=9.0,
        max_attempts=3,
        retry=RetryPolicy(initial=2),
        original_task_id="o",
        created_at=1.0,
        status=TaskStatus.INPUT_REQUIRED,
        attempt=2,
        is_running=True,
        failures=1,
        crashes=1,
        runnable_at=4.5,
        progress=0.5,
        message="half",
        question=Question(content=texts("?"), auth=True, asked_at=2.0),
        answers=({"a": 1}, None),
        result={"inputs": 1},
        error="e",
        cause=Cause.TIMEOUT,
        started_at=2.0,
        finished_at=3.0,
        updated_at=3.5,
    )

    await storage.append(replace(created("t"), tasks=(task,)))

    assert await storage.task("t") == task


@pytest.mark.asyncio
async def test_what_is_unknown_is_none_or_empty(storage: Storage) -> None:
    assert await storage.load("x") is None
    assert await storage.head("x") is None
    assert await storage.task("x") is None
    assert await storage.children("x") == []
    assert list(await storage.events(EventQuery(tree_id="x"))) == []
    assert await storage.live_trees() == []
    assert await storage.delete("x") is False
    assert (await storage.trees(TreeQuery(owner=None))).total == 0


@pytest.mark.asyncio
async def test_appends_decided_ahead_resolve_in_their_order(storage: Storage) -> None:
    first = created("t", 4)
    head, appends = first.head, [first]
    for task in first.tasks:
        appends.append(started(head, task))
        head = appends[-1].head
    appends.append(finished(head))
    order: list[int] = []
    futures = []
    for i, append in enumerate(appends):
        future = asyncio.ensure_future(storage.append(append))
        future.add_done_callback(lambda _, i=i: order.append(i))
        futures.append(future)

    await asyncio.gather(*futures)

    assert order == list(range(len(appends)))
    loaded = await storage.load("t")
    assert loaded == (appends[-1].head, [append.tasks[0] for append in appends[1:-1]])
    assert [r.seq for r in await storage.events(EventQuery(tree_id="t"))] == [1, 2, 3, 4, 5, 6]


@pytest.mark.asyncio
async def test_an_update_of_what_the_caller_wrote_is_stored(storage: Storage) -> None:
    first = created("t", 2)
    change = updated(first.head, first.tasks[1], inputs={"n": 9}, name="other", priority=0)
    await storage.append(first)

    await storage.append(change)

    assert await storage.task("t.1") == change.tasks[0]
    assert [t.id for t in await storage.tasks(TaskQuery(owner=None, root_only=False, name="other"))] == ["t.1"]


@pytest.mark.asyncio
async def test_scope_and_metadata_follow_the_head(storage: Storage) -> None:
    first = created("t", 2, metadata={"a": 1})
    await storage.append(first)
    head = first.head
    metadatas: tuple[dict[str, object], ...] = ({"a": 1}, {"a": 2}, {"a": 2}, {}, {"a": 2}, {"a": 2})
    for scope, metadata in zip((("t",), ("t",), ("t", "t.1"), ("t", "t.1"), None, ("t",)), metadatas, strict=True):
        append = started(replace(head, scope=scope, metadata=metadata), first.tasks[0])
        await storage.append(append)
        head = append.head
        assert (await storage.load("t") or ((), ()))[0] == head


@pytest.mark.asyncio
async def test_a_head_is_read_without_what_may_be_as_large_as_a_message(storage: Storage) -> None:
    """A hundred reads that waited for their turn held a hundred copies of a message of 9 MB."""
    owner = owner_of("te", "ann")
    first = created("t", 2, owner=owner, metadata={"message": "x" * 100_000}, scope=("t", "t.1"), context_id="c")
    await storage.append(first)
    start = started(first.head, first.tasks[0])
    await storage.append(start)
    end = finished(start.head)
    await storage.append(end)
    bare = replace(end.head, metadata={}, scope=None)

    assert (await storage.load("t") or ((), ()))[0] == end.head != bare
    assert await storage.head("t") == bare
    assert await storage.head("t", owner=owner) == bare
    assert await storage.head("t", tenant="te") == bare
    assert (await storage.trees(TreeQuery(owner=owner))).heads == (bare,)
    assert [each.head for each in await storage.ended(EndedQuery(until=1e10))] == [bare]


@pytest.mark.asyncio
async def test_the_tree_of_a_task_is_its_owners(storage: Storage) -> None:
    owner = owner_of("te", "ann")
    await storage.append(created("t", 2, owner=owner))
    await storage.put_draft(Task(id="draft", owner=owner, name="d", created_at=1.0))
    for task_id, tree_id in (("t", "t"), ("t.1", "t"), ("draft", ""), ("x", None)):
        assert await storage.tree_of(task_id) == tree_id
        assert await storage.tree_of(task_id, owner=owner) == tree_id
        assert await storage.tree_of(task_id, tenant="te") == tree_id
        assert await storage.tree_of(task_id, owner=owner_of("te", "bob")) is None
        assert await storage.tree_of(task_id, tenant="other") is None


@pytest.mark.asyncio
async def test_a_wrong_version_is_refused_and_nothing_of_it_is_stored(storage: Storage) -> None:
    first = created("t", 2)
    await storage.append(first)
    ahead = started(replace(first.head, version=5), first.tasks[0])
    behind = started(replace(first.head, version=0), first.tasks[0])

    for append in (ahead, behind, first, replace(started(first.head, first.tasks[0]), is_new=True)):
        with pytest.raises(VersionConflict):
            await storage.append(append)

    assert await storage.load("t") == (first.head, list(first.tasks))
    assert len(await storage.events(EventQuery(tree_id="t"))) == 1


@pytest.mark.asyncio
async def test_an_append_to_an_unknown_tree_is_refused(storage: Storage) -> None:
    with pytest.raises(VersionConflict):
        await storage.append(started(created("t").head, created("t").tasks[0]))
    assert await storage.task("t") is None


@pytest.mark.asyncio
async def test_a_conflict_fails_only_its_own_tree(storage: Storage) -> None:
    """The guilty append and what was decided on top of it fail; its neighbours do not."""
    a, b = created("a", 2), created("b", 2)
    await storage.append(a)
    await storage.append(b)
    wrong = started(replace(a.head, version=7), a.tasks[0])
    on_top = started(a.head, a.tasks[1])  # fits what is stored, but was decided after the refused one
    good = started(b.head, b.tasks[0])
    better = started(good.head, b.tasks[1])

    results = await asyncio.gather(*[storage.append(x) for x in (good, wrong, on_top, better)], return_exceptions=True)

    assert [type(r) for r in results] == [type(None), VersionConflict, VersionConflict, type(None)]
    assert await storage.head("a") == a.head
    assert await storage.head("b") == better.head
    await storage.append(on_top)  # decided anew after the failure was known
    assert await storage.head("a") == on_top.head


@pytest.mark.asyncio
async def test_what_was_decided_before_a_later_failure_was_known_fails_as_well(storage: Storage) -> None:
    """The second failure of a tree is told from the first."""
    first = created("t", 2)
    await storage.append(first)
    wrong = started(replace(first.head, version=7), first.tasks[0])
    on_top = started(first.head, first.tasks[1])

    for _ in range(3):
        results = await asyncio.gather(*[storage.append(each) for each in (wrong, on_top)], return_exceptions=True)
        assert [type(result) for result in results] == [VersionConflict, VersionConflict]
        assert [str(result) for result in results] == ["Tree t was changed by another writer"] * 2

    await storage.append(on_top)


@pytest.mark.asyncio
async def test_a_refusal_names_the_task_or_the_tree(storage: Storage) -> None:
    draft = replace(make_tasks("d", 1)[0], tree_id="")
    await storage.put_draft(draft)
    await storage.append(created("t"))

    with pytest.raises(VersionConflict, match=r"^Tree t was changed by another writer$") as conflict:
        await storage.append(created("t"))
    assert conflict.value.tree_id == "t"
    with pytest.raises(VersionConflict) as conflict:
        await storage.append(replace(created("u"), head=replace(created("u").head, version=3)))
    assert conflict.value.tree_id == "u"
    with pytest.raises(InvalidPlan) as taken:
        await storage.put_draft(draft)
    assert taken.value.problems == (Problem("id", "d is taken by another task"),)
    with pytest.raises(TaskNotFound, match=r"^Task gone not found$") as absent:
        await storage.put_documents(Document(kind="note", id="n", tree_id="gone", body=b"1"))
    assert absent.value.task_id == "gone"


@pytest.mark.asyncio
async def test_a_task_id_of_another_tree_is_refused(storage: Storage) -> None:
    await storage.append(created("t", 2))
    stealing = created("s", 2)
    stealing = replace(stealing, tasks=(stealing.tasks[0], replace(stealing.tasks[1], id="t.1")))

    with pytest.raises(VersionConflict):
        await storage.append(stealing)

    assert await storage.head("s") is None
    task = await storage.task("t.1")
    assert task is not None and task.tree_id == "t"


@pytest.mark.asyncio
async def test_a_tree_takes_the_place_of_its_drafts(storage: Storage) -> None:
    append = created("t", 3)
    drafts = [replace(task, tree_id="", parent_id=None, inputs={"draft": True}) for task in append.tasks]
    for draft in drafts:
        await storage.put_draft(draft)
    assert await storage.task("t.1") == drafts[1]
    assert await storage.load("t") is None

    await storage.append(append)

    assert await storage.load("t") == (append.head, list(append.tasks))
    assert await storage.count(TaskQuery(owner=None, root_only=False)) == 3


@pytest.mark.asyncio
async def test_a_draft_with_a_taken_id_is_refused(storage: Storage) -> None:
    draft = replace(make_tasks("d", 1)[0], tree_id="")
    await storage.put_draft(draft)
    await storage.append(created("t"))

    for taken in (draft, replace(draft, id="t")):
        with pytest.raises(InvalidPlan, match="id"):
            await storage.put_draft(replace(taken, name="again"))

    assert await storage.task("d") == draft


@pytest.mark.asyncio
async def test_a_draft_is_cancelled_and_nothing_else(storage: Storage) -> None:
    draft = replace(make_tasks("d", 1)[0], tree_id="")
    other = replace(make_tasks("e", 1)[0], tree_id="")
    await storage.put_draft(draft)
    await storage.put_draft(other)
    await storage.append(created("t"))
    cancelled = replace(draft, status=TaskStatus.CANCELLED, error="no longer wanted")

    assert await storage.cancel_draft(cancelled) is True
    for gone in ("t", "nobody"):
        assert await storage.cancel_draft(replace(cancelled, id=gone)) is False

    assert await storage.task("d") == cancelled
    assert await storage.task("t") == created("t").tasks[0]
    assert await storage.task("nobody") is None
    assert await storage.cancelled_drafts(["d", "e", "t", "nobody"]) == [cancelled]


@pytest.mark.asyncio
async def test_delete_removes_the_tree_with_everything_and_nothing_else(storage: Storage) -> None:
    await storage.append(created("t", 3))
    await storage.append(created("u", 3))
    await storage.put_draft(replace(make_tasks("d", 1)[0], tree_id=""))

    assert await storage.delete("t") is True
    assert await storage.delete("d") is True
    assert await storage.delete("u.1") is False

    assert await storage.load("t") is None
    assert await storage.task("t.1") is None
    assert list(await storage.events(EventQuery(tree_id="t"))) == []
    assert await storage.task("d") is None
    assert await storage.count(TaskQuery(owner=None, root_only=False)) == 3
    await storage.append(created("t"))


@pytest.mark.asyncio
async def test_a_live_tree_is_not_deleted_even_when_its_run_begins_in_the_same_turn(storage: Storage) -> None:
    """Whoever looked before cannot know: the run may begin between the look and the delete."""
    first = created("t", 2)
    await storage.append(first)
    begun = started(first.head, first.tasks[0])

    append, deleted = await asyncio.gather(storage.append(begun), storage.delete("t"), return_exceptions=True)

    assert append is None
    assert isinstance(deleted, TreeIsRunning) and deleted.task_id == "t"
    assert str(deleted) == "Task t cannot be deleted while its tree is running; cancel it first"
    assert await storage.head("t") == begun.head
    await storage.append(finished(begun.head))
    assert await storage.delete("t") is True


@pytest.mark.asyncio
async def test_a_run_that_begins_after_the_delete_is_refused(storage: Storage) -> None:
    first = created("t", 2)
    await storage.append(first)

    async def begin() -> None:
        await storage.append(started(first.head, first.tasks[0]))

    deleted, begun = await asyncio.gather(storage.delete("t"), begin(), return_exceptions=True)

    assert deleted is True
    assert isinstance(begun, VersionConflict)
    assert await storage.head("t") is None


@pytest.mark.asyncio
async def test_writes_made_together_take_effect_in_their_order(storage: Storage) -> None:
    """A tree created, deleted and created again in one turn of the event loop."""
    again = created("t", 2)

    async def append(what: Append) -> None:
        await storage.append(what)

    results = await asyncio.gather(append(created("t", 3)), storage.delete("t"), append(again))

    assert results == [None, True, None]
    assert await storage.load("t") == (again.head, list(again.tasks))


@pytest.mark.asyncio
async def test_events_are_filtered_and_paged(storage: Storage) -> None:
    first = created("t", 3)
    await storage.append(first)
    head = first.head
    for task in (*first.tasks, *first.tasks):
        append = started(head, task)
        await storage.append(append)
        head = append.head

    async def seqs(after: int = 0, **filters: object) -> list[int]:
        return [r.seq for r in await storage.events(EventQuery(tree_id="t", after=after, **filters))]  # type: ignore[arg-type]

    assert await seqs() == [1, 2, 3, 4, 5, 6, 7]
    assert await seqs(4) == [5, 6, 7]
    assert await seqs(2, until=4) == [3, 4]
    assert await seqs(limit=2) == [1, 2]
    assert await seqs(task_id="t.1") == [3, 6]
    assert await seqs(3, task_id="t.1") == [6]
    assert await seqs(kinds=["tree_created"]) == [1]
    assert await seqs(kinds={"tree_created", "task_started"}, limit=3) == [1, 2, 3]
    assert await seqs(kinds=[]) == []
    assert await seqs(kinds=["task_started"], task_id="t", limit=1) == [2]


@pytest.mark.asyncio
async def test_events_come_five_hundred_at_a_time_unless_more_are_asked_for(storage: Storage) -> None:
    first = created("t")
    await storage.append(first)
    events = tuple(recorded(first.head, seq, MessageReceived(task_id="t", message=said())) for seq in range(2, 503))
    await storage.append(Append(head=replace(first.head, version=502), events=events, tasks=()))

    assert [each.seq for each in await storage.events(EventQuery(tree_id="t"))] == list(range(1, 501))
    assert [each.seq for each in await storage.events(EventQuery(tree_id="t", limit=501))] == list(range(1, 502))


@pytest.mark.asyncio
async def test_events_keep_what_a_message_carries(storage: Storage) -> None:
    first = created("t")
    message = Said((Part(data={"n": 2**60, "x": [1.5, None, "ü"]}), Part(data=None)), {"k": []}, ("u",), "m")
    event = recorded(first.head, 2, MessageReceived(task_id="t", message=message))
    await storage.append(first)
    await storage.append(Append(head=replace(first.head, version=2), events=(event,), tasks=()))

    assert (await storage.events(EventQuery(tree_id="t", after=1)))[0] == event


@pytest.mark.asyncio
async def test_tasks_are_listed_newest_first_by_every_filter(storage: Storage) -> None:
    await storage.append(created("a", 2, owner="ann", created_at=1.0, context_id="c"))
    await storage.append(created("b", 1, owner="bob", created_at=3.0))
    await storage.append(created("c", 1, owner="ann", created_at=2.0))
    await storage.put_draft(Task(id="d", owner="ann", name="draft", user_id="u", created_at=2.0))
    c = await storage.load("c")
    assert c is not None
    await storage.append(started(c[0], c[1][0]))

    async def ids(**fields: object) -> list[str]:
        query = TaskQuery(**{"owner": None, **fields})  # type: ignore[arg-type]
        found = [task.id for task in await storage.tasks(query)]
        assert await storage.count(replace(query, limit=1, before=(0.0, ""))) == len(found) or "before" in fields
        return found

    assert await ids() == ["b", "d", "c", "a"]
    assert await ids(owner="ann") == ["d", "c", "a"]
    assert await ids(owner="ann", root_only=False) == ["d", "c", "a.1", "a"]
    assert await ids(owner="eve") == []
    assert await ids(statuses=frozenset({TaskStatus.IN_PROGRESS, TaskStatus.FAILED})) == ["c"]
    assert await ids(statuses=frozenset()) == []
    assert await ids(user_id="u") == ["d"]
    assert await ids(name="draft", owner="ann") == ["d"]
    assert await ids(context_id="c", root_only=False) == ["a.1", "a"]
    assert await ids(limit=2, before=(3.0, "b")) == ["d", "c"]
    assert await ids(limit=2, before=(2.0, "c")) == ["a"]


@pytest.mark.asyncio
async def test_tasks_are_found_by_the_tenant_of_their_owner(storage: Storage) -> None:
    ann, bob, eve = owner_of("t", "ann"), owner_of("t", "bob"), owner_of("u", "ann")
    for n, owner in enumerate((ann, bob, eve, "anonymous")):
        await storage.append(created(f"t{n}", 2, owner=owner, created_at=float(n)))
    whose: dict[str, list[str]] = {"t": ["t1", "t0"], "u": ["t2"], "": ["t3"], "v": []}
    for tenant, trees in whose.items():
        query = TaskQuery(owner=None, tenant=tenant)
        assert [task.id for task in await storage.tasks(query)] == trees
        both = replace(query, root_only=False, statuses=frozenset({TaskStatus.PENDING}))
        assert (len(await storage.tasks(both)), await storage.count(both)) == (2 * len(trees), 2 * len(trees))
        for n in range(4):
            is_theirs = f"t{n}" in trees
            assert (await storage.head(f"t{n}", tenant=tenant) is not None) == is_theirs
            assert (await storage.task(f"t{n}.1", tenant=tenant) is not None) == is_theirs
    everybodys = TaskQuery(owner=None, limit=3)
    first = await storage.tasks(everybodys)
    rest = await storage.tasks(replace(everybodys, before=(first[-1].created_at, first[-1].id)))
    assert [task.id for task in (*first, *rest)] == ["t3", "t2", "t1", "t0"]
    is_open = frozenset({TaskStatus.PENDING})
    assert len(await storage.tasks(replace(everybodys, root_only=False, statuses=is_open, limit=9))) == 8
    assert await storage.tasks(TaskQuery(owner=ann, tenant="u")) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.asyncio
async def test_pages_of_tasks_have_each_row_once_whatever_comes_and_goes(storage: Storage, seed: int) -> None:
    """Rows come and go between the pages: none is told twice, and none that was there all the time is missed."""
    chance = random.Random(seed)
    there = [f"r{n}" for n in range(chance.randrange(1, 30))]
    for name in there:
        await storage.append(created(name, 1, owner="ann", created_at=float(chance.randrange(4))))
    stays, made = set(there), 0
    seen: list[str] = []
    query = TaskQuery(owner="ann", limit=chance.randrange(1, 6))
    while page := await storage.tasks(query):
        seen += [task.id for task in page]
        query = replace(query, before=(page[-1].created_at, page[-1].id))
        for _ in range(chance.randrange(4)):
            if there and chance.random() < 0.5:
                gone = there.pop(chance.randrange(len(there)))
                stays.discard(gone)
                await storage.delete(gone)
            else:
                made += 1
                await storage.append(created(f"n{made}", 1, owner="ann", created_at=float(chance.randrange(5))))
    assert len(seen) == len(set(seen)), "a row came twice"
    assert stays <= set(seen), "a row was missed"


@pytest.mark.asyncio
async def test_keyset_pages_of_trees_are_complete_under_equal_times(storage: Storage) -> None:
    times = [5.0, 5.0, 5.0, 2.0, 5.0, 9.0, 9.0]
    for i, at in enumerate(times):
        await storage.append(created(f"t{i}", owner="ann", created_at=at))
    await storage.append(created("other", owner="bob", created_at=5.0))

    seen: list[TreeHead] = []
    before = None
    while True:
        page = await storage.trees(TreeQuery(owner="ann", limit=2, before=before))
        assert page.total == len(times)
        seen += page.heads
        if not page.has_more:
            break
        before = (page.heads[-1].updated_at, page.heads[-1].id)

    assert [head.id for head in seen] == ["t6", "t5", "t4", "t2", "t1", "t0", "t3"]


@pytest.mark.asyncio
async def test_a_page_that_is_just_full_has_none_after_it(storage: Storage) -> None:
    for name in "abc":
        await storage.append(created(name))

    full = await storage.trees(TreeQuery(owner=None, limit=3))
    short = await storage.trees(TreeQuery(owner=None, limit=2))

    assert (len(full.heads), full.has_more) == (3, False)
    assert (len(short.heads), short.has_more) == (2, True)


@pytest.mark.asyncio
async def test_trees_are_filtered(storage: Storage) -> None:
    await storage.append(created("a", origin="a2a", context_id="c", created_at=1.0))
    await storage.append(created("b", origin="tasks", created_at=2.0, status=TaskStatus.FAILED))
    await storage.append(created("c", origin="a2a", created_at=3.0))

    async def ids(**fields: object) -> list[str]:
        page = await storage.trees(TreeQuery(**{"owner": None, **fields}))  # type: ignore[arg-type]
        assert page.total == len(page.heads) and not page.has_more
        return [head.id for head in page.heads]

    assert await ids(origin="a2a") == ["c", "a"]
    assert await ids(context_id="c") == ["a"]
    assert await ids(statuses=frozenset({TaskStatus.FAILED})) == ["b"]
    assert await ids(updated_since=2.0) == ["c", "b"]
    assert await ids(updated_since=2.0, origin="a2a") == ["c"]


@pytest.mark.asyncio
async def test_live_trees_are_those_with_a_run_that_has_not_ended(storage: Storage) -> None:
    appends = [created(name, created_at=at) for name, at in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 4.0))]
    for append in appends:
        await storage.append(append)
    running = [started(append.head, append.tasks[0]) for append in appends[:3]]
    for append in running:
        await storage.append(append)
    await storage.append(finished(running[2].head))

    assert await storage.live_trees() == ["b", "a"]


@pytest.mark.asyncio
async def test_what_lives_is_adopted_once_after_an_opening(storage: Storage) -> None:
    """By whoever has the database to itself; where members share one, see the tests of leases."""
    tree = created("t")
    await storage.append(tree)
    assert await storage.owner_of("t") == await storage.owner_of("unknown") == OF_NOBODY
    await storage.append(started(tree.head, tree.tasks[0]))
    assert await storage.owner_of("t") == storage.lease
    assert await storage.lapsed() == OF_NOBODY
    await storage.settle(OF_NOBODY)
    assert await storage.lapsed() is None and not storage.is_fenced
    if isinstance(storage, MemoryStorage):
        return  # it keeps nothing when it is closed, but for another core of the same process

    before = storage.lease
    await storage.close()
    await storage.open()
    adopted: list[str] = []
    while (lease := await storage.lapsed()) is not None:
        adopted += await storage.adopt(lease)
        await storage.settle(lease)
    assert adopted == ["t"]
    assert await storage.owner_of("t") == storage.lease
    assert storage.lease == before == OF_NOBODY or storage.lease != before, "a new one at each opening"


@pytest.mark.asyncio
async def test_many_trees_are_read_as_each_is_alone(storage: Storage) -> None:
    for n in range(5):
        await storage.append(created(f"tree{n}", 1 + n))
    ids = [f"tree{n}" for n in (3, 0, 4)]

    found = {head.id: (head, tasks) for head, tasks in await storage.load_many([*ids, "unknown"])}

    assert found == {tree_id: await storage.load(tree_id) for tree_id in ids}
    assert await storage.load_many([]) == []


@pytest.mark.asyncio
async def test_close_finishes_what_was_appended_and_refuses_the_rest(storage: Storage) -> None:
    first = asyncio.ensure_future(storage.append(created("t")))

    await storage.close()
    await storage.close()

    assert first.done() and first.exception() is None
    with pytest.raises(StorageUnavailable, match=r"^The (storage|database) is closed$"):
        await storage.append(created("u"))
    with pytest.raises(StorageUnavailable, match=r"^The (storage|database) is closed$"):
        await storage.put_draft(make_tasks("d", 1)[0])


@pytest.mark.asyncio
async def test_memory_that_was_never_opened_refuses_writes() -> None:
    with pytest.raises(StorageUnavailable, match=r"^The storage is closed$"):
        await MemoryStorage().append(created("t"))


@pytest.mark.asyncio
async def test_a_row_can_be_asked_for_as_its_owners(storage: Storage) -> None:
    await storage.append(created("t", 2))
    head = await storage.head("t")
    assert head is not None

    assert await storage.head("t", owner=head.owner) == head
    assert await storage.task("t.1", owner=head.owner) == await storage.task("t.1")
    for foreign in ("", "somebody else"):
        assert await storage.head("t", owner=foreign) is None
        assert await storage.task("t.1", owner=foreign) is None
    assert await storage.head("nosuch", owner=head.owner) is None


@pytest.mark.asyncio
async def test_a_caller_that_goes_away_changes_nothing_of_what_is_written(storage: Storage) -> None:
    """Neither when its write succeeds nor when it is refused, and nobody else hears of it."""
    first = created("t", 2)
    left = asyncio.ensure_future(storage.append(first))
    refused = asyncio.ensure_future(storage.append(created("t")))
    left.cancel()
    refused.cancel()

    await storage.append(created("u"))

    assert left.cancelled() and refused.cancelled()
    assert await storage.load("t") == (first.head, list(first.tasks))
    await storage.append(started(first.head, first.tasks[0]))


@pytest.mark.asyncio
async def test_a_flush_hastens_what_was_appended_and_is_nothing_once_closed(storage: Storage) -> None:
    tree = created("t")
    first = storage.append(tree)
    storage.flush()
    await first
    assert await storage.load("t") == (tree.head, list(tree.tasks))
    await storage.close()
    storage.flush()


@pytest.mark.asyncio
async def test_what_failed_is_forgotten_when_everybody_knows_of_it(storage: Storage) -> None:
    """Found by a soak: a tree whose creation was refused was remembered for ever."""
    await storage.append(created("t"))
    with pytest.raises(VersionConflict):
        await storage.append(started(created("never stored").head, created("never stored").tasks[0]))

    await storage.append(created("u"))

    keeper = storage if isinstance(storage, MemoryStorage) else storage._writer._writer  # type: ignore[attr-defined]
    assert not keeper._failed


@pytest.mark.asyncio
async def test_a_storage_tells_what_it_holds_for_whom_and_whether_it_takes_writes(storage: Storage) -> None:
    append = created("t", 3, owner="ann")
    await storage.append(append)
    is_kept = not isinstance(storage, MemoryStorage)  # memory has no quota, and nothing that could be lost
    assert storage.refusal() is None
    assert bool(storage.identity) is is_kept
    assert (storage.written("ann") > 0) is (await storage.stored("ann") > 0) is is_kept
    assert (storage.written("bob"), await storage.stored("bob")) == (0, 0)


@pytest.mark.asyncio
async def test_tasks_since_a_moment_are_listed_on_every_page(storage: Storage) -> None:
    for n in range(6):
        await storage.append(created(f"s{n}", 1, owner="ann", created_at=float(n // 2)))
    query = TaskQuery(owner="ann", since=1.0, limit=3)
    first = await storage.tasks(query)
    rest = await storage.tasks(replace(query, before=(first[-1].created_at, first[-1].id)))
    assert [task.id for task in (*first, *rest)] == ["s5", "s4", "s3", "s2"]
    assert await storage.count(query) == 4
    everybodys = replace(query, owner=None, since=1.5)
    assert [task.id for task in await storage.tasks(everybodys)] == ["s5", "s4"]


async def with_messages(storage: Storage, sizes: Sequence[int]) -> None:
    """A tree "t" of two tasks; its second event and the following ones are messages of so many characters."""
    for neighbour in ("s", "u"):  # in the order of keys before and behind it
        await storage.append(created(neighbour))
    first = created("t", 2)
    await storage.append(first)
    events = tuple(
        recorded(first.head, seq, MessageReceived(task_id="t" if seq % 2 else "t.1", message=said("y" * size)))
        for seq, size in enumerate(sizes, 2)
    )
    await storage.append(Append(head=replace(first.head, version=1 + len(events)), events=events, tasks=()))


@pytest.mark.asyncio
async def test_few_events_are_read_whole_or_not_at_all(storage: Storage) -> None:
    await with_messages(storage, [10, 1_000, 10])
    said = ["message_received"]

    async def seqs(**bounds: object) -> list[int] | None:
        bounds = {"until": 4, "limit": 10, "max_bytes": 10_000, **bounds}
        found = await storage.few_events(EventQuery(tree_id="t", **bounds))  # type: ignore[arg-type]
        return None if found is None else [each.seq for each in found]

    assert await seqs() == [1, 2, 3, 4]
    assert await seqs(limit=4) == [1, 2, 3, 4]
    assert await seqs(limit=3) is None
    assert await seqs(max_bytes=1_000) is None, "one of them is larger"
    assert await seqs(until=2, max_bytes=1_000) == [1, 2]
    assert await seqs(until=3, kinds=said, max_bytes=1_100) is None, "the last of them is too large"
    assert await seqs(task_id="t.1", kinds=said, max_bytes=1_000) == [2, 4]
    assert await seqs(kinds=[]) == []
    size = sum(place.size for place in await storage.event_places(EventQuery(tree_id="t", until=4, limit=10)))
    assert await seqs(max_bytes=size) == [1, 2, 3, 4]
    assert await seqs(max_bytes=size - 1) is None


@pytest.mark.asyncio
async def test_places_of_events_are_known_without_their_bodies(storage: Storage) -> None:
    await with_messages(storage, [10, 1_000, 10])
    said = ["message_received"]

    places = await storage.event_places(EventQuery(tree_id="t", until=4, limit=10))
    assert [place[:3] for place in places] == [
        (4, "message_received", "t.1"),
        (3, "message_received", "t"),
        (2, "message_received", "t.1"),
        (1, "tree_created", "t"),
    ]
    assert [place.size > 1_000 for place in places] == [False, True, False, False]
    assert places[1].size - places[2].size == 988, "990 more characters, and a shorter id"
    assert await storage.event_places(EventQuery(tree_id="t", until=4, limit=2)) == places[:2]
    assert await storage.event_places(EventQuery(tree_id="t", until=3, limit=9, kinds=said, task_id="t.1")) == [
        places[2]
    ]
    assert await storage.event_places(EventQuery(tree_id="t", until=4, limit=9, kinds=[])) == []


@pytest.mark.asyncio
async def test_events_are_read_by_their_numbers(storage: Storage) -> None:
    await with_messages(storage, [10, 1_000, 10])

    assert [each.seq for each in await storage.events_at("t", [4, 2, 9])] == [2, 4]
    assert await storage.events_at("t", [2, 4]) == [
        each for each in await storage.events(EventQuery(tree_id="t")) if each.seq in (2, 4)
    ]
    assert await storage.events_at("t", []) == []
    assert [each.tree_id for each in await storage.events_at("u", [1, 2])] == ["u"]
    assert (
        await storage.events_at("v", [1]) == await storage.event_places(EventQuery(tree_id="r", until=9, limit=9)) == []
    )


@pytest.mark.asyncio
async def test_a_storage_has_a_clock(storage: Storage) -> None:
    assert abs(await storage.time() - time.time()) < 60
    assert isinstance(storage.is_exclusive, bool)
