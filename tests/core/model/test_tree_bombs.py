"""R18: trees that are meant to break whoever judges them, against a reference that knows nothing of the product."""

import random
import time
from collections import Counter, deque
from typing import Any

import pytest

from core.executors.schema import judge_schema
from core.model.errors import InvalidPlan
from core.model.plan import Limits, Rules, make_plan
from core.model.task import TaskStatus
from core.session import has_ended
from tests.core.cores import Bench, virtual_time
from tests.core.model.test_plan import plan, problems
from tests.faults.report import report

GRAPHS = 500
LIMITS = Limits(max_tasks=80, max_depth=12)
GIANT = 100_000
Items = list[dict[str, Any]]


# The reference: Kahn's algorithm over plain dicts


def runs_dry(edges: dict[int, list[int]]) -> bool:
    """Whether taking away, again and again, what points at nothing leaves nothing."""
    pointed: dict[int, list[int]] = {node: [] for node in edges}
    for node, targets in edges.items():
        for target in targets:
            pointed[target].append(node)
    left = {node: len(targets) for node, targets in edges.items()}
    free = deque(node for node, count in left.items() if count == 0)
    taken = 0
    while free:
        taken += 1
        for node in pointed[free.popleft()]:
            left[node] -= 1
            if left[node] == 0:
                free.append(node)
    return taken == len(edges)


def defects(items: Items) -> set[str]:
    """All that is wrong with an array, by kind; of one that is too large only that."""
    if len(items) > LIMITS.max_tasks:
        return {"size"}
    found: set[str] = set()
    place = {item["id"]: n for n, item in reversed(list(enumerate(items)))}
    if len(place) < len(items):
        found.add("duplicate id")
    parents: dict[int, list[int]] = {}
    needs: dict[int, list[int]] = {}
    for n, item in enumerate(items):
        parent = item.get("parent_id")
        if parent is not None and parent not in place:
            found.add("unknown parent")
        parents[n] = [place[parent]] if parent in place else []
        if item["id"] in item["dependencies"]:
            found.add("self-dependency")
        if any(key not in place for key in item["dependencies"]):
            found.add("missing reference")
        if len(set(item["dependencies"])) < len(item["dependencies"]):
            found.add("dependency twice")
        needs[n] = [place[key] for key in item["dependencies"] if key in place and place[key] != n]
    if sum("parent_id" not in item for item in items) > 1:
        found.add("two roots")
    if not runs_dry(parents):
        return found | {"cycle"}
    if max(depth_of(parents).values()) > LIMITS.max_depth:
        found.add("depth")
    for n, item in enumerate(items):  # a folder waits for its children
        if parents[n] and items[parents[n][0]]["name"] == "folder":
            needs[parents[n][0]].append(n)
        if item["name"] == "folder" and not any(up == [n] for up in parents.values()):
            found.add("empty folder")
    return found | (set() if runs_dry(needs) else {"cycle"})


def depth_of(parents: dict[int, list[int]]) -> dict[int, int]:
    children: dict[int, list[int]] = {node: [] for node in parents}
    for node, up in parents.items():
        for parent in up:
            children[parent].append(node)
    depth = {node: 1 for node, up in parents.items() if not up}
    waiting = deque(depth)
    while waiting:
        node = waiting.popleft()
        for child in children[node]:
            depth[child] = depth[node] + 1
            waiting.append(child)
    return depth


# Graphs with defects


def a_tree(chance: random.Random) -> Items:
    """A right one, mostly: dependencies go backwards, and never to an ancestor."""
    size = chance.randint(2, 50)
    items: Items = [{"id": "t0", "name": chance.choice(("work", "folder")), "dependencies": []}]
    above: list[set[int]] = [set()]
    for n in range(1, size):
        parent = chance.choice([other for other in range(n) if len(above[other]) < LIMITS.max_depth - 1])
        above.append(above[parent] | {parent})
        others = [other for other in range(n) if other not in above[n]]
        needs = chance.sample(others, min(len(others), chance.choice((0, 0, 1, 2))))
        items.append({
            "id": f"t{n}", "name": "work", "parent_id": f"t{parent}", "dependencies": [f"t{m}" for m in needs],
        })  # fmt: skip
    return items


def plant(defect: str, items: Items, chance: random.Random) -> str:
    """Break the tree in one way; a name that the refusal has to have, of a field or a task."""
    place = chance.randrange(1, len(items))
    item = items[place]
    match defect:
        case "cycle":
            other = items[chance.randrange(1, len(items))]
            for one, needed in ((item, other), (other, item)):
                if needed["id"] not in one["dependencies"]:
                    one["dependencies"].append(needed["id"])
            return ""
        case "self-dependency":
            item["dependencies"].append(item["id"])
            return f"tasks[{place}].dependencies[{len(item['dependencies']) - 1}]"
        case "duplicate id":
            item["id"] = items[0]["id"]
            return f"tasks[{place}].id"
        case "missing reference":
            item["dependencies"].append("nowhere")
            return f"tasks[{place}].dependencies[{len(item['dependencies']) - 1}]"
        case "unknown parent":
            item["parent_id"] = "nowhere"
            return f"tasks[{place}].parent_id"
        case "two roots":
            del item["parent_id"]
            return f"'{item['id']}'"
        case "depth":
            for n in range(LIMITS.max_depth):
                items.append({
                    "id": f"d{n}", "name": "work", "parent_id": f"d{n - 1}" if n else item["id"], "dependencies": [],
                })  # fmt: skip
            return "levels deep"
        case "size":
            items += [{"id": f"s{n}", "name": "work", "parent_id": "t0", "dependencies": []} for n in range(80)]
            return "allowed"
    return ""


DEFECTS = (
    "none", "cycle", "self-dependency", "duplicate id", "missing reference", "unknown parent", "two roots",
    "depth", "size",
)  # fmt: skip


def test_every_verdict_is_that_of_the_reference() -> None:
    """And the refusal names what was planted."""
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    verdicts: Counter[bool] = Counter()
    for n in range(GRAPHS):
        items = a_tree(chance)
        name = plant(DEFECTS[n % len(DEFECTS)], items, chance)
        if not name.startswith("tasks["):
            chance.shuffle(items)
        wrong = defects(items)
        verdicts[not wrong] += 1
        try:
            plan(items, LIMITS)
        except InvalidPlan as refusal:
            assert wrong, (items, str(refusal))
            told = [f"{problem.field}: {problem.message}" for problem in refusal.problems]
            assert any(name in each for each in told), (name, told)
        else:
            assert not wrong, (wrong, items)
    assert verdicts[True] >= 25 and verdicts[False] >= 250, verdicts
    figures = (
        f"{GRAPHS} of {GRAPHS} verdicts as the reference's: {verdicts[True]} trees, {verdicts[False]} refused by name"
    )
    report("R18", "graphs with planted defects", figures, seed=seed)


def test_the_reference_finds_what_the_plan_is_told_to_overlook() -> None:
    """The control: without limits the same trees pass, and the reference disagrees."""
    chance = random.Random(7)
    for defect in ("depth", "size"):
        items = a_tree(chance)
        plant(defect, items, chance)
        assert defects(items) == {defect}
        assert plan(items, None).tasks


# Giants


def test_a_million_tasks_are_refused_at_once() -> None:
    items: Any = [{"name": "work"}] * 1_000_000
    begin = time.process_time()
    assert problems(items, Limits()) == [("tasks", "1000000 tasks are more than the 10000 allowed")]
    spent = time.process_time() - begin
    assert spent < 0.05
    report("R18", "a million tasks", f"refused in {1000 * spent:.1f} ms of processor time")


@pytest.mark.slow
def test_fans_of_a_hundred_thousand_are_judged() -> None:
    """Out of one task, and into one."""
    fan = [{"id": "root", "name": "work"}]
    fan += [{"id": str(n), "name": "work", "parent_id": "root"} for n in range(GIANT)]
    assert len(plan(fan).tasks) == GIANT + 1
    last = {"id": "last", "name": "work", "parent_id": "root", "dependencies": [str(n) for n in range(GIANT)]}
    assert len(plan([*fan, last]).tasks[-1].dependencies) == GIANT
    last["dependencies"] = ["0"] * GIANT
    assert problems([*fan, last])[0][0] == f"tasks[{GIANT + 1}].dependencies[1]"


@pytest.mark.parametrize("depth", [100, 1_900, 100_000])
def test_an_input_schema_of_any_depth_is_judged_or_refused(depth: int) -> None:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    items = [{"name": "work", "schemas": {"input_schema": schema}}]
    try:
        rules = Rules(lambda *named: "work", list, judge_schema)
        make_plan(items, rules, new_id=lambda: "n", now=0.0, owner="")
    except InvalidPlan as refusal:
        assert [problem.field for problem in refusal.problems] == ["tasks[0].schemas.input_schema"]


@pytest.mark.slow
@virtual_time
async def test_a_chain_of_a_hundred_thousand_runs_to_its_end() -> None:
    """Each task starts when the one before has ended; nothing recurses."""
    bench = Bench()
    session = bench.session()
    await session.start()
    items = [{"id": "root", "name": "work"}]
    items += [
        {"id": f"t{n}", "name": "work", "parent_id": "root"} | ({"dependencies": [f"t{n - 1}"]} if n else {})
        for n in range(GIANT)
    ]
    head = (await session.create(session.plan(items), execute=True)).head
    await session.wait(head.id, has_ended)
    stored = await session.storage.load(head.id)
    assert stored is not None
    assert stored[0].status is TaskStatus.COMPLETED
    assert {task.status for task in stored[1]} == {TaskStatus.COMPLETED}
    chain = [name for name in bench.started if name != "root"]
    assert chain == [f"t{n}" for n in range(GIANT)]
    report("R18", "a chain of dependencies", f"{GIANT} tasks judged and run one after the other, 0 RecursionError")
    await session.close(1)
