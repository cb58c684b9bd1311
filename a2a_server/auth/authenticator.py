"""Authenticates a request by its headers. Everything that proves nothing gets one and the same answer."""

import logging
from dataclasses import replace

from starlette.datastructures import Headers

from a2a_server.auth.apikeys import PREFIX, ApiKeys
from a2a_server.auth.errors import BadCredential
from a2a_server.auth.jwks import FETCH_TIMEOUT, MOST_BYTES, make_public_keys
from a2a_server.auth.jwt import JwtVerifier
from a2a_server.auth.principal import NOBODY, Principal
from a2a_server.auth.settings import JWT, KEY_HEADER, KEYS, AuthSettings
from a2a_server.protocol.errors import Unauthenticated, translate
from core.model.errors import StorageError
from core.outside.clock import Clock
from core.outside.egress import Egress, EgressPolicy

logger = logging.getLogger(__name__)

# RFC 6750 §3: who shows nothing is told no error.
CHALLENGE = 'Bearer realm="a2a-server"'
INVALID_TOKEN = f'{CHALLENGE}, error="invalid_token"'


class Authenticator:
    """Takes the credentials that it is given a judge for; with none of them everybody is NOBODY."""

    def __init__(self, *, keys: ApiKeys | None = None, tokens: JwtVerifier | None = None) -> None:
        self._keys = keys
        self._tokens = tokens

    async def principal(self, headers: Headers, client: str) -> Principal:
        """The caller. `client` is its address, for the log.

        Raises Unauthenticated, and Overloaded or Internal when nobody can tell at this moment.
        """
        if self._keys is None and self._tokens is None:
            return NOBODY
        try:
            credential = _shown(headers)
            if credential is None:
                raise Unauthenticated(CHALLENGE)
            return await self._judged(credential)
        except BadCredential as error:
            logger.warning("a credential from %s was refused: %s", client, error)
            raise Unauthenticated(INVALID_TOKEN) from None
        except StorageError as error:
            raise translate(error) from None

    async def close(self) -> None:
        """Stop what goes on beside requests."""
        if self._tokens is not None:
            await self._tokens.close()

    async def _judged(self, credential: str) -> Principal:
        if credential.startswith(PREFIX):
            if self._keys is None:
                raise BadCredential("keys are not taken here")
            return await self._keys.principal(credential)
        if self._tokens is None:
            raise BadCredential("it does not have the form of a key")
        return await self._tokens.principal(credential)


def make_authenticator(settings: AuthSettings, keys: ApiKeys, egress: EgressPolicy, clock: Clock) -> Authenticator:
    """As the settings say. Raises ConfigurationError when the issuer's keys are in a file that cannot be used."""
    tokens = None
    if JWT in settings.auth:
        bounded = replace(egress, max_bytes=MOST_BYTES, timeout=FETCH_TIMEOUT)
        tokens = JwtVerifier(settings, make_public_keys(settings, Egress(bounded)), clock)
    return Authenticator(keys=keys if KEYS in settings.auth else None, tokens=tokens)


def _shown(headers: Headers) -> str | None:
    """The one credential of the request; None for none. Raises BadCredential for two, and for other schemes."""
    given = headers.getlist("authorization") + headers.getlist(KEY_HEADER)
    if not given:
        return None
    if len(given) > 1:
        raise BadCredential("there is more than one")
    if KEY_HEADER in headers:
        if not given[0].startswith(PREFIX):
            raise BadCredential("it does not have the form of a key")
        return given[0]
    scheme, _, credential = given[0].partition(" ")
    if scheme.lower() != "bearer":
        raise BadCredential("its scheme is not Bearer")
    return credential.strip()
