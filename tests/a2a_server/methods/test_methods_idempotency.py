"""Idempotent creation: the same request under the same key leads to the same task."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from a2a_server.app import build
from a2a_server.bindings.aside import Aside
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.keyed import READS, TAKES
from a2a_server.config import Config
from a2a_server.methods import idempotency as module
from a2a_server.methods.idempotency import KIND, PURGE_EVERY, Idempotency
from a2a_server.protocol.errors import UnsupportedOperation
from core.model.errors import IllegalCommand, VersionConflict
from core.storage.base import Document, DocumentQuery, TreeQuery
from core.storage.memory import MemoryStorage
from core.storage.postgres.storage import PostgresStorage
from tests.a2a_server.conftest import (
    Caller,
    Lab,
    RpcError,
    RunningServer,
    calling,
    message,
    somebody,
    tree_message,
)
from tests.a2a_server.methods.test_methods_a2a import refused, state

NOW = {"configuration": {"returnImmediately": True}}


async def total(call: Caller) -> int:
    return int((await call("ListTasks", {}))["totalSize"])


async def documents(call: Caller) -> list[Document]:
    return await call.session.storage.documents(DocumentQuery(kind=KIND))


@pytest.mark.asyncio
async def test_the_same_key_and_request_lead_to_the_same_task(call: Caller) -> None:
    first = (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]
    assert (await call("SendMessage", message("echo"), idempotency_key="k"))["task"] == first
    assert await total(call) == 1
    assert len(call.lab.requests) == 1


@pytest.mark.asyncio
async def test_two_hundred_identical_sends_at_once_give_one_task(server: RunningServer) -> None:
    """Over HTTP, blocking: all of them wait for the one task's end."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("hold")}
    headers = {"A2A-Version": "1.0", "Idempotency-Key": "all-of-us"}
    async with server.client() as client:

        async def send() -> dict[str, Any]:
            answer = (await client.post("/", json=body, headers=headers)).json()
            return dict(answer["result"]["task"])

        sending = [asyncio.create_task(send()) for _ in range(200)]
        await server.lab.started["hold"].wait()
        server.lab.released["hold"].set()
        tasks = await asyncio.gather(*sending)
        listing = body | {"method": "ListTasks", "params": {}}
        listed = (await client.post("/", json=listing, headers={"A2A-Version": "1.0"})).json()["result"]
    assert {(task["id"], state(task)) for task in tasks} == {(tasks[0]["id"], "COMPLETED")}
    assert listed["totalSize"] == 1


@pytest.mark.asyncio
async def test_another_request_under_the_key_is_refused_and_makes_nothing(call: Caller) -> None:
    await call("SendMessage", message("echo"), idempotency_key="k")
    error = await refused(call, "SendMessage", message("echo", text="other"), idempotency_key="k")
    assert (error.code, error.fields) == (-32602, {"Idempotency-Key"})
    assert await total(call) == 1


@pytest.mark.asyncio
async def test_order_of_fields_and_envelope_make_no_other_request(call: Caller) -> None:
    given = message("echo", {"data": {"a": 1, "b": [2]}})
    first = (await call("SendMessage", given, idempotency_key="k"))["task"]
    turned = message("echo", {"data": {"b": [2], "a": 1}})
    turned = {"metadata": turned["metadata"], "message": dict(reversed(turned["message"].items()))}
    assert (await call("SendMessage", turned, idempotency_key="k"))["task"]["id"] == first["id"]


@pytest.mark.asyncio
async def test_a_key_belongs_to_its_owner(call: Caller) -> None:
    mine = (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"]
    other = await call("SendMessage", message("echo"), idempotency_key="k", principal=somebody("bob"))
    assert other["task"]["id"] != mine


TREE = [{"name": "echo"}]
OPERATIONS: dict[str, list[tuple[str, Any]]] = {  # each, in the forms in which its params may come
    "SendMessage": [
        ("SendMessage", message("echo")),
        ("SendMessage", message("echo") | {"configuration": {}, "tenant": None}),
        ("SendMessage", message("echo") | {"configuration": {"historyLength": None, "acceptedOutputModes": []}}),
    ],
    "tasks.create": [("tasks.create", TREE), ("tasks.create", {"tasks": TREE}), ("tasks.create", TREE[0])],
    "tasks.execute": [("tasks.execute", {"tasks": TREE}), ("tasks.execute", {"tasks": TREE, "force": False})],
}


@pytest.mark.parametrize("second", OPERATIONS)
@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.asyncio
async def test_a_key_is_good_for_one_operation(call: Caller, first: str, second: str) -> None:
    await call(*OPERATIONS[first][0], idempotency_key="k")
    for method, params in OPERATIONS[second]:
        if first == second:
            await call(method, params, idempotency_key="k")
        else:
            error = await refused(call, method, params, idempotency_key="k")
            assert (error.code, error.fields) == (-32602, {"Idempotency-Key"})
    assert len(await call("tasks.list", {"root_only": False})) == 1


FORMS = ("SendMessage", "SendStreamingMessage", "message/send", "message/stream", "/message:send", "/message:stream")


async def sent_as(client: Any, form: str, text: str) -> Any:
    """The answer to a message in this form, under one key."""
    params = message("echo", text=text)
    if "/" in form[1:]:
        params["message"] |= {"kind": "message", "role": "user", "parts": [{"kind": "text", "text": text}]}
    headers = {"A2A-Version": "0.3" if "/" in form[1:] else "1.0", "Idempotency-Key": "k"}
    is_rest = form.startswith("/")
    body = params if is_rest else {"jsonrpc": "2.0", "id": 1, "method": form, "params": params}
    answer = await client.post(form if is_rest else "/", json=body, headers=headers)
    data = answer.text.partition("data: ")[2].partition("\n")[0] or answer.text
    told = json.loads(data)
    return told if is_rest else told.get("result") or told


@pytest.mark.parametrize("second", FORMS)
@pytest.mark.parametrize("first", FORMS)
@pytest.mark.asyncio
async def test_a_message_is_one_operation_in_every_form_version_and_binding(
    server: RunningServer, first: str, second: str
) -> None:
    """Found from outside: a client that fell back from streaming, with its key, made two tasks.

    A client whose stream broke sends the message once more without one, perhaps over another binding.
    """
    async with server.client() as client:
        made = await sent_as(client, first, "hi")
        again = await sent_as(client, second, "hi")
        other = await sent_as(client, second, "other")
        listed = (await client.get("/tasks")).json()
    assert made.get("task", made)["id"] == again.get("task", again)["id"]
    assert listed["totalSize"] == 1
    assert other["error"]["code"] in (-32602, 400)
    assert "Idempotency-Key" in json.dumps(other)


REFUSES = {
    *("CancelTask", "CreateTaskPushNotificationConfig", "DeleteTaskPushNotificationConfig", "tasks/cancel"),
    *("tasks/pushNotificationConfig/set", "tasks/pushNotificationConfig/delete"),
    *("tasks.cancel", "tasks.answer", "tasks.update", "tasks.delete", "tasks.copy", "push.resend"),
    *("keys.create", "keys.rotate", "keys.revoke"),
}


@pytest.mark.asyncio
async def test_no_method_that_changes_something_ignores_a_key() -> None:
    """Each method takes it, refuses it, or reads only: a new one has to say which."""
    async with calling(auth=("keys",)) as keyed:
        methods = keyed.application.json_rpc.methods
        over_http_alone = {"tasks/list"}  # of v0.3
        assert methods.keys() | over_http_alone == TAKES | READS | REFUSES
        assert not TAKES & READS and not (TAKES | READS) & REFUSES
        for name in REFUSES:
            error = await refused(keyed, name, {}, idempotency_key="k", principal=somebody("operator"))
            assert (error.code, error.fields) == (-32602, {"Idempotency-Key"}), name


@pytest.mark.asyncio
async def test_the_paths_that_change_something_refuse_it_too(server: RunningServer) -> None:
    async with server.client() as client:
        for verb, path in (
            ("POST", "/tasks/t:cancel"),
            ("POST", "/tasks/t/pushNotificationConfigs"),
            ("DELETE", "/tasks/t/pushNotificationConfigs/c"),
        ):
            answer = await client.request(verb, path, headers={"Idempotency-Key": "k"})
            assert (answer.status_code, "Idempotency-Key" in answer.text) == (400, True), path
        assert (await client.get("/tasks", headers={"Idempotency-Key": "k"})).status_code == 200


@pytest.mark.asyncio
async def test_a_stored_tree_is_run_without_a_key(call: Caller) -> None:
    tree_id = await call.tree({"name": "echo"})
    error = await refused(call, "tasks.execute", {"task_id": tree_id}, idempotency_key="k")
    assert (error.code, error.fields) == (-32602, {"Idempotency-Key"})


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb", "a\x7f"])
@pytest.mark.asyncio
async def test_a_key_is_printable_ascii_of_bounded_length(call: Caller, key: str) -> None:
    for method, params in (("SendMessage", message("echo")), ("tasks.create", [{"name": "echo"}])):
        error = await refused(call, method, params, idempotency_key=key)
        assert (error.code, error.fields) == (-32602, {"Idempotency-Key"})
    assert await documents(call) == []
    await call("SendMessage", message("echo"), idempotency_key="x" * 255)


@pytest.mark.asyncio
async def test_a_refused_request_leaves_its_key_free(call: Caller) -> None:
    await refused(call, "SendMessage", message("unheard"), idempotency_key="k")
    assert state((await call("SendMessage", message("echo"), idempotency_key="k"))["task"]) == "COMPLETED"


@pytest.mark.asyncio
async def test_a_blocking_repeat_waits_for_the_task_of_the_first(call: Caller) -> None:
    params = message("hold")
    first = asyncio.create_task(call("SendMessage", params, idempotency_key="k"))
    await call.lab.started["hold"].wait()
    again = asyncio.create_task(call("SendMessage", params, idempotency_key="k"))
    first.cancel()
    call.lab.released["hold"].set()
    assert state((await again)["task"]) == "COMPLETED"


@pytest.mark.asyncio
async def test_a_repeat_that_does_not_wait_is_told_how_the_task_stands(call: Caller) -> None:
    params = message("hold") | NOW
    task = (await call("SendMessage", params, idempotency_key="k"))["task"]
    await call.lab.started["hold"].wait()
    again = (await call("SendMessage", params, idempotency_key="k"))["task"]
    assert (again["id"], state(again)) == (task["id"], "WORKING")


@pytest.mark.asyncio
async def test_a_repeated_stream_follows_the_task_from_a_snapshot(call: Caller) -> None:
    params = message("hold")
    stream = call.stream("SendStreamingMessage", params, idempotency_key="k")
    task_id = (await anext(stream)).result["task"]["id"]
    await call.lab.started["hold"].wait()
    frames = []
    async for frame in call.stream("SendStreamingMessage", params, idempotency_key="k"):
        frames.append(frame)
        call.lab.released["hold"].set()
    await stream.aclose()
    assert (frames[0].result["task"]["id"], state(frames[0].result["task"])) == (task_id, "WORKING")
    assert state(frames[-1].result["statusUpdate"]) == "COMPLETED"
    (only,) = await call.frames("SendStreamingMessage", params, idempotency_key="k")
    assert state(only.result["task"]) == "COMPLETED"


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
@pytest.mark.asyncio
async def test_a_direct_message_is_given_again(call: Caller, method: str) -> None:
    async def ask() -> Any:
        if method == "SendMessage":
            return await call(method, message("reply"), idempotency_key="k")
        return [frame.result for frame in await call.frames(method, message("reply"), idempotency_key="k")]

    assert await ask() == await ask()
    assert await total(call) == 1


@pytest.mark.asyncio
async def test_an_answer_is_not_given_twice(call: Caller) -> None:
    task = await call.send("ask")
    answer = message(text="one", task=task["id"])
    first = (await call("SendMessage", answer, idempotency_key="k"))["task"]
    again = (await call("SendMessage", answer, idempotency_key="k"))["task"]
    assert again == first
    assert again["status"]["message"]["parts"] == [{"text": "second?"}]
    assert [m["parts"][0]["text"] for m in again["history"]] == ["hi", "first?", "one"]


@pytest.mark.asyncio
async def test_a_message_for_the_history_is_not_kept_twice(call: Caller) -> None:
    task_id = await call.begin("hold")
    await call.lab.started["hold"].wait()
    for _ in range(2):
        task = (await call("SendMessage", message(text="more", task=task_id) | NOW, idempotency_key="k"))["task"]
        assert [m["parts"][0]["text"] for m in task["history"]] == ["hi", "more"]


@pytest.mark.asyncio
async def test_the_last_answer_repeated_shows_the_ended_task(call: Caller) -> None:
    """Without its key it would be refused: the task has ended."""
    task = await call.send("login")
    answer = message(text="token", task=task["id"])
    for _ in range(2):
        assert state((await call("SendMessage", answer, idempotency_key="k"))["task"]) == "COMPLETED"
    assert (await refused(call, "SendMessage", answer)).code == -32004


@pytest.mark.asyncio
async def test_a_child_that_has_ended_ends_its_repeated_stream_at_once(call: Caller) -> None:
    tree = tree_message(
        {"id": "r", "name": "g"}, {"name": "login", "parent_id": "r"}, {"name": "hold", "parent_id": "r"}
    )
    task = (await call("SendMessage", tree | NOW))["task"]
    await call.lab.started["hold"].wait()
    child = (await call("tasks.children", {"parent_id": task["id"]}))[0]["id"]
    answer = message(text="token", task=child)
    frames = await call.frames("SendStreamingMessage", answer, idempotency_key="k")
    assert state(frames[-1].result["statusUpdate"]) == "COMPLETED"
    (only,) = await call.frames("SendStreamingMessage", answer, idempotency_key="k")
    assert state(only.result["task"]) == "COMPLETED"


@pytest.mark.asyncio
async def test_trees_of_the_task_methods_are_made_once(call: Caller) -> None:
    tasks = [{"id": "r", "name": "g"}, {"name": "echo", "parent_id": "r"}]
    made = [await call("tasks.create", tasks, idempotency_key="c") for _ in range(2)]
    assert made[0] == made[1]
    params = {"tasks": tasks, "wait": True}
    run = [await call("tasks.execute", params, idempotency_key="k") for _ in range(2)]
    assert run[0] == run[1]
    assert run[0]["tree_status"] == "completed"
    assert len(await call("tasks.list", {})) == 2
    streamed = {"tasks": tasks, "use_streaming": True}
    told = [await call.frames("tasks.execute", streamed, idempotency_key="s") for _ in range(2)]
    assert told[0][1:] == told[1][1:]
    assert told[0][-1].data == {"type": "stream_end"}


@pytest.mark.asyncio
async def test_a_batch_of_several_has_no_key(call: Caller) -> None:
    item = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("echo")}
    context = RequestContext(idempotency_key="k")
    reply = await call.application.json_rpc.handle(json.dumps([item, item]).encode(), context)
    error = RpcError(json.loads(reply.body)["error"])
    assert (error.code, error.fields) == (-32600, {"Idempotency-Key"})
    assert await total(call) == 0
    alone = await call.application.json_rpc.handle(json.dumps([item]).encode(), context)
    assert state(json.loads(alone.body)[0]["result"]["task"]) == "COMPLETED"


@pytest.mark.asyncio
async def test_message_ids_are_keys_only_when_the_operator_says_so(call: Caller) -> None:
    for _ in range(2):
        await call.send("echo")
    assert await total(call) == 2
    async with calling(idempotency_by_message_id=True) as strict:
        assert (await strict.send("echo"))["id"] == (await strict.send("echo"))["id"]
        error = await refused(strict, "SendMessage", message("echo", text="other"))
        assert (error.code, error.fields) == (-32602, {"message.messageId"})
        by_header = await strict("SendMessage", message("echo", text="other"), idempotency_key="m1")
        assert await total(strict) == 2, by_header


@pytest.mark.asyncio
async def test_a_deleted_tree_takes_its_key_along(call: Caller) -> None:
    first = (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"]
    await call("tasks.delete", {"task_id": first})
    assert (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"] != first


class Hands:
    """A clock that is set by hand."""

    def __init__(self, call: Caller) -> None:
        self._clock = call.session.clock
        self.ahead = 0.0

    def now(self) -> float:
        return self._clock.now() + self.ahead

    def new_id(self) -> str:
        return self._clock.new_id()

    def chance(self) -> float:
        return 0.0


@pytest.mark.asyncio
async def test_a_key_is_forgotten_after_its_time_and_removed_with_later_ones(call: Caller) -> None:
    clock = Hands(call)
    call.session.clock = clock
    first = (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"]
    await call("SendMessage", message("echo"), idempotency_key="old")
    clock.ahead = 86_399.0
    assert (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"] == first
    clock.ahead = 86_401.0
    assert (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"] != first
    assert [document.at for document in await documents(call)] == [pytest.approx(clock.now(), abs=60)]
    assert PURGE_EVERY < 86_400


@asynccontextmanager
async def two_members(url: str | None) -> AsyncIterator[list[Caller]]:
    """Two servers on one database; without a URL on one storage in memory."""
    in_memory, members = MemoryStorage(), []
    for _ in range(2):
        lab = Lab()
        storage = in_memory if url is None else PostgresStorage(url, is_shared=True)
        application = build(Config(), registry=lab.registry, storage=storage)
        await application.start()
        await application.resume()
        members.append(Caller(application, lab))
    yield members
    for member in members:
        await member.application.stop(1.0)


@pytest.fixture(params=["memory", "postgres"])
def database(request: pytest.FixtureRequest) -> str | None:
    """The URL of two members' database; None: they share one in memory."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.mark.parametrize("method", ["SendMessage", "tasks.create"])
@pytest.mark.asyncio
async def test_one_key_at_two_members_at_the_same_time_leads_to_one_tree(method: str, database: str | None) -> None:
    """F8: each has locks of its own; the row of the key decides, and who is refused reads what it led to."""
    async with two_members(database) as members:

        async def send(member: Caller, key: str) -> str:
            if method == "tasks.create":
                made = await member(method, [{"id": "a", "name": "echo"}], idempotency_key=key)
                return str(made["root_task_id"])
            return str((await member(method, message("echo") | NOW, idempotency_key=key))["task"]["id"])

        for n in range(100):
            found = await asyncio.gather(*[send(member, f"k{n}") for member in members for _ in range(2)])
            assert len(set(found)) == 1
        page = await members[0].session.storage.trees(TreeQuery(owner=None))
        assert page.total == 100


@pytest.mark.parametrize("late", ["look", "purge"])
@pytest.mark.asyncio
async def test_a_key_that_has_expired_is_removed_once_when_two_members_see_it(
    call: Caller, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """Found by reading: the second one removed the row that the first one had stored anew, and made another tree."""
    clock, storage = Hands(call), call.session.storage
    call.session.clock = clock
    await call("SendMessage", message("echo"), idempotency_key="k")
    clock.ahead = 86_401.0
    delete, renewed = storage.delete_documents, []

    async def after_the_other(*names: tuple[str, str], expected: Document | None = None) -> int:
        if not renewed:
            monkeypatch.undo()
            renewed.append(None)
            renewed[0] = (await call("SendMessage", message("echo"), idempotency_key="k"))["task"]["id"]
        return await delete(*names, expected=expected)

    member = Idempotency(call.session, keep=86_400.0)
    claim = await member.claim(
        RequestContext(idempotency_key="k" if late == "look" else "other"), "SendMessage", ("another",)
    )
    monkeypatch.setattr(storage, "delete_documents", after_the_other)
    assert claim is not None
    if late == "look":
        assert await member._known(claim) is None
    else:
        await member._purge()

    (kept,) = await documents(call)
    assert kept.tree_id == renewed[0]


@pytest.mark.asyncio
async def test_who_is_refused_by_what_its_own_key_led_to_is_told_of_that(call: Caller) -> None:
    """Found by reading: an answer sent twice at once, to two members, was refused the second time: nothing is asked."""
    idempotency = Idempotency(call.session, keep=60.0)
    task_id = (await call.send("echo"))["id"]

    async def again(found: str) -> str:
        return found

    async def claim(key: str) -> Any:
        return await idempotency.claim(RequestContext(idempotency_key=key), "M", {})

    for key, refusal in (
        ("a", UnsupportedOperation("it has ended")),
        ("b", IllegalCommand(task_id, "nothing is asked")),
    ):

        async def refused_by_the_other() -> str:
            await call.session.storage.put_documents((await claim(key)).document(task_id, task_id))  # noqa: B023
            raise refusal  # noqa: B023

        async def refused() -> str:
            raise refusal  # noqa: B023

        assert await idempotency.once(await claim(key), refused_by_the_other, again) == task_id
        with pytest.raises(type(refusal)):
            await idempotency.once(await claim(f"{key}, another"), refused, again)


@pytest.mark.asyncio
async def test_a_writer_who_was_first_is_seen_after_the_conflict(call: Caller) -> None:
    """A sender who went away: its task is stored after its successor looked."""
    idempotency = Idempotency(call.session, keep=60.0)
    task_id = (await call.send("echo"))["id"]

    async def again(found: str) -> str:
        return found

    async def claim(key: str) -> Any:
        return await idempotency.claim(RequestContext(idempotency_key=key), "M", {})

    async def beaten() -> str:
        await call.session.storage.put_documents((await claim("k")).document(task_id, task_id))
        raise VersionConflict(task_id)

    async def torn() -> str:
        raise VersionConflict(task_id)

    assert await idempotency.once(await claim("k"), beaten, again) == task_id
    with pytest.raises(VersionConflict):
        await idempotency.once(await claim("other"), torn, again)


@pytest.mark.asyncio
async def test_a_large_request_is_digested_beside_the_loop_and_is_the_same_request(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key, the whole message was encoded on the loop once more."""
    used: list[bool] = []
    digest = module._digest

    def watched(value: Any) -> str:
        used.append(threading.current_thread() is not threading.main_thread())
        return digest(value)

    monkeypatch.setattr(module, "_digest", watched)
    idempotency = Idempotency(call.session, keep=60.0)
    params = {"a": ["x" * 1_000] * 1_000}
    aside = Aside()
    small = await idempotency.claim(RequestContext(idempotency_key="k"), "M", params)
    assert used == [False, False]
    large = await idempotency.claim(RequestContext(idempotency_key="k", aside=aside), "M", params)
    assert used[2:] == [True, False], "the key alone is digested on the loop"
    assert small is not None and large is not None and small.digest == large.digest
    aside.close()
