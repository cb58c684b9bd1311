"""The public keys of an issuer (JWKS, RFC 7517): read from a file or an address, kept, and read again now and then.

PyJWKClient and the like fetch with a client of their own; here every fetch passes the guard of outgoing calls
(core.outside.egress), is bounded in size and time, and never keeps a request waiting while there are keys.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from a2a_server.auth.settings import AuthSettings, check_address, is_address
from a2a_server.protocol.errors import Overloaded
from core.model.errors import ConfigurationError
from core.model.jsonscan import has_few_values
from core.outside.egress import Egress, Outgoing
from core.outside.fetched import EgressError

logger = logging.getLogger(__name__)

MOST_BYTES = 256 * 1024
MOST_KEYS = 100
MOST_VALUES = 10_000  # of their JSON
FETCH_TIMEOUT = 10.0  # seconds
FRESH = 600.0  # seconds after which the keys are read again, beside the request that comes then
STALE = 86_400.0  # seconds after which keys that could not be read again count no more
BETWEEN = 60.0  # seconds between two readings, whatever tokens ask for
BETWEEN_FIRST = 5.0  # while there are no keys at all
SHORTEST_RSA = 2048  # bits

Read = Callable[[], Awaitable[bytes]]


class PublicKeys:
    """The keys that `read` gives. Unreadable ones never replace those that were read before."""

    def __init__(self, read: Read, now: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._now = now
        self._keys: tuple[Key, ...] = ()
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """The key of a token with this header; a token that names none has it only where there is no choice.

        Raises Overloaded when no keys can be had.
        """
        if self._age() > STALE:
            await self._refreshed(BETWEEN_FIRST)
            if self._age() > STALE:
                raise Overloaded("The keys to verify credentials are not available")
        elif self._age() > FRESH:
            self._refresh(BETWEEN)
        if (key := self._fitting(key_id, algorithm)) is None:
            await self._refreshed(BETWEEN)  # the issuer may have a new key; any caller can ask for a key that it lacks
            key = self._fitting(key_id, algorithm)
        return key

    async def close(self) -> None:
        """Stop reading."""
        if (reading := self._reading) is not None:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    def _age(self) -> float:
        return float("inf") if self._read_at is None else self._now() - self._read_at

    def _fitting(self, key_id: str | None, algorithm: str) -> Key | None:
        fitting = [key for key in self._keys if key_id in (None, key.kid) and _fits(key, algorithm)]
        return fitting[0] if len(fitting) == 1 else None

    async def _refreshed(self, pause: float) -> None:
        self._refresh(pause)
        if self._reading is not None:
            await asyncio.shield(self._reading)  # a caller that waits may go; the others still want it

    def _refresh(self, pause: float) -> None:
        """Begin to read, unless that is going on, or the last time was less than `pause` seconds ago."""
        if self._reading is None and (self._tried_at is None or self._now() - self._tried_at >= pause):
            self._tried_at = self._now()
            self._reading = asyncio.create_task(self._take())

    async def _take(self) -> None:
        try:
            self._keys = parse_keys(await self._read())
            self._read_at = self._now()
        except (EgressError, OSError, ValueError) as error:
            logger.warning("cannot read the public keys of the token issuer: %s", error)
        finally:
            self._reading = None


def parse_keys(data: bytes) -> tuple[Key, ...]:
    """The usable public keys of a JWKS. Others are left out: an issuer may have keys for other purposes.

    Raises ValueError when there are none.
    """
    if not has_few_values(data, MOST_VALUES):
        raise ValueError(f"they have more than {MOST_VALUES} values")
    try:
        given = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        raise ValueError("they are not JSON") from None
    listed = given.get("keys") if isinstance(given, dict) else None
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ValueError(f"they are not a JWKS with at most {MOST_KEYS} keys")
    keys = tuple(key for each in listed if (key := _usable(each)) is not None)
    if not keys:
        raise ValueError("none of them can verify a signature")
    return keys


def _usable(given: Any) -> Key | None:
    # `oct` is a shared secret: with one, a verifier could sign as well.
    if not isinstance(given, dict) or given.get("kty") not in ("RSA", "EC", "OKP") or given.get("use") == "enc":
        return None
    try:
        key = import_key({name: value for name, value in given.items() if name not in ("key_ops", "d")})
        key.public_key  # noqa: B018 - makes the library read the numbers now, not when the first token comes
    except (JoseError, ValueError, TypeError, KeyError):
        logger.info("ignored a public key of the token issuer: it is not valid")
        return None
    if isinstance(key, RSAKey) and key.public_key.key_size < SHORTEST_RSA:
        logger.warning("ignored an RSA key of the token issuer: it is shorter than %d bits", SHORTEST_RSA)
        return None
    return key


_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519", "Ed25519": "Ed25519"}
_SAME = {"EdDSA", "Ed25519"}  # of a key on that curve: RFC 9864 gave it a name of its own


def _fits(key: Key, algorithm: str) -> bool:
    """Whether the key is for this algorithm: what the token says is never enough (RFC 8725 §3.1)."""
    if key.alg not in (None, algorithm) and not {key.alg, algorithm} <= _SAME:
        return False
    if algorithm in _CURVES:
        return isinstance(key, ECKey | OKPKey) and key.get("crv") == _CURVES[algorithm]
    return isinstance(key, RSAKey)


def make_public_keys(settings: AuthSettings, egress: Egress) -> PublicKeys:
    """The keys as the settings say where they are. Raises ConfigurationError for a file that holds none."""
    where = settings.jwt_keys
    if where is None:
        return PublicKeys(lambda: _discovered(settings, egress))
    if is_address(where):
        return PublicKeys(lambda: _fetched(where, egress))
    file = Path(where)
    try:
        parse_keys(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"jwt_keys: {file} cannot be used: {error}") from None
    return PublicKeys(lambda: asyncio.to_thread(file.read_bytes))


async def _discovered(settings: AuthSettings, egress: Egress) -> bytes:
    """Through the issuer's description of itself (OpenID Connect Discovery 1.0 §4)."""
    described = msgspec.json.decode(await _fetched(settings.discovery_url, egress))
    # Else one issuer could speak for another (§4.3).
    if not isinstance(described, dict) or described.get("issuer") != settings.jwt_issuer:
        raise ValueError("the issuer's metadata names another issuer")
    address = described.get("jwks_uri")
    if not isinstance(address, str):
        raise ValueError("the issuer's metadata has no jwks_uri")
    try:
        check_address(address, "jwks_uri")
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    return await _fetched(address, egress)


async def _fetched(url: str, egress: Egress) -> bytes:
    answer = await egress.fetch(Outgoing(url=url, headers={"Accept": "application/json"}))
    if answer.status_code != 200:
        raise ValueError(f"{url} answered with status {answer.status_code}")
    return answer.body
