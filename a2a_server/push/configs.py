"""Push configurations: which webhooks follow a task, and how far each has been delivered (A2A §4.3, §13.2).

A configuration is two documents: what the caller wrote, and where the delivery stands. Both go with their tree.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_address
from typing import NamedTuple

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from msgspec import Struct

from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.web_url import web_url
from a2a_server.push.signature import secret_bytes
from core.model.errors import Problem, StorageError
from core.model.task import TreeHead
from core.outside.egress import EgressPolicy
from core.storage.base import Document, DocumentQuery, Storage, document_pages

CONFIG, DELIVERY_STATE, DEAD = "push_config", "push_standing", "push_dead"  # kinds of documents; databases keep them
AT_REST = 1e12  # `at` of a delivery state that has nothing to deliver: far behind every real time
NOT_AT_REST = AT_REST / 2  # what asks for delivery states until then finds the others
SIGNING_SCHEME = "hmac"  # the scheme whose credentials sign deliveries and are never sent
EVENTS = ("nodes", "chunks")  # what can be asked for beside the root's changes of status and final artifacts
LONGEST_URL = 2_048
LONGEST_SECRET = 4_096
LONGEST_ID = 128
PAGE = 100
STORAGE_PAUSE = 1.0  # seconds after which storage that was not available is tried again

_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


class PushConfig(Struct, frozen=True, kw_only=True):
    """What the caller wrote. `sealed`: the secrets, encrypted where there is a key; they never leave again."""

    id: str
    task_id: str
    tree_id: str
    owner: str
    url: str
    scheme: str = ""
    sealed: str = ""
    is_encrypted: bool = False
    wire_version: str = "1.0"  # in which it was registered, and is served: 1.0, 0.3 or tasks
    events: tuple[str, ...] = ()
    created_at: float

    @property
    def key(self) -> str:
        """Its name among all configurations; ids are the caller's, unique within a task only."""
        return f"{self.task_id}/{self.id}"

    @property
    def digest(self) -> str:
        """Its name in the ids of deliveries, which are not to be made of what callers write (Standard Webhooks)."""
        return sha256(self.key.encode()).hexdigest()[:32]


class Secrets(Struct, frozen=True, kw_only=True):
    """What only the receiver may see again."""

    token: str = ""
    credentials: str = ""


class DeliveryState(Struct, frozen=True, kw_only=True):
    """How far the receiver has been told."""

    cursor: int = 0  # the number of the last event delivered, or made a dead letter
    shown: str = ""  # the status that was delivered last
    attempts: int = 0  # failed ones, of the event after the cursor
    error: str = ""  # of the last one
    retry_at: float = 0.0
    registered: str = ""  # tells the webhook from the one whose place it took, or that takes its own


class Webhook(NamedTuple):
    """A configuration, where its delivery stands, and that as it is stored: whoever changes it says what it was."""

    config: PushConfig
    delivery: DeliveryState
    stored: Document


class DeadLetter(Struct, frozen=True, kw_only=True):
    """An event that was given up."""

    id: str
    config_key: str
    task_id: str
    tree_id: str
    seq: int
    shown: str  # the status before it, which decides what there is to tell
    attempts: int
    error: str
    at: float


class SecretBox:
    """Encrypts secrets with the first key, reads them with any. Without keys they are stored as they are."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._cipher = MultiFernet([Fernet(key) for key in keys]) if keys else None

    @property
    def encrypts(self) -> bool:
        return self._cipher is not None

    def seal(self, secrets: Secrets) -> str:
        """The secrets as text to be stored."""
        body = msgspec.json.encode(secrets)
        return (self._cipher.encrypt(body) if self._cipher else body).decode()

    def open(self, config: PushConfig) -> Secrets:
        """The secrets again. Raises StorageError when none of the keys fits."""
        body = config.sealed.encode()
        if config.is_encrypted:
            try:
                if self._cipher is None:
                    raise InvalidToken
                body = self._cipher.decrypt(body)
            except InvalidToken:
                raise StorageError(f"The secrets of webhook {config.key} cannot be read with secret_keys") from None
        return msgspec.json.decode(body, type=Secrets)


def check_config(config: wire.TaskPushNotificationConfig, policy: EgressPolicy, path: str = "") -> None:
    """Raise InvalidParams with every field that is wrong. The URL's name is not looked up before a delivery."""
    problems = [*_url_problems(config.url, policy)]
    secrets = {"token": config.token}
    if (authentication := config.authentication) is not None:
        secrets["authentication.credentials"] = authentication.credentials
        if not _SCHEME.fullmatch(authentication.scheme):
            problems.append(Problem("authentication.scheme", "must be an HTTP authentication scheme"))
        elif authentication.scheme.lower() == SIGNING_SCHEME:
            try:
                secret_bytes(authentication.credentials)
            except ValueError as error:
                problems.append(Problem("authentication.credentials", str(error)))
    for field, value in secrets.items():
        if len(value) > LONGEST_SECRET or not _PRINTABLE.fullmatch(value):
            text = f"must be at most {LONGEST_SECRET} printable ASCII characters"
            problems.append(Problem(field, text))
    if len(config.id) > LONGEST_ID or not _PRINTABLE.fullmatch(config.id) or "/" in config.id:
        problems.append(Problem("id", f"must be at most {LONGEST_ID} printable ASCII characters without a slash"))
    if unknown := [each for each in config.events if each not in EVENTS]:
        problems.append(Problem("events", f"unknown: {unknown[0][:40]!r}; known: {', '.join(EVENTS)}"))
    if problems:
        raise InvalidParams.of([Problem(f"{path}{each.field}", each.message) for each in problems])


def _url_problems(url: str, policy: EgressPolicy) -> list[Problem]:
    if len(url) > LONGEST_URL:
        return [Problem("url", f"is longer than {LONGEST_URL} characters")]
    try:
        address = web_url(url)
    except ValueError as error:
        return [Problem("url", str(error))]
    if not _PRINTABLE.fullmatch(url) or " " in url:
        return [Problem("url", "must be printable ASCII without spaces")]
    host = address.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return []  # a name: judged when it is connected to
    port = address.port or (443 if address.scheme == "https" else 80)
    return [] if policy.permits(host, host, port) else [Problem("url", "the destination is not allowed")]


class ConfigStore:
    """The stored configurations."""

    def __init__(self, storage: Storage, box: SecretBox) -> None:
        self._storage = storage
        self.box = box

    def documents(self, config: PushConfig, delivery: DeliveryState) -> tuple[Document, Document]:
        """A configuration and where it stands, to be stored together."""
        written = Document(
            kind=CONFIG,
            id=config.key,
            owner=config.owner,
            tree_id=config.tree_id,
            at=config.created_at,
            body=msgspec.json.encode(config),
        )
        return written, self.delivery_document(config, delivery)

    def delivery_document(self, config: PushConfig, delivery: DeliveryState, *, at_rest: bool = False) -> Document:
        """Where the delivery stands; `at` is when it goes on."""
        return Document(
            kind=DELIVERY_STATE,
            id=config.key,
            owner=config.owner,
            tree_id=config.tree_id,
            at=AT_REST if at_rest else delivery.retry_at,
            body=msgspec.json.encode(delivery),
        )

    def dead_document(self, config: PushConfig, letter: DeadLetter) -> Document:
        """What was given up, by the time of that."""
        return Document(
            kind=DEAD,
            id=letter.id,
            owner=config.owner,
            tree_id=config.tree_id,
            at=letter.at,
            body=msgspec.json.encode(letter),
        )

    async def find(self, owner: str, task_id: str, config_id: str) -> PushConfig | None:
        """One configuration of the task."""
        document = await self._storage.document(CONFIG, f"{task_id}/{config_id}")
        return _config(document) if document is not None and document.owner == owner else None

    async def read(self, key: str) -> Webhook | None:
        """A webhook, by its key."""
        document, delivery = (
            await self._storage.document(CONFIG, key),
            await self._storage.document(DELIVERY_STATE, key),
        )
        if document is None or delivery is None:
            return None
        return Webhook(_config(document), delivery_state_of(delivery), delivery)

    async def of_task(self, owner: str, task_id: str) -> list[PushConfig]:
        """The configurations of a task, oldest first; there are few (`max_push_configs`)."""
        query = DocumentQuery(kind=CONFIG, prefix=f"{task_id}/", limit=PAGE)
        configs = [_config(document) async for page in document_pages(self._storage, query) for document in page]
        return [config for config in configs if config.task_id == task_id and config.owner == owner]

    async def delete(self, config: PushConfig, stored: Document | None = None) -> bool:
        """Remove it, with what was given up; with `stored` only while its delivery stands like that. Whether it was."""
        names = [(CONFIG, config.key), (DELIVERY_STATE, config.key)]
        query = DocumentQuery(kind=DEAD, prefix=f"{config.key}/", limit=PAGE)
        async for page in document_pages(self._storage, query):
            names += [(DEAD, each.id) for each in page]
        return await self._storage.delete_documents(*names, expected=stored) > 0


async def unread_trees(storage: Storage, heads: Sequence[TreeHead]) -> frozenset[str]:
    """Those of these trees of whose events, as many as the heads say, some are still to be delivered."""
    return frozenset([document.tree_id for document in await behind(storage, heads)])


async def behind(storage: Storage, heads: Sequence[TreeHead]) -> list[Document]:
    """The delivery states of these trees' webhooks that have not come to their end."""
    versions = {head.id: head.version for head in heads}
    if not versions:
        return []
    query = DocumentQuery(kind=DELIVERY_STATE, tree_ids=tuple(versions), limit=PAGE)
    states = [document async for page in document_pages(storage, query) for document in page]
    return [document for document in states if delivery_state_of(document).cursor < versions[document.tree_id]]


def delivery_state_of(document: Document) -> DeliveryState:
    """Where the delivery stands, of a document of that kind."""
    return msgspec.json.decode(document.body, type=DeliveryState)


def _config(document: Document) -> PushConfig:
    return msgspec.json.decode(document.body, type=PushConfig)
