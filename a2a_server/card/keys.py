"""The keys of agent cards' signatures: our private ones from files, the public ones of anybody from key sets.

Two algorithms, and no others: ES256 (P-256, RFC 7518 §3.4) and EdDSA (Ed25519, RFC 8037 §3.1), which RFC 9864 calls
Ed25519. What a key is decides which of them it is used with; what a header says can only agree.
"""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import JWSRegistry

from a2a_server.card.document import read_document
from core.model.errors import ConfigurationError

ES256: Final = "ES256"
EDDSA: Final = "EdDSA"
ED25519: Final = "Ed25519"  # its name since RFC 9864; a key that has it signs under it
ALGORITHMS = (ES256, EDDSA)
MOST_KEYS = 100  # that are looked at in somebody's key set
OTHERS = stat.S_IRWXO
HALF = 32  # bytes of each of the two numbers that an ES256 signature is

_CURVES = {"P-256": ("EC", ES256), "Ed25519": ("OKP", EDDSA)}
NAMES = {ES256: (ES256,), EDDSA: (EDDSA, ED25519), ED25519: (EDDSA, ED25519)}  # `alg` -> what means the same
_PUBLIC = ("kty", "crv", "x", "y")
_KINDS = "only P-256 (ES256) and Ed25519 (EdDSA) keys sign cards"


@dataclass(frozen=True, slots=True)
class Key:
    """A key under its id. Its text never shows the private part."""

    kid: str
    alg: str
    native: ECKey | OKPKey = field(repr=False, compare=False)

    def public(self) -> dict[str, Any]:
        """The public JWK (RFC 7517 §4)."""
        shown = self.native.as_dict(private=False)
        return {name: shown[name] for name in _PUBLIC if name in shown} | {
            "kid": self.kid,
            "alg": self.alg,
            "use": "sig",
        }

    def is_for(self, alg: Any) -> bool:
        """Whether that is the algorithm of its signatures, by any of its names."""
        return alg in NAMES[self.alg]

    def sign(self, message: bytes) -> bytes:
        """The signature in the form that JWS has: the same of every process, for what it signs is served with a tag."""
        if isinstance(self.native, OKPKey):
            return JWSRegistry.algorithms[self.alg].sign(message, self.native)
        private: Any = self.native.private_key
        r, s = decode_dss_signature(private.sign(message, ECDSA(SHA256(), deterministic_signing=True)))  # RFC 6979
        return r.to_bytes(HALF) + s.to_bytes(HALF)

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's for the message. Never raises, whatever the bytes are."""
        return JWSRegistry.algorithms[self.alg].verify(message, signature, self.native)


def load_keys(paths: Iterable[str]) -> tuple[Key, ...]:
    """The private keys in these files, in their order. Raises ConfigurationError that names the file."""
    keys: dict[str, Key] = {}
    for path in paths:
        key = _load(Path(path))
        if key.kid in keys:
            raise ConfigurationError(f"the card key {path} has the same id as another one: {key.kid}")
        keys[key.kid] = key
    return tuple(keys.values())


def generate(alg: str) -> bytes:
    """A new private key of this algorithm, as the text of a file that `load_keys` takes."""
    native = ECKey.generate_key("P-256") if alg == ES256 else OKPKey.generate_key("Ed25519")
    jwk = native.as_dict(private=True) | {"kid": native.thumbprint(), "alg": alg, "use": "sig"}
    return msgspec.json.format(msgspec.json.encode(jwk), indent=2) + b"\n"


def public_set(keys: Sequence[Key]) -> dict[str, Any]:
    """The JWK Set that tells others how to verify what these keys sign (RFC 7517 §5)."""
    return {"keys": [key.public() for key in keys]}


def read_key_set(data: bytes) -> list[Key]:
    """The keys of somebody's JWK Set (or single JWK) that can verify a card; what cannot is passed over.

    Raises ValueError when it is neither.
    """
    document = read_document(data)
    entries = document.get("keys", [document] if "kty" in document else None)
    if not isinstance(entries, list):
        raise ValueError("is not a JWK Set")
    keys: list[Key] = []
    for entry in entries[:MOST_KEYS]:
        try:
            if isinstance(entry, dict):
                keys.append(_key({name: value for name, value in entry.items() if name != "d"}))
        except _Unusable:
            continue
    return keys


class _Unusable(Exception):
    """A key that signs no cards; the text says why, and nothing of the key."""


def _load(path: Path) -> Key:
    try:
        data = path.read_bytes()
        others = path.stat().st_mode & OTHERS
    except OSError as error:
        raise ConfigurationError(f"the card key {path} cannot be read: {error.strerror}") from None
    if others:
        raise ConfigurationError(f"the card key {path} can be read by every user of this machine; run chmod 600 on it")
    try:
        key = _from_pem(data) if data.lstrip().startswith(b"-----BEGIN") else _from_json(data)
        if not key.native.is_private:
            raise _Unusable("is a public key; signing needs the private key")
        _try(key)
    except _Unusable as error:
        raise ConfigurationError(f"the card key {path} {error}") from None
    return key


def _from_json(data: bytes) -> Key:
    try:
        jwk = read_document(data)
    except ValueError:
        raise _Unusable("is neither a JWK nor a PEM file") from None
    if "keys" in jwk:
        raise _Unusable("is a set of keys; give one file per key")
    return _key(jwk)


def _from_pem(data: bytes) -> Key:
    if b"PUBLIC KEY" in data or b"CERTIFICATE" in data:
        raise _Unusable("is a public key; signing needs the private key")
    try:
        native = load_pem_private_key(data, password=None)
    except TypeError:
        raise _Unusable("is encrypted; the server has no password for it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _Unusable("is damaged, or not a private key") from None
    if isinstance(native, EllipticCurvePrivateKey) and isinstance(native.curve, SECP256R1):
        ec = ECKey.import_key(data)
        return Key(ec.thumbprint(), ES256, ec)
    if isinstance(native, Ed25519PrivateKey):
        okp = OKPKey.import_key(data)
        return Key(okp.thumbprint(), EDDSA, okp)
    raise _Unusable(f"is a key of another kind: {_KINDS}")


def _key(jwk: dict[str, Any]) -> Key:
    """The key of a JWK, private if `d` is there. Raises _Unusable."""
    curve = jwk.get("crv")
    kty, alg = _CURVES.get(curve, ("", "")) if isinstance(curve, str) else ("", "")
    if not kty or jwk.get("kty") != kty:
        raise _Unusable(f"is a key of another kind: {_KINDS}")
    named = jwk.get("alg", alg)
    if named not in NAMES[alg]:
        raise _Unusable(f"is for another algorithm than {alg}")
    if jwk.get("use", "sig") != "sig":
        raise _Unusable('is not for signatures ("use")')
    try:
        native = _imported(kty, {name: jwk[name] for name in (*_PUBLIC, "d") if name in jwk})
    except (JoseError, ValueError):
        raise _Unusable("is damaged") from None
    kid = jwk.get("kid", native.thumbprint())
    if not isinstance(kid, str) or not kid:
        raise _Unusable("has an id (kid) that is not a string")
    return Key(kid, named, native)


def _imported(kty: str, jwk: dict[str, Any]) -> ECKey | OKPKey:
    return ECKey.import_key(jwk) if kty == "EC" else OKPKey.import_key(jwk)


def _try(key: Key) -> None:
    """Sign once and verify with what others will see: a file may hold two halves that are not a pair."""
    public = _key(key.public())
    try:
        signature = key.sign(b"card")
    except UnsupportedAlgorithm:
        raise _Unusable("needs OpenSSL 3.2 or newer, whose ES256 signatures do not differ; use EdDSA") from None
    if not public.has_signed(b"card", signature):
        raise _Unusable("has a private and a public part that do not match")
