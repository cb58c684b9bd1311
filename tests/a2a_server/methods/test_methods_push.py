"""The push methods (`a2a_server.methods.push`), through the endpoint."""

import asyncio
from typing import Any

import pytest

from a2a_server.push.configs import CONFIG
from a2a_server.push.sender import Failed
from a2a_server.push.undelivered import RESENT_AT_A_TIME, RESENT_PER_CALLER
from core.storage.base import DocumentQuery
from tests.a2a_server.conftest import Caller, RpcError, calling, message, somebody, until
from tests.a2a_server.push.receivers import Receiver

URL = "https://example.com/hook"
BEARER = {"scheme": "Bearer", "credentials": "s3cret"}


def receive(call: Caller, *outcomes: Failed | None) -> Receiver:
    """Put a receiver in the place of the network."""
    receiver = Receiver(outcomes=list(outcomes))
    assert call.application.webhooks is not None
    call.application.webhooks.outbox.deliveries.sender = receiver  # type: ignore[assignment]
    return receiver


async def refused(call: Caller, method: str, params: Any, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await call(method, params, **context)
    return error.value


async def stored(call: Caller) -> list[Any]:
    return await call.session.storage.documents(DocumentQuery(kind=CONFIG))


def inline(skill: str, **config: Any) -> dict[str, Any]:
    webhook = {"url": URL} | config
    return message(skill) | {"configuration": {"taskPushNotificationConfig": webhook, "returnImmediately": True}}


@pytest.mark.asyncio
async def test_a_webhook_is_made_read_listed_and_deleted_and_its_secrets_stay_inside(call: Caller) -> None:
    receive(call)
    task_id = await call.begin("hold")
    given = {"taskId": task_id, "url": URL, "token": "t0ken", "authentication": BEARER}

    made = await call("CreateTaskPushNotificationConfig", given)

    shown = {"id": made["id"], "taskId": task_id, "url": URL, "authentication": {"scheme": "Bearer"}}
    assert made == shown
    assert await call("GetTaskPushNotificationConfig", {"taskId": task_id, "id": made["id"]}) == shown
    assert await call("ListTaskPushNotificationConfigs", {"taskId": task_id}) == {"configs": [shown]}
    assert await call("DeleteTaskPushNotificationConfig", {"taskId": task_id, "id": made["id"]}) is None
    assert await call("DeleteTaskPushNotificationConfig", {"taskId": task_id, "id": made["id"]}) is None
    assert await call("ListTaskPushNotificationConfigs", {"taskId": task_id}) == {}
    assert (await refused(call, "GetTaskPushNotificationConfig", {"taskId": task_id, "id": made["id"]})).code == -32001


@pytest.mark.asyncio
async def test_ids_are_made_here_or_the_callers_and_the_same_one_replaces(call: Caller) -> None:
    receive(call)
    task_id = await call.begin("hold")
    first = await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL})
    second = await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL})
    assert first["id"] != second["id"]

    await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "id": "mine", "url": URL})
    changed = await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "id": "mine", "url": URL + "/2"})

    configs = (await call("ListTaskPushNotificationConfigs", {"taskId": task_id}))["configs"]
    assert len(configs) == 3 and changed in configs


@pytest.mark.asyncio
async def test_the_list_comes_in_pages(call: Caller) -> None:
    receive(call)
    task_id = await call.begin("hold")
    for n in range(5):
        await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "id": f"c{n}", "url": URL})

    seen, token = [], ""
    while True:
        params = {"taskId": task_id, "pageSize": 2, "pageToken": token}
        page = await call("ListTaskPushNotificationConfigs", params)
        seen += [config["id"] for config in page["configs"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert sorted(seen) == [f"c{n}" for n in range(5)] and len(seen) == 5
    error = await refused(call, "ListTaskPushNotificationConfigs", {"taskId": task_id, "pageToken": "x"})
    assert (error.code, error.fields) == (-32602, {"pageToken"})


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "example.com"}, "url"),
        ({"url": "https://user:pw@example.com/"}, "url"),
        ({"url": "https://example.com/\r\nX: y"}, "url"),
        ({"url": "https://example.com:99999/"}, "url"),
        ({"url": "https://[::1/"}, "url"),
        ({"url": "https://example.com/" + "a" * 3_000}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://[::ffff:10.0.0.1]/"}, "url"),
        ({"token": "a\nb"}, "token"),
        ({"token": "a" * 5_000}, "token"),
        ({"authentication": {"scheme": "Bear er"}}, "authentication.scheme"),
        ({"authentication": {"scheme": "Bearer", "credentials": "a\r\nb"}}, "authentication.credentials"),
        ({"authentication": {"scheme": "HMAC", "credentials": "short"}}, "authentication.credentials"),
        ({"authentication": {}}, "authentication.scheme"),
        ({"id": "a/b"}, "id"),
        ({"id": "a" * 200}, "id"),
        ({"events": ["everything"]}, "events"),
        ({"url": None}, "url"),
    ],
)
@pytest.mark.asyncio
async def test_what_is_wrong_with_a_webhook_is_named_and_nothing_is_stored(
    call: Caller, wrong: dict[str, Any], field: str
) -> None:
    receive(call)
    task_id = await call.begin("hold")

    error = await refused(call, "CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL} | wrong)
    assert (error.code, error.fields) == (-32602, {field})
    error = await refused(call, "SendMessage", inline("echo", **wrong))
    assert (error.code, error.fields) == (-32602, {f"configuration.taskPushNotificationConfig.{field}"})

    assert await stored(call) == []
    assert (await call("ListTasks", {}))["totalSize"] == 1


@pytest.mark.asyncio
async def test_a_literal_address_is_taken_where_the_operator_allows_it() -> None:
    async with calling(egress_allow=("127.0.0.1",)) as call:
        receive(call)
        task_id = await call.begin("hold")
        params = {"taskId": task_id, "url": "http://127.0.0.1:9/hook"}
        assert (await call("CreateTaskPushNotificationConfig", params))["url"] == params["url"]


@pytest.mark.asyncio
async def test_a_task_has_so_many_webhooks_and_no_more() -> None:
    async with calling(max_push_configs=2) as call:
        receive(call)
        task_id = await call.begin("hold")
        for n in range(2):
            await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "id": f"c{n}", "url": URL})

        error = await refused(call, "CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL})
        assert (error.code, error.fields) == (-32602, {"taskId"})
        await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "id": "c1", "url": URL})


@pytest.mark.asyncio
async def test_a_caller_has_so_many_webhooks_that_are_not_at_rest_and_no_more() -> None:
    async with calling(max_webhooks=2) as call:
        receive(call)
        held = await call.begin("hold")
        for n in range(2):
            await call("CreateTaskPushNotificationConfig", {"taskId": held, "id": f"c{n}", "url": URL})
        sent = message("echo", {"text": "x"}) | {"configuration": {"taskPushNotificationConfig": {"url": URL}}}
        tree = {"tasks": [{"name": "echo"}], "webhook_config": {"url": URL}}
        for method, params in (
            ("CreateTaskPushNotificationConfig", {"taskId": held, "id": "c2", "url": URL}),
            ("SendMessage", sent),
            ("tasks.execute", tree),
        ):
            error = await refused(call, method, params)
            assert (error.code, "max_webhooks" in error.message) == (-32050, True), method
        assert len(await stored(call)) == 2

        await call("CreateTaskPushNotificationConfig", {"taskId": held, "id": "c1", "url": URL})  # in its own place
        assert (await call("SendMessage", sent, principal=somebody("bob")))["task"]
        await call("DeleteTaskPushNotificationConfig", {"taskId": held, "id": "c0"})
        assert (await call("SendMessage", sent))["task"]


@pytest.mark.asyncio
async def test_all_callers_together_have_so_many_webhooks_that_are_not_at_rest(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("a2a_server.push.webhooks.MOST_ACTIVE", 2)
    receive(call)
    held = []
    for name in ("ann", "bob", "cy"):
        begin = message("hold") | {"configuration": {"returnImmediately": True}}
        held.append((await call("SendMessage", begin, principal=somebody(name)))["task"]["id"])
    for task_id, name in zip(held[:2], ("ann", "bob"), strict=True):
        params = {"taskId": task_id, "id": "c", "url": URL}
        await call("CreateTaskPushNotificationConfig", params, principal=somebody(name))
    third = {"taskId": held[2], "id": "c", "url": URL}
    assert (await refused(call, "CreateTaskPushNotificationConfig", third, principal=somebody("cy"))).code == -32051
    gone = {"taskId": held[0], "id": "c"}
    await call("DeleteTaskPushNotificationConfig", gone, principal=somebody("ann"))
    await call("CreateTaskPushNotificationConfig", third, principal=somebody("cy"))


@pytest.mark.asyncio
async def test_somebody_elses_task_and_webhook_do_not_exist(call: Caller) -> None:
    receive(call)
    task_id = await call.begin("hold")
    made = await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL})
    mallory = somebody("mallory")
    for method, params in (
        ("CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL}),
        ("GetTaskPushNotificationConfig", {"taskId": task_id, "id": made["id"]}),
        ("ListTaskPushNotificationConfigs", {"taskId": task_id}),
        ("DeleteTaskPushNotificationConfig", {"taskId": task_id, "id": made["id"]}),
    ):
        assert (await refused(call, method, params, principal=mallory)).code == -32001
    assert len(await stored(call)) == 1


@pytest.mark.asyncio
async def test_a_message_brings_its_webhook_and_a_follow_up_another(call: Caller) -> None:
    receiver = receive(call)
    sent = await call("SendMessage", inline("ask", authentication=BEARER))
    task_id = sent["task"]["id"]
    await until(lambda: any("INPUT_REQUIRED" in str(body) for _, body in receiver.taken))
    follow_up = message(task=task_id) | {"configuration": {"taskPushNotificationConfig": {"url": URL, "id": "two"}}}

    await call("SendMessage", follow_up)

    await until(lambda: len({each.partition("_")[0] for each in receiver.ids}) == 2)
    states = [body["statusUpdate"]["status"]["state"] for _, body in receiver.taken if "statusUpdate" in body]
    assert states[:2] == ["TASK_STATE_WORKING", "TASK_STATE_INPUT_REQUIRED"]


@pytest.mark.asyncio
async def test_a_conversation_that_brings_its_webhook_with_every_message_has_one(call: Caller) -> None:
    receive(call)
    task_id = (await call("SendMessage", inline("ask")))["task"]["id"]
    again = message(task=task_id) | {"configuration": {"taskPushNotificationConfig": {"url": URL}}}

    await call("SendMessage", again)
    await call("SendMessage", again)

    assert len(await stored(call)) == 1


@pytest.mark.asyncio
async def test_a_run_of_the_task_methods_has_a_webhook(call: Caller) -> None:
    receiver = receive(call)
    params = {"tasks": [{"name": "echo", "inputs": {"a": 1}}], "wait": True, "webhook_config": {"url": URL}}

    await call("tasks.execute", params)
    await until(lambda: any(body["type"] == "final" for _, body in receiver.taken))

    tree_id = receiver.taken[-1][1]["root_task_id"]
    receiver.taken.clear()
    again = {"task_id": tree_id, "force": True, "wait": True, "webhook_config": {"url": URL, "events": ["nodes"]}}
    await call("tasks.execute", again)
    await until(lambda: any(body["type"] == "final" for _, body in receiver.taken))
    assert sum(body["type"] == "final" for _, body in receiver.taken) == 1, "the same address is the same webhook"


@pytest.mark.asyncio
async def test_what_was_given_up_is_listed_and_sent_again(call: Caller) -> None:
    final = Failed(error="destination not allowed", is_final=True)
    receiver = receive(call, final, final)
    task_id = (await call("SendMessage", inline("echo", id="c")))["task"]["id"]
    await until(lambda: len(receiver.attempts) >= 3)

    first = await call("push.deliveries", {"limit": 1})
    rest = await call("push.deliveries", {"after": first["next"]})
    letters = first["deliveries"] + rest["deliveries"]

    assert [(each["task_id"], each["config_id"], each["status"]) for each in letters] == [(task_id, "c", "dead")] * 2
    assert rest["next"] is None
    receiver.outcomes = [Failed(error="still down")]
    ids = [each["delivery_id"] for each in letters]
    answers = await call("push.resend", {"delivery_ids": [*ids, "none"]})
    assert [each["delivered"] for each in answers] == [False, True, False]
    assert answers[0]["error"] == "still down"
    left = (await call("push.deliveries"))["deliveries"]
    assert [each["delivery_id"] for each in left] == ids[:1]
    assert (await call("push.deliveries", {}, principal=somebody("mallory")))["deliveries"] == []
    (answer,) = await call("push.resend", {"delivery_ids": ids[:1]}, principal=somebody("mallory"))
    assert answer["delivered"] is False


@pytest.mark.asyncio
async def test_webhooks_that_wait_are_listed_without_their_secrets(call: Caller) -> None:
    receiver = receive(call, *[Failed(error="down", retry_after=50.0)] * 9)
    await call("SendMessage", inline("echo", id="c", token="t0ken"))
    await until(lambda: receiver.attempts)
    for _ in range(50):
        await asyncio.sleep(0)

    (waiting,) = (await call("push.deliveries", {"status": "waiting"}))["deliveries"]

    assert (waiting["config_id"], waiting["attempts"], waiting["error"]) == ("c", 1, "down")
    assert "t0ken" not in str(waiting)


@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("push.deliveries", {"status": "lost"}, "status"),
        ("push.deliveries", {"limit": 0}, "limit"),
        ("push.deliveries", {"after": "!"}, "after"),
        ("push.deliveries", {"more": 1}, "more"),
        ("push.resend", {"delivery_ids": []}, "delivery_ids"),
        ("push.resend", {"delivery_ids": ["x"] * 101}, "delivery_ids"),
        ("push.resend", {}, "delivery_ids"),
        ("CreateTaskPushNotificationConfig", {"url": URL}, "taskId"),
    ],
)
@pytest.mark.asyncio
async def test_wrong_params_are_named(call: Caller, method: str, params: Any, field: str) -> None:
    error = await refused(call, method, params)
    assert (error.code, error.fields) == (-32602, {field})


@pytest.mark.asyncio
async def test_one_webhook_is_what_many_with_one_id_at_once_come_to(call: Caller) -> None:
    receive(call)
    task_id = await call.begin("hold")
    given = [{"taskId": task_id, "id": "same", "url": f"{URL}/{n}"} for n in range(12)]

    await asyncio.gather(*(call("CreateTaskPushNotificationConfig", each) for each in given))

    shown = await call("GetTaskPushNotificationConfig", {"taskId": task_id, "id": "same"})
    assert call.application.webhooks is not None
    (reader,) = call.application.webhooks.outbox.readers.of_tree(task_id)
    assert reader.config.url == shown["url"]


@pytest.mark.asyncio
async def test_the_limit_holds_for_many_at_once(call: Caller) -> None:
    receive(call)
    task_id = await call.begin("hold")
    given = {"taskId": task_id, "url": URL}

    answers = await asyncio.gather(
        *(call("CreateTaskPushNotificationConfig", given) for _ in range(30)), return_exceptions=True
    )

    assert sum(isinstance(each, RpcError) for each in answers) == 20
    assert len(await stored(call)) == 10


@pytest.mark.asyncio
async def test_a_run_that_is_refused_brings_no_webhook_and_the_same_address_is_one(call: Caller) -> None:
    receive(call)
    tree = await call("tasks.execute", {"tasks": [{"name": "echo"}], "wait": True, "webhook_config": {"url": URL}})
    again = {"task_id": tree["id"], "webhook_config": {"url": f"{URL}/other"}}

    for _ in range(12):
        assert (await refused(call, "tasks.execute", again)).code == -32004
    assert len(await stored(call)) == 1

    for _ in range(12):
        await call("tasks.execute", {**again, "force": True, "wait": True})
    assert len(await stored(call)) == 2


@pytest.mark.asyncio
async def test_a_delivery_that_hangs_ends_with_the_server(call: Caller) -> None:
    receiver = receive(call)
    receiver.gate = asyncio.Event()
    task_id = await call.begin("hold")
    await call("CreateTaskPushNotificationConfig", {"taskId": task_id, "url": URL})
    await call("CancelTask", {"id": task_id})
    await until(lambda: receiver.now)

    await call.application.stop(1.0)

    assert receiver.now == 0 and receiver.taken == []


@pytest.mark.asyncio
async def test_dead_letters_are_sent_again_so_many_at_a_time_by_caller(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhooks, gate, under_way = call.application.webhooks, asyncio.Event(), asyncio.Queue[str]()
    assert webhooks is not None

    async def resend(owner: str, delivery_id: str) -> str | None:
        under_way.put_nowait(owner)
        await gate.wait()
        return None

    monkeypatch.setattr(webhooks.undelivered, "_resend", resend)
    owners = ("ann", "bob", "cy")
    calls = [
        asyncio.ensure_future(webhooks.undelivered.resend(owner, ["x"] * 20)) for owner in owners for _ in range(3)
    ]
    begun = [await under_way.get() for _ in range(RESENT_AT_A_TIME)]
    await asyncio.sleep(0)
    assert under_way.empty()
    assert sorted(map(begun.count, owners)) == [0, RESENT_PER_CALLER, RESENT_PER_CALLER]
    gate.set()
    assert all(len(answers) == 20 for answers in await asyncio.gather(*calls))
