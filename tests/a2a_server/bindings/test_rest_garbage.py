"""Generated garbage at the HTTP+JSON binding: every answer is a result, or says what the caller did wrong."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from a2a_server.bindings.context import RequestContext
from tests.a2a_server.bindings.test_rest import scope_of
from tests.a2a_server.conftest import calling

PIECES = ["tasks", "message:send", "pushNotificationConfigs", ":cancel", ":subscribe", ":", "%", "%2F", "%FF", "%00"]
paths = st.lists(
    st.just("/") | st.sampled_from(PIECES) | st.text(st.characters(max_codepoint=255), max_size=3), max_size=8
).map("".join)
queries = st.binary(max_size=30) | st.lists(
    st.tuples(st.sampled_from(["pageSize", "status", "pageToken", "id", "tenant"]), st.text(max_size=5)), max_size=3
).map(lambda pairs: "&".join(map("=".join, pairs)).encode())
bodies = st.binary(max_size=30) | st.sampled_from(
    [b"", b"{}", b"[1]", b"null", b'{"id":{}}', b'{"tenant":[]}', b'{"message":{"parts":[{}]}}', b'{"url":"x"}']
)


@given(verb=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", ""]), path=paths, query=queries, body=bodies)
def test_whatever_comes_is_answered_and_no_fault_of_ours(verb: str, path: str, query: bytes, body: bytes) -> None:
    scope = scope_of(verb, "/") | {"raw_path": f"/{path}".encode("latin-1"), "query_string": query}

    async def ask() -> None:
        async with calling() as caller:
            if (call := caller.application.rest.call(scope)) is not None:
                reply = await call.handle(body, RequestContext())
                assert reply.events is None, "there is no task to follow"
                assert 200 <= reply.status < 500

    asyncio.run(ask())
