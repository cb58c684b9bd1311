"""Every field of every request of A2A v1.0 takes what ProtoJSON takes (A2A §5.5), in both bindings.

Google's own parser over the official types judges the same values: what it reads, we read, and as the same.
"""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, get_args, get_origin

import msgspec
import pytest
from a2a.types import a2a_pb2
from google.protobuf import json_format

from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import decode
from a2a_server.protocol.errors import InvalidParams
from core.model.integral import plain_type
from tests.a2a_server.conftest import Caller, RunningServer, message
from tests.a2a_server.methods.test_methods_a2a import refused

REQUESTS: dict[type[msgspec.Struct], dict[str, Any]] = {  # each, with what it cannot be without
    wire.SendMessageRequest: {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}},
    wire.GetTaskRequest: {"id": "t"},
    wire.ListTasksRequest: {},
    wire.CancelTaskRequest: {"id": "t"},
    wire.SubscribeToTaskRequest: {"id": "t"},
    wire.TaskPushNotificationConfig: {"url": "u", "taskId": "t"},
    wire.ListTaskPushNotificationConfigsRequest: {"taskId": "t"},
    wire.GetExtendedAgentCardRequest: {},
}
ONE = {wire.PushNotificationConfigRequest: ("Get", "Delete")}  # of ours, for two of the proto's
NEEDED: dict[type[msgspec.Struct], dict[str, Any]] = {
    **REQUESTS,
    wire.PushNotificationConfigRequest: {"taskId": "t", "id": "c"},
    wire.AuthenticationInfo: {"scheme": "s"},
    wire.Message: REQUESTS[wire.SendMessageRequest]["message"],
}
OURS = {"events"}  # fields that the proto does not have
GOOD: dict[Any, list[Any]] = {
    int: [1, 1.0, 1e0, "1", "1e0", "1.0", 10, "10", "1e1", 100, None],
    str: ["x", "\u2028", None],
    bool: [True, False, None],
    bytes: ["", "aGk=", "aGk", "-_8=", "+/8", None],
    datetime: [
        *(
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00.5Z",
            "2026-01-31T12:00:00.123456789Z",
            "2026-01-31T12:00:00+01:30",
        ),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999Z", None),
    ],
    dict: [{}, {"a": [1, None, {"b": 1.5}]}, None],
    Any: [None, 1, "x", [], {"a": None}],
}
NEVER = ("10000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "2026-01-31T12:00:00.1234567890Z", "2026-01-31T12:00:00.Z")
BAD: dict[Any, list[Any]] = {
    int: [1.5, "1.5", "", "x", "-1", -1, " 1", "1 ", "0x1", "1e999", "NaN", True, [], {}, 2**31, "2147483648", 1e300],
    str: [5, 1.5, True, [], {}],
    bool: ["true", "yes", 1, 0, "", [], {}],
    bytes: ["Y", "Y*==", 5, True, [], {}],
    datetime: ["", "yesterday", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z", 5, True, [], {}, *NEVER],
    dict: [5, "x", [], True],
    list: [5, "x", {}, True, [None]],
}


def enum_values(kind: type[Enum]) -> tuple[list[Any], list[Any]]:
    names = [member.value for member in kind]
    numbers = [*range(1, len(names) + 1)]
    return [*names, *numbers, 1.0, "1", None], ["x", names[0].lower(), len(names) + 1, -1, 1.5, True, [], {}]


def fields(kind: type[msgspec.Struct], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    """Path, type and whether it is required, of every field; of a list's items the path has "[]"."""
    for field in msgspec.structs.fields(kind):
        if field.name in OURS:
            continue
        here, plain = (*path, field.name), plain_type(field.type)
        yield here, plain, field.required
        if get_origin(plain) is list:
            plain, here = plain_type(get_args(plain)[0]), (*here, "[]")
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            yield from fields(plain, here)


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(each.title() for each in others)


def placed(kind: type[msgspec.Struct], path: tuple[str, ...], value: Any, *, snake: bool) -> Any:
    """Params of this type with the value there, and besides only what they cannot be without."""
    needed = json.loads(json.dumps(NEEDED[kind])) if kind in NEEDED else {}
    name, *rest = path
    field = next(each for each in msgspec.structs.fields(kind) if each.name == name)
    plain = plain_type(field.type)
    if rest:
        inner = plain_type(get_args(plain)[0]) if rest[0] == "[]" else plain
        value = placed(inner, tuple(rest[rest[0] == "[]" :]), value, snake=snake)
        value = [value] if rest[0] == "[]" else value
    if kind is wire.Part and name not in ("text", "raw", "url", "data"):
        needed["text"] = "x"
    needed.pop(camel(name), None)
    return needed | {name if snake else camel(name): value}


TABLE = [
    pytest.param(kind, path, plain, required, id=f"{kind.__name__}.{'.'.join(path)}")
    for kind in (*REQUESTS, *ONE)
    for path, plain, required in fields(kind)
]


def samples(plain: Any) -> tuple[list[Any], list[Any]]:
    if isinstance(plain, type) and issubclass(plain, Enum):
        return enum_values(plain)
    origin = get_origin(plain) or plain
    if origin is list:
        item = plain_type(get_args(plain)[0])
        return ([["x"], ["x", "y"], [], None], BAD[list] + [["x", 5]]) if item is str else ([], BAD[list])
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return [], [5, "x", [], True]
    return GOOD.get(origin, []), BAD.get(origin, [])


def proto(kind: type[msgspec.Struct]) -> list[Any]:
    if kind in ONE:
        return [getattr(a2a_pb2, f"{verb}TaskPushNotificationConfigRequest") for verb in ONE[kind]]
    return [getattr(a2a_pb2, kind.__name__)]


def is_none_but_required(value: Any, plain: Any, required: bool, path: tuple[str, ...]) -> bool:
    """Whether the value is unset in ProtoJSON where the protocol wants one (A2A §5.7), which only we judge."""
    is_oneof = path[-1] in ("text", "raw", "url", "data") and plain is not Any
    return (required and value in (None, [], "")) or (is_oneof and value is None)


@pytest.mark.parametrize(("kind", "path", "plain", "required"), TABLE)
def test_a_field_takes_every_spelling_of_its_values(
    kind: type[msgspec.Struct], path: tuple[str, ...], plain: Any, required: bool
) -> None:
    for value in samples(plain)[0]:
        if is_none_but_required(value, plain, required, path):
            continue
        camels, snakes = (placed(kind, path, value, snake=snake) for snake in (False, True))
        read = decode(camels, kind)
        assert decode(snakes, kind) == read, value
        for official in proto(kind):
            told = json_format.ParseDict(without_quoted_points(camels), official())
            assert same(msgspec.to_builtins(read), told), value


@pytest.mark.parametrize(("kind", "path", "plain", "required"), TABLE)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(
    kind: type[msgspec.Struct], path: tuple[str, ...], plain: Any, required: bool
) -> None:
    name = ".".join(camel(each) for each in path).replace(".[]", "[0]")
    for value in samples(plain)[1]:
        for snake in (False, True):
            with pytest.raises(InvalidParams) as error:
                decode(placed(kind, path, value, snake=snake), kind)
            assert all(problem.field.startswith(name) for problem in error.value.violations), (value, name)


def without_quoted_points(params: Any) -> Any:
    """Google's parser for Python takes no "1.0" and "1e1", which those for other languages take, as ProtoJSON says."""
    if isinstance(params, dict):
        return {key: without_quoted_points(value) for key, value in params.items()}
    return int(float(params)) if params in ("1.0", "1e0", "1e1") else params


def same(ours: Any, official: Any) -> bool:
    """Whether both read the same, apart from what is empty; the official message's timestamps have nine digits."""
    if "statusTimestampAfter" in ours:
        moment, there = datetime.fromisoformat(ours.pop("statusTimestampAfter")), official.status_timestamp_after
        seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
        assert (seconds, moment.microsecond) == (there.seconds, min(-(-there.nanos // 1000), 999_999))
        official.ClearField("status_timestamp_after")
    mine = json_format.ParseDict(ours, type(official)())
    return full(json_format.MessageToDict(mine)) == full(json_format.MessageToDict(official))


def full(value: Any) -> Any:
    """Without empty objects, and what is false: our types do not tell that from unset."""
    if isinstance(value, dict):
        return {key: full(inner) for key, inner in value.items() if full(inner) not in ({}, False)}
    return [full(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("status", [0, "TASK_STATE_UNSPECIFIED", 0.0, "0"])
def test_the_unspecified_value_of_an_enum_is_unset(status: Any) -> None:
    assert decode({"status": status}, wire.ListTasksRequest).status is None


def test_a_field_under_both_of_its_names_is_refused() -> None:
    """Which one counts would be a guess: one that checks and one that acts may guess differently."""
    for params in ({"contextId": "a", "context_id": "b"}, {"context_id": "a", "contextId": "a"}):
        with pytest.raises(InvalidParams, match="given twice") as error:
            decode(params, wire.ListTasksRequest)
        assert [problem.field for problem in error.value.violations] == ["contextId"]


def test_all_spellings_of_bytes_are_the_same_bytes() -> None:
    spellings = {base64.b64encode(b"\xfb\xff").decode(), "+/8", "-_8=", "-_8"}
    assert {decode({"raw": each}, wire.Part).raw for each in spellings} == {b"\xfb\xff"}


# Through the endpoints

NUMBERS = ["1", "1.0", "1e0", '"1"', '"1.0"', '"1e0"']


@pytest.mark.asyncio
@pytest.mark.parametrize("number", NUMBERS)
async def test_numbers_are_taken_in_both_bindings_and_versions(server: RunningServer, number: str) -> None:
    """Found from outside: `1.0` and `"10"`, as protobuf's clients write integers, were refused."""
    call = Caller(server.application, server.lab)
    task = await call.send("ask")
    await call("SendMessage", message(text="one", task=task["id"]))
    async with server.client() as client:

        async def rpc(method: str, params: str) -> Any:
            body = f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'
            answer = await client.post("/", content=body, headers={"Content-Type": "application/json"})
            return answer.json()["result"]

        got = await rpc("GetTask", f'{{"id":"{task["id"]}","historyLength":{number}}}')
        old = await rpc("tasks/get", f'{{"id":"{task["id"]}","historyLength":{number}}}')
        page = await rpc("ListTasks", f'{{"page_size":{number},"historyLength":{number}}}')
        text = number.strip('"')
        rest = (await client.get(f"/tasks/{task['id']}?historyLength={text}")).json()
        listed = (await client.get(f"/tasks?pageSize={text}&historyLength={text}")).json()
        said = json.dumps(message(text="two", task=task["id"])["message"])
        body = f'{{"message":{said},"configuration":{{"history_length":{number}}}}}'
        sent = (await client.post("/message:send", content=body, headers={"Content-Type": "application/json"})).json()
    for each in (got, old, rest, page["tasks"][0], listed["tasks"][0], sent["task"]):
        assert len(each["history"]) == 1
    assert (page["pageSize"], listed["pageSize"]) == (1, 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("number", ["1.5", '""', '"x"', "-1", "true", "[]"])
async def test_what_is_no_number_is_refused_in_both_bindings(server: RunningServer, number: str) -> None:
    async with server.client() as client:
        body = f'{{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{{"id":"t","historyLength":{number}}}}}'
        answer = await client.post("/", content=body, headers={"Content-Type": "application/json"})
        assert answer.json()["error"]["code"] == -32602
        rest = await client.get("/tasks/t", params={"historyLength": number.strip('"')})
        assert (rest.status_code, "historyLength" in rest.text) == (400, True)


@pytest.mark.asyncio
async def test_a_page_of_webhooks_of_size_0_is_of_any_size(call: Caller) -> None:
    """Its page size is a plain int32: 0 is unset there."""
    task = await call.send("nothing")
    assert await call("ListTaskPushNotificationConfigs", {"taskId": task["id"], "pageSize": 0}) == {}
    error = await refused(call, "ListTaskPushNotificationConfigs", {"taskId": task["id"], "pageSize": -1})
    assert error.fields == {"pageSize"}


@pytest.mark.asyncio
async def test_times_are_compared_in_the_milliseconds_in_which_they_are_told(call: Caller) -> None:
    task = await call.send("nothing")
    told = task["status"]["timestamp"].removesuffix("Z")

    async def later(text: str) -> int:
        return len((await call("ListTasks", {"statusTimestampAfter": text}))["tasks"])

    assert [await later(f"{told}{digits}Z") for digits in ("", "000", "000000", "001", "000001")] == [1, 1, 1, 0, 0]
    assert await later("0001-01-01T00:00:00Z") == 1
    assert await later("9999-12-31T23:59:59.999999999Z") == 0
