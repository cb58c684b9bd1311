"""An issuer of tokens for tests: its keys, and tokens of any shape, good ones and bad ones."""

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from a2a_server.auth.settings import AuthSettings
from tests.a2a_server.auth.clocks import SetClock

ISSUER, AUDIENCE = "https://issuer.example/realm", "https://agent.example"
NOW = SetClock().time

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
STRANGER = RSAKey.generate_key(2048, {"kid": "rsa"})

SETTINGS = AuthSettings(auth=("jwt",), jwt_issuer=ISSUER, jwt_audience=(AUDIENCE,), jwt_leeway=30)


class Everything(JWSRegistry):
    """Signs with any algorithm, also with those that nobody should take."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


def jwks(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; None leaves one out."""
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": int(NOW) + 600, "iat": int(NOW)}
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(content: dict[str, Any] | bytes | None = None, *, key: Key = RSA, **header: Any) -> str:
    """A signed token; fields of the header that are None are left out."""
    algorithms = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}
    fields = {"alg": algorithms[key.key_type], "kid": key.kid} | header
    payload = content if isinstance(content, bytes) else json.dumps(claims() if content is None else content).encode()
    registry = Everything(strict_check_header=False)
    return jws.serialize_compact({k: v for k, v in fields.items() if v is not None}, payload, key, registry=registry)


def unsigned(header: Any, content: Any, signature: str = "") -> str:
    """A token with a signature of our choice."""
    return f"{_part(header)}.{_part(content)}.{signature}"


def signed(header: dict[str, Any], content: bytes) -> str:
    """Signed by the issuer, with fields of the header that the library would not write."""
    text = f"{_part({'alg': 'RS256', 'kid': 'rsa'} | header)}.{_part(content)}"
    signature = RSA.private_key.sign(text.encode(), PKCS1v15(), SHA256())
    return f"{text}.{_part(signature)}"


def confused() -> str:
    """Signed with HS256, with the issuer's public RSA key as if it were a shared secret."""
    signed = unsigned({"alg": "HS256", "kid": "rsa"}, claims()).removesuffix(".")
    signature = hmac.digest(RSA.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


def _part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(data).decode().rstrip("=")
