"""The settings of push notifications, a part of the server's (`config.py`)."""

from collections.abc import Callable
from typing import Annotated, Any

from cryptography.fernet import Fernet
from msgspec import Meta

from a2a_server.auth.settings import AuthSettings
from a2a_server.push.signature import secret_bytes
from core.model.errors import ConfigurationError


def _hidden(value: Any) -> Any:
    return ["***"] * len(value) if isinstance(value, tuple) else None if value is None else "***"


Secret = Annotated[str | None, Meta(extra={"mask": _hidden})]
Secrets = Annotated[tuple[str, ...], Meta(extra={"mask": _hidden})]
Wait = Annotated[float, Meta(gt=0, le=86_400)]  # seconds


class PushSettings(AuthSettings, frozen=True, kw_only=True):
    """How webhooks are called, beside how callers are known: structs inherit in one line. Times are in seconds."""

    push: bool = True  # whether push notifications are offered
    push_timeout: Wait = 10.0  # time for one delivery attempt
    push_retry_initial: Wait = 1.0  # longest wait after the first failure; doubles with each failure
    push_retry_longest: Wait = 3_600.0  # upper bound of that wait
    push_max_age: Annotated[float, Meta(gt=0, le=90 * 86_400)] = (
        86_400.0  # age at which an undelivered event becomes a dead letter
    )
    push_concurrency: Annotated[int, Meta(ge=1, le=1_000)] = 50  # concurrent deliveries
    # Concurrent deliveries to one caller's webhooks. None: half of push_concurrency; all of it without `auth`.
    push_concurrency_per_caller: Annotated[int, Meta(ge=1, le=1_000)] | None = None
    max_push_configs: Annotated[int, Meta(ge=1, le=1_000)] = 10  # webhooks of one task
    push_signing_secret: Secret = None  # whsec_…: signs deliveries to webhooks without a secret of their own
    secret_keys: Secrets = ()  # Fernet keys that encrypt secrets in the database, newest first

    @property
    def deliveries_per_caller(self) -> int:
        """How many deliveries one caller's webhooks have at a time."""
        usual = max(1, self.push_concurrency // 2) if self.identifies_callers else self.push_concurrency
        return self.push_concurrency_per_caller or usual


def check_push(settings: PushSettings, source: Callable[[str], str]) -> None:
    """The rules that one setting's type cannot say. Raises ConfigurationError, without the secret in it."""
    for key in settings.secret_keys:
        try:
            Fernet(key)
        except ValueError:
            text = "each must be a Fernet key: 32 random bytes in URL-safe base64"
            raise ConfigurationError(f"{source('secret_keys')}: {text}") from None
    if settings.push_signing_secret is not None:
        try:
            secret_bytes(settings.push_signing_secret)
        except ValueError as error:
            raise ConfigurationError(f"{source('push_signing_secret')}: {error}") from None
