"""What operators may do, and to whose: every method of our own × every kind of caller × tenant (decision 0006)."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from a2a_server.auth.principal import NOBODY, Principal
from a2a_server.auth.stored_keys import Grant
from core.model.owners import owner_of, tenant_of
from core.session import needs_caller
from tests.a2a_server.conftest import Caller, RpcError, calling, message, running, tree_message

DENIED, MISSING = -32053, "not found"


def caller(tenant: str, name: str, *, is_operator: bool = False) -> Principal:
    return Principal(id=name, tenant=tenant, is_operator=is_operator, owner=owner_of(tenant, name))


ANN = caller("t", "ann", is_operator=True)  # whose tree it is
CALLERS = {
    "owner": ANN,
    "user of the tenant": caller("t", "bob"),
    "operator of the tenant": caller("t", "opa", is_operator=True),
    "user of another tenant": caller("u", "ann"),
    "operator of another tenant": caller("u", "ann", is_operator=True),
    "the server's operator": caller("", "root", is_operator=True),
    "user without a tenant": caller("", "eve"),
}
SEE = ("owner", "operator of the tenant", "the server's operator")  # the tree, through `tasks.*`
USERS = {name for name, each in CALLERS.items() if not each.is_operator}

# Method -> its params for the owner's tree and dead letter.
ON_A_TREE: dict[str, Any] = {
    "tasks.get": {"task_id": "TREE"},
    "tasks.detail": {"task_id": "TREE"},
    "tasks.tree": {"task_id": "TREE"},
    "tasks.children": {"parent_id": "TREE"},
    "tasks.events": {"task_id": "TREE"},
    "tasks.copy": {"task_id": "TREE"},
    "tasks.execute": {"task_id": "TREE", "force": True, "wait": True},
    "tasks.answer": {"task_id": "TREE", "answer": 1},
    "tasks.update": {"task_id": "TREE", "priority": 1},
    "tasks.delete": {"task_id": "TREE"},
}
# Method -> its params, and what those who do not see the tree get in place of the owner's things.
WITHOUT_FOREIGN: dict[str, tuple[Any, Any]] = {
    "tasks.list": ({}, []),
    "tasks.running.list": ({}, []),
    "tasks.running.count": ({}, {"count": 0}),
    "tasks.running.status": (
        {"task_ids": ["TREE"]},
        [{"task_id": "TREE", "status": "not_found", "is_running": False}],
    ),
    "tasks.cancel": (
        {"task_ids": ["TREE"]},
        [{"task_id": "TREE", "status": "failed", "message": "Task TREE not found"}],
    ),
    "push.deliveries": ({}, {"deliveries": [], "next": None}),
    "push.resend": (
        {"delivery_ids": ["TREE/c/1"]},
        [{"delivery_id": "TREE/c/1", "delivered": False, "error": "there is no such dead letter"}],
    ),
}
KEYS = ("keys.create", "keys.list", "keys.rotate", "keys.revoke")
NOBODYS = ("tasks.create", "system.executors")  # they touch nothing of anybody's


class Scene:
    """A server with a tree of ann's, and a key of each tenant."""

    def __init__(self, call: Caller, tree_id: str, keys: dict[str, str]) -> None:
        self.call = call
        self.tree_id = tree_id
        self.keys = keys

    def named(self, value: Any) -> Any:
        """The value with the tree's real id."""
        if isinstance(value, str):
            return value.replace("TREE", self.tree_id)
        if isinstance(value, dict):
            return {name: self.named(each) for name, each in value.items()}
        return [self.named(each) for each in value] if isinstance(value, list) else value

    async def outcome(self, method: str, params: Any, who: str) -> Any:
        """The result, or the error's code, or MISSING for what does not exist for the caller."""
        try:
            return await self.call(method, params, principal=CALLERS[who])
        except RpcError as error:
            return MISSING if error.code == -32001 or "unknown key" in error.message else error.code


@pytest_asyncio.fixture
async def scene() -> AsyncIterator[Scene]:
    async with calling(auth=("keys",)) as call:
        made = await call("tasks.execute", {"tasks": [{"name": "echo"}], "wait": True}, principal=ANN)
        grants = {tenant: Grant(principal="x", tenant=tenant) for tenant in ("", "t", "u")}
        keys = {tenant: (await call.application.keys.create(grant))[0].id for tenant, grant in grants.items()}
        yield Scene(call, made["root_task_id"], keys)


@pytest.mark.asyncio
async def test_every_method_of_our_own_is_in_one_of_the_tables(scene: Scene) -> None:
    own = {name for name, each in scene.call.application.json_rpc.methods.items() if "." in name and not each.is_open}
    assert own == {*ON_A_TREE, *WITHOUT_FOREIGN, *KEYS, *NOBODYS}


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("method", ON_A_TREE)
@pytest.mark.asyncio
async def test_a_tree_is_its_owners_and_its_operators(scene: Scene, method: str, who: str) -> None:
    """Found from outside: an operator could not see the tasks of callers in trouble."""
    before = await scene.call.session.storage.head(scene.tree_id)
    outcome = await scene.outcome(method, scene.named(ON_A_TREE[method]), who)
    if who in SEE:
        assert outcome not in (DENIED, MISSING)
    else:
        assert outcome == (DENIED if who in USERS else MISSING)
        assert await scene.call.session.storage.head(scene.tree_id) == before


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("method", WITHOUT_FOREIGN)
@pytest.mark.asyncio
async def test_lists_have_nothing_of_others(scene: Scene, method: str, who: str) -> None:
    params, nothing = WITHOUT_FOREIGN[method]
    outcome = await scene.outcome(method, scene.named(params), who)
    if who in USERS:
        assert outcome == DENIED
    elif who not in SEE or (who != "owner" and method in ("push.deliveries", "push.resend")):
        assert outcome == scene.named(nothing)
    elif method in ("tasks.list", "tasks.running.status", "tasks.cancel"):
        assert outcome not in (DENIED, scene.named(nothing))


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("tenant", ["", "t", "u", None])
@pytest.mark.asyncio
async def test_operators_make_keys_for_their_own_tenant_and_the_servers_for_any(
    scene: Scene, who: str, tenant: str | None
) -> None:
    """Found from outside: an operator could make a key for another tenant's caller."""
    given = {"principal": "new"} | ({} if tenant is None else {"tenant": tenant})
    outcome = await scene.outcome("keys.create", given, who)
    own = CALLERS[who].tenant
    if who in USERS or (own and tenant not in (None, own)):
        assert outcome == DENIED
        assert len(await scene.call.application.keys.all()) == len(scene.keys)
    else:
        assert outcome["tenant"] == (own if tenant is None else tenant)


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.asyncio
async def test_operators_list_the_keys_of_their_tenant(scene: Scene, who: str) -> None:
    outcome = await scene.outcome("keys.list", {}, who)
    if who in USERS:
        assert outcome == DENIED
    else:
        own = CALLERS[who].tenant
        assert [key["tenant"] for key in outcome] == ([own] if own else ["", "t", "u"])


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("tenant", ["", "t", "u"])
@pytest.mark.parametrize("method", ["keys.rotate", "keys.revoke"])
@pytest.mark.asyncio
async def test_a_key_of_another_tenant_is_one_that_does_not_exist(
    scene: Scene, method: str, tenant: str, who: str
) -> None:
    keys = scene.call.application.keys
    before = await keys.all()
    outcome = await scene.outcome(method, {"id": scene.keys[tenant]}, who)
    own = CALLERS[who].tenant
    if who not in USERS and own in ("", tenant):
        assert outcome["id"] == scene.keys[tenant]
    else:
        assert outcome == (DENIED if who in USERS else MISSING)
        assert await keys.all() == before


@pytest.mark.parametrize(
    ("who", "count"),
    [
        ("owner", 1),
        ("user of the tenant", 0),
        ("operator of the tenant", 1),
        ("user of another tenant", 0),
        ("operator of another tenant", 0),
        ("the server's operator", 1),
        ("user without a tenant", 0),
    ],
)
@pytest.mark.asyncio
async def test_health_counts_a_callers_own_tasks_and_an_operators_those_of_its_tenant(who: str, count: int) -> None:
    """Found from outside: system.health told each caller how many tasks all others ran."""
    async with calling(auth=("keys",)) as call:
        held = message("hold", {"data": {"key": "k"}}) | {"configuration": {"returnImmediately": True}}
        await call("SendMessage", held, principal=caller("t", "ann"))
        await call.lab.started["k"].wait()
        asks = caller("t", "ann") if who == "owner" else CALLERS[who]
        assert (await call("system.health", principal=asks))["running_tasks"] == count
        call.lab.released["k"].set()


@pytest.mark.asyncio
async def test_health_counts_everything_where_nobody_is_identified() -> None:
    async with calling() as call:
        held = message("hold", {"data": {"key": "k"}}) | {"configuration": {"returnImmediately": True}}
        await call("SendMessage", held)
        await call.lab.started["k"].wait()
        assert (await call("system.health"))["running_tasks"] == 1
        call.lab.released["k"].set()


@pytest.mark.parametrize(
    ("owner", "tenant"),
    [
        (owner_of("t", "ann"), "t"),
        (owner_of("", "ann"), ""),
        (NOBODY.owner, ""),
        ('["t"]', ""),
        ('["t", "a", "b"]', ""),
        ("", ""),
    ],
)
def test_an_owner_tells_its_tenant(owner: str, tenant: str) -> None:
    assert tenant_of(owner) == tenant


@pytest.mark.asyncio
async def test_the_events_of_a_tree_are_its_owners_and_its_operators() -> None:
    async with running(auth=("keys",)) as server, server.client() as client:
        keys = {}
        for who, each in CALLERS.items():
            grant = Grant(principal=each.id, tenant=each.tenant, is_operator=each.is_operator)
            _, keys[who] = await server.application.keys.create(grant)
        run = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tasks.execute",
            "params": {"tasks": [{"name": "echo"}], "wait": True},
        }
        made = (await client.post("/", json=run, headers={"X-API-Key": keys["owner"]})).json()["result"]
        told = {}
        for who, key in keys.items():
            answer = await client.get(f"/tasks/{made['id']}/events", headers={"X-API-Key": key})
            told[who] = (answer.status_code, "task_completed" in answer.text)
        denied, missing = (403, False), (404, False)
        assert told == {who: denied if who in USERS else missing for who in CALLERS} | dict.fromkeys(SEE, (200, True))


BOB = caller("t", "bob")
OPERATORS = {"opa": CALLERS["operator of the tenant"], "root": CALLERS["the server's operator"]}
ASKS = ({"id": "r", "name": "all"}, {"id": "q", "name": "ask", "parent_id": "r"})


async def by_whom(call: Caller, tree_id: str, principal: Principal) -> list[tuple[str, Any]]:
    """What the tree's events say was done, and by whom, where that was not its owner."""
    events = await call("tasks.events", {"task_id": tree_id}, principal=principal)
    return [(each["type"], each["by"]) for each in events if "by" in each]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.asyncio
async def test_an_operator_acts_on_a_callers_tree_and_its_events_say_who_it_was(name: str) -> None:
    """A caller's tree, made over A2A: answered, rerun as a copy, changed, cancelled, removed by the operator."""
    operator = OPERATORS[name]
    by = {"tenant": operator.tenant, "principal": operator.id}
    async with calling(auth=("keys",)) as call:
        task = await call("SendMessage", tree_message(*ASKS), principal=BOB)
        tree_id = task["task"]["id"]
        for _ in range(2):
            await call("tasks.answer", {"task_id": tree_id, "answer": "x"}, principal=operator)
            await call.session.wait(tree_id, needs_caller)
        assert ("progress", by) in await by_whom(call, tree_id, operator)
        run = await call("tasks.execute", {"task_id": tree_id, "force": True}, principal=operator)
        again = run["root_task_id"]
        assert again != tree_id, "A2A's final states are final: it is a copy"
        await call("tasks.cancel", {"task_ids": [again]}, principal=operator)
        told = await by_whom(call, again, operator)
        assert {"task_cancelled", "progress"} <= {kind for kind, _ in told} and all(each == by for _, each in told)
        copy = await call("tasks.copy", {"task_id": tree_id}, principal=operator)
        await call("tasks.update", {"task_id": copy["id"], "priority": 0}, principal=operator)
        assert [kind for kind, _ in await by_whom(call, copy["id"], operator)] == ["progress", "progress"]
        heads = [await call.session.storage.head(each) for each in (tree_id, again, copy["id"])]
        assert {head.owner for head in heads if head is not None} == {BOB.owner}, "they stay the caller's"
        listed = await call("tasks.list", {}, principal=operator)
        assert {each["id"] for each in listed} == {tree_id, again, copy["id"]}
        await call("tasks.delete", {"task_id": copy["id"]}, principal=operator)
        assert len(await call("tasks.list", {}, principal=operator)) == 2


@pytest.mark.asyncio
async def test_what_an_owner_does_is_told_without_a_name() -> None:
    async with calling(auth=("keys",)) as call:
        made = await call("tasks.execute", {"tasks": [{"name": "hold", "inputs": {"key": "k"}}]}, principal=ANN)
        await call("tasks.cancel", {"task_ids": [made["root_task_id"]]}, principal=ANN)
        assert await by_whom(call, made["root_task_id"], ANN) == []


@pytest.mark.asyncio
async def test_what_an_operator_copies_counts_for_the_trees_owner() -> None:
    async with calling(auth=("keys",), max_open_tasks=2) as call:
        made = await call("tasks.create", [{"name": "echo"}], principal=ANN)
        operator = OPERATORS["opa"]
        await call("tasks.copy", {"task_id": made["id"]}, principal=operator)
        with pytest.raises(RpcError, match="your tasks are unfinished"):
            await call("tasks.copy", {"task_id": made["id"]}, principal=operator)
        assert await call("tasks.create", [{"name": "echo"}], principal=operator)


@pytest.mark.asyncio
async def test_a_caller_whom_nobody_identifies_sees_nothing_of_those_who_were() -> None:
    """Without `auth` everybody is an operator; what was stored while it was on stays its owners'."""
    async with calling(auth=("keys",)) as call:
        await call("tasks.create", [{"name": "echo"}], principal=ANN)
        assert len(await call("tasks.list", {}, principal=ANN)) == 1
        assert await call("tasks.list", {}, principal=NOBODY) == []
