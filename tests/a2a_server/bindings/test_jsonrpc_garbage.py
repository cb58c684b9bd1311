"""Generated garbage at the JSON-RPC endpoint: every answer is a result, or says what the caller did wrong."""

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2a_server.bindings.context import RequestContext
from tests.a2a_server.bindings.test_jsonrpc import Server, events_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
METHODS = ["echo", "noop", "missing", "tasks.create", "tasks.execute", "GetTask", "SendMessage", "SubscribeToTask"]
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | json_values,
        "id": st.integers() | st.text() | json_values,
        "method": st.sampled_from(METHODS) | st.text(),
        "params": json_values
        | st.dictionaries(st.sampled_from(["id", "message", "value", "use_streaming", "historyLength"]), json_values),
    },
)
bodies = st.one_of(
    st.binary(),
    json_values.map(lambda value: json.dumps(value).encode()),
    envelopes.map(lambda value: json.dumps(value).encode()),
    st.lists(envelopes, max_size=4).map(lambda value: json.dumps(value).encode()),
    st.tuples(envelopes, st.integers(0), st.binary(min_size=1, max_size=3)).map(
        lambda mutated: _mutate(json.dumps(mutated[0]).encode(), mutated[1], mutated[2])
    ),
)


def _mutate(body: bytes, place: int, bytes_: bytes) -> bytes:
    place %= len(body)
    return body[:place] + bytes_ + body[place + len(bytes_) :]


@settings(max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
@given(bodies)
def test_garbage_is_never_an_internal_error(body: bytes) -> None:
    """Whatever comes in, the answer is a result or says what the caller did wrong."""

    async def answer() -> None:
        reply = await Server().json_rpc.handle(body, RequestContext())
        if reply.events is not None:
            await events_of(reply)
        assert reply.status in (200, 204)
        answers = json.loads(reply.body) if reply.body else []
        for item in answers if isinstance(answers, list) else [answers]:
            assert item.get("error", {}).get("code") in (None, -32700, -32600, -32601, -32602, -32001)

    asyncio.run(answer())
