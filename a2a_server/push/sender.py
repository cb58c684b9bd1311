"""One delivery over HTTP: headers, one attempt, and what its outcome means."""

from collections.abc import Mapping

from msgspec import Struct

from a2a_server.push.bodies import TASKS
from a2a_server.push.configs import SIGNING_SCHEME, PushConfig, SecretBox, Secrets
from a2a_server.push.signature import signature_headers
from core.model.errors import StorageError
from core.outside.clock import Clock
from core.outside.egress import DestinationNotAllowed, Egress, Outgoing
from core.outside.fetched import EgressError

GONE = 410  # the receiver wants no more (RFC 9110 §15.5.11)
LONGEST_RETRY_AFTER = 3_600.0  # seconds
MEDIA_TYPES = {"1.0": "application/a2a+json"}  # of bodies by version; the others are plain JSON


class Failed(Struct, frozen=True, kw_only=True):
    """An attempt that did not deliver. The error is safe to show."""

    error: str
    is_final: bool = False  # the same again would fail in the same way
    is_gone: bool = False  # the receiver is not to be asked again
    retry_after: float = 0.0  # seconds that the receiver wants to be left alone


class Sender:
    """Sends bodies to webhooks. `secret` signs what goes to those without a signing secret of their own."""

    def __init__(self, egress: Egress, box: SecretBox, clock: Clock, *, timeout: float, secret: str | None) -> None:
        self._egress = egress
        self._box = box
        self._clock = clock
        self._timeout = timeout
        self._secret = secret

    async def send(self, config: PushConfig, message_id: str, body: bytes) -> Failed | None:
        """Make one attempt; None when the receiver has taken it. Its answer's body is not read."""
        try:
            headers = self._headers(config, message_id, body)
            answer = await self._egress.fetch(
                Outgoing(
                    url=config.url,
                    method="POST",
                    headers=headers,
                    body=body,
                    timeout=self._timeout,
                    reads_body=False,
                    owner=config.owner,
                )
            )
        except DestinationNotAllowed as error:
            return Failed(error=str(error), is_final=True)
        except (EgressError, StorageError) as error:
            return Failed(error=str(error))
        if 200 <= answer.status_code < 300:
            return None
        return Failed(
            error=f"the receiver answered with status {answer.status_code}",
            is_gone=answer.status_code == GONE,
            retry_after=_seconds(answer.headers.get("retry-after", "")),
        )

    def _headers(self, config: PushConfig, message_id: str, body: bytes) -> Mapping[str, str]:
        """Raises StorageError when the secrets cannot be read."""
        secrets = self._box.open(config) if config.sealed else Secrets()
        signs = config.scheme.lower() == SIGNING_SCHEME
        signing = secrets.credentials if signs else self._secret
        headers = {
            "Content-Type": MEDIA_TYPES.get(config.wire_version, "application/json"),
            "User-Agent": "a2a-server",
            **signature_headers(signing, message_id, int(self._clock.wall()), body),
        }
        if config.wire_version != TASKS:
            headers["A2A-Version"] = config.wire_version
        if secrets.token:
            headers["X-A2A-Notification-Token"] = secrets.token
        if config.scheme and not signs:
            headers["Authorization"] = f"{config.scheme} {secrets.credentials}".strip()
        return headers


def _seconds(retry_after: str) -> float:
    """The wait that a Retry-After header asks for, within reason; dates are not read."""
    return min(LONGEST_RETRY_AFTER, float(retry_after)) if retry_after.isascii() and retry_after.isdigit() else 0.0
