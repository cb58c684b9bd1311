"""Keys in files and in key sets."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from a2a_server.card.keys import ALGORITHMS, EDDSA, ES256, generate, load_keys, public_set, read_key_set
from core.model.errors import ConfigurationError
from tests.a2a_server.card.cards import key_file, keys

PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def stored(folder: Path, data: bytes, mode: int = 0o600) -> str:
    file = folder / f"key-{len(list(folder.iterdir()))}"
    file.touch(mode)
    file.write_bytes(data)
    file.chmod(mode)
    return str(file)


def refusal(*paths: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_keys(paths)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_generated_key_signs_and_its_public_half_verifies(tmp_path: Path, alg: str) -> None:
    (key,) = keys(tmp_path, alg)
    (public,) = read_key_set(json.dumps(public_set([key])).encode())
    signature = key.sign(b"text")
    assert (key.alg, public) == (alg, key)
    assert public.has_signed(b"text", signature)
    for wrong in (b"", b"x", bytes(64), signature[:-1], signature + b"x", bytes(10_000)):
        assert not public.has_signed(b"text", wrong)
    assert not public.has_signed(b"other", signature)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_signs_the_same_text_with_the_same_signature(tmp_path: Path, alg: str) -> None:
    """Found by reading: each process had another ES256 signature, and so another ETag for the same card."""
    path = key_file(tmp_path, alg)
    one, other = load_keys([path])[0], load_keys([path])[0]
    assert one.sign(b"text") == other.sign(b"text") != one.sign(b"other")


def test_a_key_whose_signatures_would_differ_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path, ES256)

    def unsupported(*_: object, **__: object) -> None:
        raise UnsupportedAlgorithm("no deterministic signing")

    monkeypatch.setattr("a2a_server.card.keys.ECDSA", unsupported)
    assert refusal(path).endswith("needs OpenSSL 3.2 or newer, whose ES256 signatures do not differ; use EdDSA")


@pytest.mark.parametrize(
    ("made", "alg"),
    [
        (ec.generate_private_key(ec.SECP256R1()).private_bytes(*PKCS8), ES256),
        (
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
            ),
            ES256,
        ),
        (ed25519.Ed25519PrivateKey.generate().private_bytes(*PKCS8), EDDSA),
    ],
)
def test_pem_files_are_keys_too_and_their_id_is_the_thumbprint(tmp_path: Path, made: bytes, alg: str) -> None:
    (key,) = load_keys([stored(tmp_path, made)])
    assert (key.alg, key.kid) == (alg, key.native.thumbprint())


def test_a_jwk_without_an_id_gets_the_thumbprint_of_rfc_7638(tmp_path: Path) -> None:
    named, unnamed = load_keys([key_file(tmp_path, ES256, kid="mine"), key_file(tmp_path, EDDSA, kid=None)])
    assert (named.kid, unnamed.kid) == ("mine", unnamed.native.thumbprint())


def test_the_thumbprint_is_that_of_the_rfc_8037_example() -> None:
    """RFC 8037, appendix A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    (key,) = read_key_set(json.dumps(jwk).encode())
    assert key.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_the_private_part_is_in_no_text_and_no_set(tmp_path: Path) -> None:
    file = key_file(tmp_path, ES256)
    secret = json.loads(Path(file).read_text())["d"]
    (key,) = load_keys([file])
    assert secret not in f"{key!r} {key} {public_set([key])}"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "neither a JWK nor a PEM"),
        (b"{}", "another kind"),
        (b'{"keys": []}', "set of keys"),
        (b'{"kty": "oct", "k": "c2VjcmV0"}', "another kind"),
        (b'{"kty": ["EC"], "crv": "P-256"}', "another kind"),
        (b'{"kty": "EC", "crv": ["P-256"]}', "another kind"),
        (b'{"kty": "EC", "crv": "P-256"}', "damaged"),
        (b'{"kty": "EC", "crv": "P-256", "x": 1, "y": "a", "d": "a"}', "damaged"),
        (b'{"kty": "OKP", "crv": "Ed25519", "x": "a"}', "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"),
        (rsa.generate_private_key(65537, 2048).private_bytes(*PKCS8), "another kind"),
        (ec.generate_private_key(ec.SECP384R1()).private_bytes(*PKCS8), "another kind"),
        (ed448.Ed448PrivateKey.generate().private_bytes(*PKCS8), "another kind"),
        (
            ed25519.Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
            ),
            "encrypted",
        ),
        (
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "public key",
        ),
    ],
)
def test_an_unfit_key_is_refused_with_its_file(tmp_path: Path, data: bytes, why: str) -> None:
    file = stored(tmp_path, data)
    told = refusal(file)
    assert (why in told, file in told) == (True, True), told


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"d": None}, "public key"),
        ({"alg": "RS256"}, "another algorithm"),
        ({"alg": "none"}, "another algorithm"),
        ({"use": "enc"}, "not for signatures"),
        ({"kid": 5}, "kid"),
        ({"kid": ""}, "kid"),
    ],
)
@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_jwk_that_says_it_is_for_something_else_is_refused(
    tmp_path: Path, alg: str, changed: dict[str, Any], why: str
) -> None:
    assert why in refusal(key_file(tmp_path, alg, **changed))


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_two_halves_of_different_keys_are_refused_and_not_shown(tmp_path: Path, alg: str) -> None:
    secret = json.loads(generate(alg))["d"]
    told = refusal(key_file(tmp_path, alg, d=secret))
    assert "damaged" in told or "do not match" in told
    assert secret not in told


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    data = generate(ES256)
    assert "chmod 600" in refusal(stored(tmp_path, data, 0o604))
    assert load_keys([stored(tmp_path, data, 0o640)]), "a group is how secrets are mounted for a service"


def test_a_missing_file_and_the_same_key_twice_are_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path, ES256)
    assert "cannot be read" in refusal(str(tmp_path / "none"))
    assert "the same id as another" in refusal(file, file)


def test_of_a_set_only_fit_public_parts_are_taken(tmp_path: Path) -> None:
    fit = json.loads(generate(ES256))
    others: list[Any] = [None, 5, "x", {}, {"kty": "RSA"}, fit | {"use": "enc"}, fit | {"x": "AA"}]
    (key,) = read_key_set(json.dumps({"keys": [*others, fit]}).encode())
    assert (key.kid, key.native.is_private) == (fit["kid"], False)


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("member", ["kty", "crv", "x", "y", "d", "kid", "alg", "use", "key_ops", "x5c"])
def test_no_member_of_a_foreign_key_breaks_the_reading(alg: str, member: str) -> None:
    """Whatever it holds, the key is taken or passed over."""
    jwk = json.loads(generate(alg))
    for value in (None, True, 1, 1.5, "", "a", "AA", "\U0001f600", "a b", "=", "A" * 43, [], {}, ["x"], {"a": 1}):
        for key in read_key_set(json.dumps({"keys": [jwk | {member: value}]}).encode()):
            assert not key.has_signed(b"text", bytes(range(64)))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}'])
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_key_set(data)
