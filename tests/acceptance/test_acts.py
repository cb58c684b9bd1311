"""The published ACTS cases against a real server, over both bindings. `ACTS_DIR` names a checkout of A2A's branch
`conformance-spec`; nothing of it is kept here."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.acts.bindings import Binding, JsonRpc, Rest, call
from tests.acceptance.acts.corpus import Case, load
from tests.acceptance.acts.player import Player
from tests.acceptance.acts.special import CHECKS, Receiver
from tests.acceptance.process import ServerProcess
from tests.acceptance.threads import serving

AGENT = Path(__file__).parent / "conformance_agent.py"
FOLDER = os.environ.get("ACTS_DIR")
BINDINGS: dict[str, Callable[[httpx2.Client], Binding]] = {"jsonrpc": JsonRpc, "rest": Rest}
CLIENT = "client"  # the tag of cases that are not about a server
NO_PUSH = "set-config: name is 'PushNotificationNotSupportedError'"
# Cases that are wrong: the section of A2A that says so, and what the server, which is right, is found to do. They have
# to fail with exactly that, or this list is wrong; any other failure of theirs is one.
HELD_WRONG = {
    "CARD-DISC-002": ("§4.4.6: the binding is called HTTP+JSON, not REST", ".protocolBinding is 'HTTP+JSON'"),
    "CORE-SEND-004": (
        "§4.1.6: a part's type is in mediaType, not in metadata.contentType",
        "send: no error came but {'task': ",
    ),
    "CORE-HIST-005": (
        "§4.1.1, §3.7: the history holds the interactions, so the agent's questions are between the user's messages",
        "get: any of [{'text': 'tck-multi-turn chronological second'}] does not fit {'text': {'contains': 'done'}}",
    ),
    "CORE-CAP-001": ("§3.3.4: PushNotificationNotSupportedError, not UnsupportedOperationError", NO_PUSH),
    "PUSH-CFG-004": ("§3.3.4: PushNotificationNotSupportedError, not UnsupportedOperationError", NO_PUSH),
    "CORE-ERR-007": (
        "§9.5, §11.6: the details of an error are an array",
        "data is [{'@type': 'type.googleapis.com/google.rpc.ErrorInfo', 'reason': 'TASK_NOT_FOUND'",
    ),
    "SEC-EXTCARD-002": (
        "§13.3: the card may differ by caller; an authenticated caller is not refused",
        "get-extended-card-insufficient-auth: status is 200",
    ),
    "SEC-AUTH-006": (
        "§8.2: the public card needs no credentials, and a card has neither title nor error",
        "{'error': {'exists': True}}]: {'name': 'durable-a2a'",
    ),
    "DM-FMT-003": ("§3.4.1: a contextId that the agent made must be in its message", "send: message.contextId is "),
    "DM-ART-003": ("§4.1.6: a file is a part with raw and filename; file was v0.3", "any of [{'raw': "),
    "DM-ART-004": ("§4.1.6: a file's address is a part with url and filename", "any of [{'url': "),
    "REST-PD-001": (
        "§11.6: errors are google.rpc.Status, not RFC 9457",
        "get-missing-problem: type is nothing: type 'string' does not hold",
    ),
}
# These send a message without the messageId that §4.1.4 requires; with one they say what they mean to.
FORGOT_MESSAGE_ID = {
    "VER-NEG-002", "DM-FMT-001", "DM-EXTRA-001", "JSONRPC-ENV-001", "JSONRPC-CT-001", "JSONRPC-SSE-001",
}  # fmt: skip
REFUSES_CONTEXT_IDS = "CORE-CTX-001"


class HeldWrong(Exception):
    """A case that is wrong failed in the way in which it has to."""


def cases() -> list[Any]:
    """Every case once for each binding that it is about."""
    if FOLDER is None:
        return []
    found = []
    for case in load(Path(FOLDER) / "tests" / "acts"):
        for transport in case.transports or BINDINGS:
            held = HELD_WRONG.get(case.id)
            marks = [pytest.mark.xfail(reason=held[0], raises=HeldWrong)] if held else []
            found.append(pytest.param(case, transport, id=f"{case.id}-{transport}", marks=marks))
    return found


@contextmanager
def as_held(case_id: str) -> Iterator[None]:
    """Tell the failure that a wrong case has to have from every other one."""
    try:
        yield
    except AssertionError as problem:
        _, found = HELD_WRONG.get(case_id, ("", None))
        if found is None or found not in str(problem):
            raise
        raise HeldWrong(case_id) from problem


class Sut:
    """A server with every capability, whose callers have keys; or, `bare`, one with as few as it can have."""

    def __init__(self, folder: Path, *, bare: bool) -> None:
        settings = {"PUSH": "false", "CLIENT_CONTEXT_IDS": "false"} if bare else {"AUTH": "keys", "MAX_RATE": "1000"}
        env = {f"A2A_SERVER_{name}": value for name, value in settings.items()}
        env["A2A_SERVER_EGRESS_ALLOW"] = "127.0.0.1"
        self.process = ServerProcess(folder, str(AGENT), "--default-skill", "conformance", env=env)
        made = {} if bare else {name: self._key(name) for name in ("tester", "other")}
        self.restricted = "" if bare else self._key("restricted", "--skill", "noop")
        self.process.start()
        self.anonymous = self._http(None)
        self.tester = self._http(made.get("tester"))
        self.card: dict[str, Any] = self.tester.get("/.well-known/agent-card.json").json()
        other = self._http(made.get("other"))
        message = {"role": "ROLE_USER", "parts": [{"text": "tck-complete-task"}]}
        self.foreign = call(JsonRpc(other), "send_message", {"message": message}).body["task"]["id"]
        other.close()

    def _key(self, principal: str, *options: str) -> str:
        database = f"sqlite:///{self.process.folder}/server.db"
        create = [sys.executable, "-m", "a2a_server", "keys", "create", principal, "--database", database, *options]
        return subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()

    def _http(self, key: str | None) -> httpx2.Client:
        headers = {} if key is None else {"X-API-Key": key}
        return httpx2.Client(base_url=self.process.url, headers=headers, timeout=60, trust_env=False)

    def unmet(self, case: Case) -> str | None:
        """The precondition that the card does not meet."""
        has = self.card["capabilities"] | {"authentication": bool(self.card.get("securitySchemes"))}
        wrong = [name for name, wanted in case.capabilities.items() if has.get(name, False) != wanted]
        return wrong[0] if wrong else None

    def close(self) -> None:
        self.anonymous.close()
        self.tester.close()
        self.process.close()


@pytest.fixture(scope="module")
def suts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Sut]]:
    made = {bare: Sut(tmp_path_factory.mktemp("acts"), bare=bare) for bare in (False, True)}
    yield made
    for sut in made.values():
        sut.close()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as made:
        yield made


@pytest.mark.skipif(FOLDER is None, reason="ACTS_DIR names no checkout of the cases")
@pytest.mark.parametrize(("case", "transport"), cases())
def test_case_passes(case: Case, transport: str, suts: dict[bool, Sut], receiver: Receiver) -> None:
    if transport not in BINDINGS:
        pytest.skip(f"{transport} is not offered")
    if CLIENT in case.tags:
        pytest.skip("the case is about a client")
    sut = suts[case.id == REFUSES_CONTEXT_IDS or False in case.capabilities.values()]
    if unmet := sut.unmet(case):
        pytest.skip(f"capabilities.{unmet} is not as the case wants it")
    binding = BINDINGS[transport](sut.tester)
    given = {
        "SUT_BASE_URL": sut.process.url,
        "webhookUrl": receiver.url,
        "insufficientAuthToken": sut.restricted,
        "otherUserTaskId": sut.foreign,
    }
    adds = case.id in FORGOT_MESSAGE_ID
    player = Player(case=case, binding=binding, anonymous=sut.anonymous, given=given, adds_message_ids=adds)
    with as_held(case.id):
        player.play()
    if check := CHECKS.get(case.id):
        check(player, receiver)
