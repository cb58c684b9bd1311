"""Hostile requests, each made from a seed and its number alone: the same pair gives the same bytes.

Four kinds, as the fault plan has them: calls by the grammar of the protocols, taken from the server's own OpenRPC
document and from the paths of the HTTP+JSON binding; mutations of valid calls; a dictionary of what breaks parsers;
and bytes that are hardly HTTP. What a good server would be busy with for long (a task that runs, a retry that waits)
is never asked for, so whatever gets no answer hangs.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from a2a_server.bindings.rest import PATHS

KINDS = {"grammar": 40, "mutation": 30, "dictionary": 20, "raw": 10}  # per cent
SKILLS = ("noop", "noop", "noop", "boom", "greet", "direct", "system_info_executor", "no-such", "")
METHODS_THAT_ARE_NOT = ("", "nope", "rpc.x", "tasks.", "SendMessage ", "tasks/", "keys.list", "__class__", "a" * 5000)
URLS = (
    "https://hook.invalid/x", "http://127.0.0.1:1/", "http://169.254.169.254/", "ftp://x.invalid/", "https://", "x",
    "https://u:p@h.invalid/", "http://[::1]/", "http://2130706433/", "https://h.invalid:99999/", "data:,x",
)  # fmt: skip
TEXTS = (
    "", "a", "root", "\x00", "\u2028", "\u200b\u202e", "é" * 300, "\U0001f600", "a" * 1025, "%s%n{0}", "'; --",
    "../../etc/passwd", "2026-01-31T12:00:00Z", "9999-12-31T23:59:59-14:00", "2026-13-01", "completed", "null",
    "TASK_STATE_WORKING", "ROLE_USER", "user", "text/plain", "aGk=", "a,b", "id", "1e5", "-1", "\ufeff", "\ud800",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 50, 100, 1000, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, -0.0, 1.5, 1e308,
    5e-324, 1e-9,
)  # fmt: skip
HEADERS: Mapping[str, Sequence[str]] = {
    "A2A-Version": ("1.0", "1.0", "0.3", "0.3", "", "1", "2.0", "x", "1.0, 0.3"),
    "A2A-Extensions": ("", "https://x.invalid/e", ",,,", "a" * 2000),
    "Idempotency-Key": ("k1", "k2", "", "a" * 300, "\xff"),
    "Last-Event-ID": ("0", "1", "-1", "999999999999999999", "99999999999999999999999", "x", "\u00b2"),
    "Content-Type": (
        "text/plain",
        "",
        "application/a2a+json",
        "application/json; charset=utf-16",
        "application/json;;",
    ),
    "Content-Encoding": ("gzip", "identity", ""),
    "Origin": ("null", "https://evil.invalid", "http://127.0.0.1", ""),
    "Host": ("evil.invalid", "localhost:x", "[::1]", "", "a" * 4000),
    "Authorization": ("Bearer x", "Basic", "", "Bearer " + "a" * 8000),
    "Accept": ("text/event-stream", "", "*/*;q=x"),
    "X-Forwarded-For": ("1.2.3.4", "x" * 500),
    "Range": ("bytes=0-" + ",0-" * 500,),
    "Expect": ("200-ok",),
}
VERBS = ("GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "X")
QUERY_NAMES = (
    "pageSize", "pageToken", "status", "contextId", "historyLength", "statusTimestampAfter", "includeArtifacts",
    "tenant", "after", "A2A-Version", "id", "x",
)  # fmt: skip
OTHER_PATHS = (
    "/", "/tasks", "/system", "/healthz", "/readyz", "/.well-known/agent-card.json", "/.well-known/agent.json",
    "/.well-known/jwks.json", "/nope", "//", "/%00", "/%ff", "/../x", "/tasks/%2f/events", "/tasks/" + "a" * 3000,
)  # fmt: skip


class Shot(NamedTuple):
    """One request: its bytes, and which error codes alone may answer it (None: that is open)."""

    kind: str
    data: bytes
    codes: frozenset[int] | None = None
    is_raw: bool = False  # on a connection of its own


class Fuzzer:
    """`document` is the server's OpenRPC document, `ids` are tasks of its, which the caller may replace."""

    def __init__(self, seed: int, document: dict[str, Any], ids: list[str]) -> None:
        self._seed = seed
        self._methods = document["methods"]
        self._schemas = document["components"]["schemas"]
        self.ids = ids

    def shot(self, number: int) -> Shot:
        """Below zero stand the giants, one after the other: what a server needs for them belongs to its warming up."""
        if number < 0:
            return Shot("giant", post(GIANTS[number % len(GIANTS)]()))
        chance = random.Random(f"{self._seed}:{number}")
        (kind,) = chance.choices(list(KINDS), KINDS.values())
        makers: dict[str, Callable[[random.Random], Shot]] = {
            "grammar": self._grammar, "mutation": self._mutation, "dictionary": _dictionary, "raw": _raw,
        }  # fmt: skip
        return makers[kind](chance)

    # By the grammar

    def _grammar(self, chance: random.Random) -> Shot:
        if chance.random() < 0.25:
            return Shot("grammar", self._rest(chance))
        wrong = chance.choice((0.0, 0.03, 0.15))
        if chance.random() < 0.05:
            body: Any = [self._call(chance, wrong) for _ in range(chance.choice((0, 1, 2, 5, 50, 51)))]
        else:
            body = self._call(chance, wrong)
        return Shot("grammar", post(_json(body), headers=_headers(chance)))

    def _call(self, chance: random.Random, wrong: float) -> Any:
        method = chance.choice(self._methods)
        params = {
            each["name"]: self._value(chance, each["schema"], wrong, each["name"])
            for each in method["params"]
            if each["required"] or chance.random() < 0.3
        }
        call = {"jsonrpc": "2.0", "id": chance.choice((1, "a", 2**70, None, -1)), "method": method["name"]}
        call["params"] = params if method["name"] != "tasks.create" else params["tasks"]
        if chance.random() < wrong:
            field = chance.choice(("jsonrpc", "id", "method", "params", "x"))
            call[field] = chance.choice(METHODS_THAT_ARE_NOT) if field == "method" else _any(chance)
        if chance.random() < wrong:
            del call[chance.choice(list(call))]
        return call

    def _value(self, chance: random.Random, schema: Mapping[str, Any], wrong: float, name: str, depth: int = 0) -> Any:
        """A value by its schema; with some chance at each place another one."""
        if chance.random() < wrong:
            return _any(chance)
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        if "anyOf" in schema:
            return self._value(chance, chance.choice(schema["anyOf"]), wrong, name, depth)
        if "enum" in schema:
            return chance.choice(schema["enum"])
        match schema.get("type"):
            case "object":
                return self._object(chance, schema, wrong, name, depth)
            case "array":
                items = schema.get("items", {})
                return [self._value(chance, items, wrong, name, depth + 1) for _ in range(chance.choice((0, 1, 1, 2)))]
            case "string":
                return self._text(chance, name)
            case "integer" | "number" as kind:
                return self._number(chance, schema, name, kind)
            case "boolean":
                return chance.random() < 0.5
            case "null":
                return None
            case _:
                return _any(chance)

    def _object(self, chance: random.Random, schema: Mapping[str, Any], wrong: float, name: str, depth: int) -> Any:
        made = {
            key: self._value(chance, inner, wrong, key, depth + 1)
            for key, inner in schema.get("properties", {}).items()
            if key in schema.get("required", ()) or (depth < 6 and chance.random() < 0.25)
        }
        if name == "metadata" and depth < 3:
            made["skillId"] = chance.choice(SKILLS)
        if "properties" not in schema and chance.random() < 0.5:
            made[chance.choice(TEXTS[:-1])] = _any(chance)
        if chance.random() < wrong:
            made["x"] = 1
        return made

    def _text(self, chance: random.Random, name: str) -> str:
        if name in ("id", "task_id", "taskId", "task_ids", "contextId", "referenceTaskIds") and chance.random() < 0.8:
            return chance.choice(self.ids)
        if name in ("name", "skillId"):
            return chance.choice(SKILLS)
        if name == "url":
            return chance.choice(URLS)
        if name in ("text", "messageId"):
            return f"m{chance.randrange(10**9)}"
        return chance.choice(TEXTS[:-1])

    @staticmethod
    def _number(chance: random.Random, schema: Mapping[str, Any], name: str, kind: str) -> Any:
        if name == "max_attempts":  # a task that fails may be tried again for a year
            return chance.choice((0, 1, 1, 1, 10**9, -1))
        lowest = schema.get("minimum", schema.get("exclusiveMinimum"))
        highest = schema.get("maximum")
        edges = [edge + step for edge in (lowest, highest) if edge is not None for step in (-1, 0, 1)]
        value = chance.choice([*edges, 1, 1, 10, 20, chance.choice(NUMBERS)])
        return int(value) if kind == "integer" else value

    def _rest(self, chance: random.Random) -> bytes:
        path = chance.choice([*PATHS, *PATHS, *OTHER_PATHS])
        for variable in ("{id}", "{taskId}"):
            path = path.replace(variable, chance.choice(self.ids) if chance.random() < 0.8 else "%2F%00x")
        if chance.random() < 0.1:
            path = "/tenant" + path
        verbs = [*PATHS.get(path, {})] or ["GET", "POST"]
        verb = chance.choice([*verbs * 4, *VERBS])
        names = chance.sample(QUERY_NAMES, chance.choice((0, 0, 1, 2)))
        query = "&".join(f"{n}={chance.choice(('', '1', '0', '-1', 'x', '%ff', 'a' * 99, 'true'))}" for n in names)
        target = (path + (f"?{query}" if query else "")).encode()
        body = b""
        if verb in ("POST", "PUT", "PATCH"):
            schema = {"$ref": chance.choice(("/SendMessageRequest", "/PushNotificationConfigRequest", "/TaskInput"))}
            if "PushNotificationConfigRequest" not in self._schemas and "Push" in schema["$ref"]:
                schema = {"$ref": "/SendMessageRequest"}
            body = chance.choice((b"", _json(self._value(chance, schema, 0.03, "body"))))
        return request(verb.encode(), target, body, _headers(chance))

    # Mutations

    def _mutation(self, chance: random.Random) -> Shot:
        body = bytearray(_json(self._call(chance, 0.0)))
        for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
            begin = chance.randrange(len(body) + 1)
            end = begin + chance.choice((0, 1, 1, 2, 8, 40))
            match chance.randrange(5):
                case 0 if begin < len(body):
                    body[begin] ^= 1 << chance.randrange(8)
                case 1:
                    del body[begin:end]
                case 2:
                    body[begin:begin] = body[begin:end] * chance.choice((1, 2, 30))
                case 3:
                    del body[begin:]
                case _:
                    body[begin:end] = chance.choice(INTERESTING)
        data = bytes(body)
        return Shot(
            "mutation", post(data, path=chance.choice((b"/", b"/", b"/message:send")), headers=_headers(chance))
        )


INTERESTING = (
    b"\x00", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", b"\\", b'"', b"{", b"}",
    b"[", b"]", b":", b",", b"null", b"NaN", b"1e400", b"-0", b"0x1", b"9" * 400, b"{}", b"[]", b"//", b"\n",
    b"\r\n\r\n", b"'",
)  # fmt: skip


def _any(chance: random.Random) -> Any:
    """A value of any type, sometimes deep."""
    match chance.randrange(8):
        case 0:
            return None
        case 1:
            return chance.random() < 0.5
        case 2 | 3:
            return chance.choice(NUMBERS)
        case 4 | 5:
            return chance.choice(TEXTS)
        case 6:
            return [chance.choice(TEXTS) for _ in range(chance.randrange(4))]
        case _:
            return {chance.choice(TEXTS): chance.choice(NUMBERS) for _ in range(chance.randrange(4))}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _headers(chance: random.Random) -> dict[str, str]:
    """Mostly a version; sometimes one header of the others."""
    headers = {"A2A-Version": chance.choice(HEADERS["A2A-Version"][:5])} if chance.random() < 0.8 else {}
    if chance.random() < 0.1:
        name = chance.choice(list(HEADERS))
        headers[name] = chance.choice(HEADERS[name])
    return headers


def request(verb: bytes, target: bytes, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A request as proper HTTP."""
    given = {"Host": "localhost"} | ({"Content-Type": "application/json"} if body else {}) | headers
    lines = [b"%b %b HTTP/1.1" % (verb, target), *(f"{name}: {value}".encode() for name, value in given.items())]
    if body or verb == b"POST":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(body: bytes, path: bytes = b"/", headers: Mapping[str, str] | None = None) -> bytes:
    return request(b"POST", path, body, headers or {})


# The dictionary (T11, T12)

NOT_JSON, WRONG = frozenset({-32700}), frozenset({-32600, -32602})
_CALL = b'{"jsonrpc":"2.0","id":1,"method":"%b","params":%b}'


def _in_metadata(value: bytes) -> bytes:
    return _CALL % (
        b"SendMessage",
        b'{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"text":"x"}],"metadata":{"a":%b}},'
        b'"metadata":{"skillId":"noop"}}' % value,
    )


def _in_id(value: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":"system.health"}' % value


def _in_tree(value: bytes) -> bytes:
    return _CALL % (b"tasks.create", b'[{"name":"noop","inputs":{"a":%b}}]' % value)


def _in_id_of_a_task(value: bytes) -> bytes:
    return _CALL % (b"tasks.get", b'{"task_id":%b}' % value)


VALUES: Mapping[str, tuple[bytes, frozenset[int] | None]] = {
    "depth of 100,000": (b"[" * 100_000 + b"]" * 100_000, NOT_JSON),
    "depth of 100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, NOT_JSON),
    "depth that never ends": (b"[" * 100_000, NOT_JSON),
    "depth of 65": (b"[" * 65 + b"]" * 65, NOT_JSON),
    "depth of 50": (b"[" * 50 + b"]" * 50, None),
    "brackets in a string": (b'"' + b"[" * 10_000 + b'"', None),
    "5,000 digits": (b"9" * 5_000, None),
    "5,000 digits after the point": (b"0." + b"9" * 5_000, None),
    "an exponent of 400": (b"1e400", NOT_JSON),
    "an exponent of 400, below": (b"-1e400", NOT_JSON),
    "an exponent of a billion": (b"1e1000000000", NOT_JSON),
    "NaN": (b"NaN", NOT_JSON),
    "Infinity": (b"-Infinity", NOT_JSON),
    "duplicate keys": (b'{"a":1,"a":2}', None),
    "a lone surrogate": (b'"\\ud800"', None),
    "a lone surrogate as a key": (b'{"\\udfff":1}', None),
    "half a surrogate pair and a half": (b'"\\ud83d\\ud83d\\ude00"', None),
    "invalid UTF-8": (b'"\xff"', NOT_JSON),
    "an overlong NUL": (b'"\xc0\x80"', NOT_JSON),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', NOT_JSON),
    "a raw NUL": (b'"\x00"', NOT_JSON),
    "an escaped NUL": (b'"\\u0000"', None),
    "a string of 100 KiB": (b'"' + b"x" * 102_400 + b'"', None),
    "5,000 keys": (b"{" + b",".join(b'"k%d":0' % n for n in range(5_000)) + b"}", None),
    "5,000 keys of one length and end": (b"{" + b",".join(b'"%08d aaaaaaaa":0' % n for n in range(5_000)) + b"}", None),
    "escapes": (b'"' + b"\\\\" * 20_000 + b'"', None),
    "a comment": (b"1 /* x */", NOT_JSON),
    "single quotes": (b"'a'", NOT_JSON),
    "a trailing comma": (b"[1,]", NOT_JSON),
    "minus nothing": (b"-", NOT_JSON),
    "zeros in front": (b"007", NOT_JSON),
}
PLACES = (_in_metadata, _in_tree, _in_id, _in_id_of_a_task)
_HEALTH = b'{"jsonrpc":"2.0","id":1,"method":"system.health"}'
BODIES: Mapping[str, tuple[bytes, frozenset[int] | None]] = {
    "nothing": (b"", NOT_JSON),
    "a BOM": (b"\xef\xbb\xbf" + _HEALTH, NOT_JSON),
    "UTF-16": (_HEALTH.decode().encode("utf-16"), NOT_JSON),
    "two values": (_HEALTH * 2, NOT_JSON),
    "an empty batch": (b"[]", WRONG),
    "a batch of 51": (b"[" + b",".join([_HEALTH] * 51) + b"]", WRONG),
    "a batch of batches": (b"[" + b",".join([b"[" + _HEALTH + b"]"] * 5) + b"]", WRONG),
    "a batch of nothing": (b"[" + b",".join([b"1"] * 50) + b"]", WRONG),
    "a batch of streams": (
        b"[" + b",".join([_CALL % (b"SubscribeToTask", b'{"id":"x"}')] * 5) + b"]",
        WRONG,
    ),
    "a notification of nothing": (b'{"jsonrpc":"2.0","method":"nope"}', None),
    "a notification of A2A's": (b'{"jsonrpc":"2.0","method":"GetTask","params":{"id":"x"}}', WRONG | {-32001}),
    "another version": (b'{"jsonrpc":"1.0","id":1,"method":"system.health"}', WRONG),
    "a version that is a number": (b'{"jsonrpc":2.0,"id":1,"method":"system.health"}', WRONG),
    "no version": (b'{"id":1,"method":"system.health"}', WRONG),
    "params that are a list": (_CALL % (b"GetTask", b"[1]"), WRONG),
    "params that are a number": (_CALL % (b"GetTask", b"5"), WRONG),
    "params that are null": (_CALL % (b"system.health", b"null"), None),
    "a reserved name": (_CALL % (b"rpc.nope", b"{}"), frozenset({-32601})),
    "an unknown method": (_CALL % (b"nope", b"{}"), frozenset({-32601})),
    "a method with a NUL": (_CALL % (b"a\\u0000", b"{}"), frozenset({-32601})),
    "a bool as id": (_in_id(b"true"), WRONG),
    "a fraction as id": (_in_id(b"1.5"), WRONG),
    "an object as id": (_in_id(b"{}"), WRONG),
    "a fan of 10,001": (
        _CALL % (b"tasks.create", b"[" + b",".join([b'{"name":"noop","parent_id":"noop"}'] * 10_001) + b"]"), WRONG
    ),
    "a chain of 300": (
        _CALL % (
            b"tasks.create",
            b"[" + b",".join(b'{"id":"%d","name":"noop","parent_id":%b}' % (n, b'"%d"' % (n - 1) if n else b"null")
                             for n in range(300)) + b"]",
        ),
        WRONG,
    ),
    "a priority beyond 64 bits": (_CALL % (b"tasks.create", b'[{"name":"noop","priority":%d}]' % 2**64), WRONG),
    "a billion attempts": (_CALL % (b"tasks.create", b'[{"name":"noop","max_attempts":1000000000}]'), WRONG),
}  # fmt: skip
# For a server that takes bodies of 1 MiB and 100,000 values. One of these is kept, and so told again by each list.
GIANTS: tuple[Callable[[], bytes], ...] = (
    lambda: _in_id_of_a_task(b"{" + b",".join(b'"%d":0' % n for n in range(90_000)) + b"}"),
    lambda: _in_tree(b'"' + b"x" * 900_000 + b'"'),
    lambda: _in_id_of_a_task(b"[" + b",".join([b"{}"] * 45_000) + b"]"),
    lambda: _in_metadata(b"[" + b",".join([b"[]"] * 300_000) + b"]"),
    lambda: _in_metadata(b"{" + b",".join(b'"%d":0' % n for n in range(1_000_000)) + b"}"),
    lambda: _in_id_of_a_task(b"9" * 900_000),
    lambda: _in_id_of_a_task(b'"' + b"\\ud800" * 170_000 + b'"'),
    lambda: b"[" * 1_000_000,
    lambda: _in_metadata(b'"' + b"x" * 11_000_000 + b'"'),
)
GIANT = 0.005  # of the dictionary's


def _dictionary(chance: random.Random) -> Shot:
    if chance.random() < GIANT:
        return Shot("giant", post(chance.choice(GIANTS)()))
    if chance.random() < 0.4:
        body, codes = BODIES[chance.choice(list(BODIES))]
    else:
        value, codes = VALUES[chance.choice(list(VALUES))]
        body = chance.choice(PLACES)(value)
    version = {"A2A-Version": chance.choice(("1.0", "0.3"))}
    # Of the other version's method the version is what is wrong.
    return Shot("dictionary", post(body, headers=version), codes and codes | {-32009})


# Hardly HTTP (T13)

_HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_LENGTH = b"Content-Length: %d\r\n" % len(_HEALTH)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(_HEALTH), _HEALTH)
RAW = (
    _HEAD + _LENGTH + _CHUNKED + b"\r\n" + _CHUNKS,
    _HEAD + _CHUNKED + _LENGTH + b"\r\n" + _CHUNKS,
    _HEAD + _LENGTH + b"Content-Length: 3\r\n\r\n" + _HEALTH,
    _HEAD + b"Content-Length: -1\r\n\r\n" + _HEALTH,
    _HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + _HEALTH,
    _HEAD + _LENGTH + b"X-A: a\r\n b\r\n\r\n" + _HEALTH,
    _HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + _CHUNKS,
    _HEAD + _CHUNKED + b"\r\nzz\r\n" + _HEALTH + b"\r\n0\r\n\r\n",
    _HEAD + _CHUNKED + b"\r\n-1\r\n" + _HEALTH + b"\r\n0\r\n\r\n",
    _HEAD + _CHUNKED + b"\r\nfffffffffffffffff\r\n" + _HEALTH + b"\r\n0\r\n\r\n",
    _HEAD + _CHUNKED + b"\r\n5\r\n" + _HEALTH + b"\r\n0\r\n\r\n",
    _HEAD + _CHUNKED + b"\r\n" + b"1;a=b\r\n{\r\n" * 500 + b"0\r\n\r\n",
    (_HEAD + _LENGTH + b"\r\n").replace(b"\r\n", b"\n") + _HEALTH,
    _HEAD + b"X-A: b\n" + _LENGTH + b"\r\n" + _HEALTH,
    _HEAD + b"X-A: a\x00b\r\n" + _LENGTH + b"\r\n" + _HEALTH,
    _HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + _LENGTH + b"\r\n" + _HEALTH,
    _HEAD + b"X-A: " + b"a" * 65536 + b"\r\n" + _LENGTH + b"\r\n" + _HEALTH,
    _HEAD.replace(b"POST /", b"POST /" + b"a" * 32768) + _LENGTH + b"\r\n" + _HEALTH,
    _HEAD + b"Content-Length: 1000\r\n\r\n" + _HEALTH,
    _HEAD + b"Expect: 100-continue\r\n" + _LENGTH + b"\r\n" + _HEALTH,
    _HEAD + _CHUNKED + b"\r\n" + _CHUNKS.removesuffix(b"\r\n") + b"Host: evil.invalid\r\n\r\n",
    _HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n" + _LENGTH + b"\r\n" + _HEALTH,
    (_HEAD + _LENGTH + b"\r\n" + _HEALTH) * 20,
    b"GET /healthz HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.invalid/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\r\n" * 2000,
    b"",
    _HEAD,
    _HEAD + _LENGTH + b"\r\n" + _HEALTH,
)  # fmt: skip


def _raw(chance: random.Random) -> Shot:
    data = bytearray(chance.choice(RAW))
    for _ in range(chance.choice((0, 0, 1, 1, 3))):
        place = chance.randrange(min(len(data), 400) + 1)
        data[place : place + chance.randrange(3)] = chance.choice(
            (b"\x00", b"\n", b"\r", b"\r\n", b" ", b":", b"\xff", b"\t", b"")
        )
    return Shot("raw", bytes(data), is_raw=True)
