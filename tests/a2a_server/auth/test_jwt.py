"""Tokens: what a good one proves, and forty that prove nothing (reliability T4)."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import OctKey
from msgspec.structs import replace

from a2a_server.auth.errors import BadCredential
from a2a_server.auth.jwks import PublicKeys
from a2a_server.auth.jwt import LONGEST_TOKEN, JwtVerifier, _Algorithms
from a2a_server.auth.principal import Principal
from a2a_server.auth.settings import AuthSettings
from core.model.owners import owner_of
from tests.a2a_server.auth.clocks import SetClock
from tests.a2a_server.auth.tokens import (
    EC,
    ED,
    ISSUER,
    NOW,
    RSA,
    SETTINGS,
    STRANGER,
    claims,
    confused,
    jwks,
    signed,
    token,
    unsigned,
)


class Issuer:
    """Gives its keys, and counts how often it is asked."""

    def __init__(self) -> None:
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return jwks(RSA, EC, ED)


def verifier(
    settings: AuthSettings = SETTINGS, issuer: Issuer | None = None, clock: SetClock | None = None
) -> JwtVerifier:
    keys = PublicKeys((issuer or Issuer()).read, lambda: 0.0)
    return JwtVerifier(settings, keys, clock or SetClock())


@pytest.mark.asyncio
@pytest.mark.parametrize("key", [RSA, EC, ED], ids=["RS256", "ES256", "EdDSA"])
async def test_a_good_token_is_its_principal(key: Any) -> None:
    assert await verifier().principal(token(key=key)) == Principal(
        id="ann", expires_at=NOW + 600 + 30, owner=owner_of("", "ann")
    )


# Seconds by which the machine's clock was set forward or back since the process began.
SET = [sign * size for size in (1, 29, 31, 3_600, 86_400, 10 * 365 * 86_400) for sign in (1, -1)]


async def left(judge: JwtVerifier, clock: SetClock, good: str) -> float:
    """Seconds for which what was opened with the token may last."""
    expires_at = (await judge.principal(good)).expires_at
    assert expires_at is not None
    return expires_at - clock.now()


@pytest.mark.asyncio
@pytest.mark.parametrize("ahead", [0, *SET])
async def test_a_token_is_judged_by_the_machines_clock_and_lasts_by_the_processs_time(ahead: int) -> None:
    """The issuer's clock is one that is set, too; what is open with the token lasts as long as it has left."""
    clock = SetClock(NOW - ahead, ahead)  # the machine says NOW
    judge = verifier(clock=clock)

    assert await left(judge, clock, token()) == 600 + 30
    assert await left(judge, clock, token(claims(exp=NOW - 29))) == 1
    assert (await judge.principal(token(claims(nbf=NOW + 30)))).id == "ann"
    for bad, told in ((claims(exp=NOW - 30), "has expired"), (claims(nbf=NOW + 31), "not valid yet")):
        with pytest.raises(BadCredential, match=told):
            await judge.principal(token(bad))


@pytest.mark.asyncio
@pytest.mark.parametrize("jump", SET)
async def test_a_clock_that_is_set_between_two_calls_changes_what_a_token_proves_and_not_what_is_open(
    jump: int,
) -> None:
    clock = SetClock()
    judge = verifier(clock=clock)
    good = token(claims(nbf=NOW))
    before = await judge.principal(good)
    clock.ahead = jump

    if -30 <= jump < 630:
        assert await left(judge, clock, good) == 630 - jump
    else:
        with pytest.raises(BadCredential, match="has expired" if jump > 0 else "not valid yet"):
            await judge.principal(good)
    assert before.expires_at is not None
    assert before.expires_at - clock.now() == 630, "by the process's time, which nobody sets"
    clock.ahead = 0
    assert await judge.principal(good) == before


@pytest.mark.asyncio
@pytest.mark.parametrize("named", [None, "EdDSA", "Ed25519"])
@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
async def test_ed25519_has_two_names(algorithm: Any, named: str | None) -> None:
    """RFC 9864 gave it its own; issuers change to it one by one, in tokens and in key sets."""
    issuer = Issuer()
    issuer.keys = json.dumps({"keys": [ED.as_dict(private=False) | ({"alg": named} if named else {})]}).encode()
    both, one = (replace(SETTINGS, jwt_algorithms=names) for names in (SETTINGS.jwt_algorithms, (algorithm,)))
    for allowed in (both, one):
        assert (await verifier(allowed, issuer).principal(token(key=ED, alg=algorithm))).id == "ann"
    other = "EdDSA" if algorithm == "Ed25519" else "Ed25519"
    with pytest.raises(BadCredential):
        await verifier(one, issuer).principal(token(key=ED, alg=other))


@pytest.mark.asyncio
@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_every_allowed_algorithm_verifies(algorithm: Any) -> None:
    settings = replace(SETTINGS, jwt_algorithms=(algorithm,))
    assert (await verifier(settings).principal(token(alg=algorithm))).id == "ann"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "good",
    [
        token(claims(aud=["x", "https://agent.example"])),
        token(claims(exp=NOW - 29)),
        token(claims(nbf=NOW + 30)),
        token(claims(exp=NOW + 600.5)),
        token(typ="at+jwt"),
        token(typ="application/at+jwt"),
        token(typ="JWT"),
        token(key=EC, kid=None),
        token(nonce="what nobody knows is not looked at"),
        signed({}, json.dumps(claims()).encode()),
    ],
)
async def test_what_the_rules_leave_open_is_taken(good: str) -> None:
    assert (await verifier().principal(good)).id == "ann"


HS = OctKey.import_key("a secret of thirty-two characters")

GOOD = json.dumps(claims()).encode()

BAD: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned({"alg": "none", "kid": "rsa"}, claims()),
    "alg None, other case": lambda: unsigned({"alg": "NonE"}, claims()),
    "alg none with a signature": lambda: unsigned({"alg": "none"}, claims(), token().rpartition(".")[2]),
    "alg none signed by the library": lambda: token(alg="none"),
    "alg missing": lambda: unsigned({"kid": "rsa"}, claims(), "AAAA"),
    "alg a number": lambda: unsigned({"alg": 256}, claims(), "AAAA"),
    "alg unknown": lambda: unsigned({"alg": "RS257", "kid": "rsa"}, claims(), "AAAA"),
    "alg not allowed": lambda: token(alg="RS512"),
    "HS256 with the public key as its secret": confused,
    "HS256 with a secret": lambda: token(key=HS, kid="rsa"),
    "another algorithm than the key's": lambda: unsigned({"alg": "ES256", "kid": "rsa"}, claims(), "A" * 86),
    "somebody else's key under the same kid": lambda: token(key=STRANGER),
    "an unknown kid": lambda: token(kid="other"),
    "an empty kid": lambda: token(kid=""),
    "a kid that is a path": lambda: token(key=STRANGER, kid="../../dev/null"),
    "a kid that is a number": lambda: unsigned({"alg": "RS256", "kid": 1}, claims(), "AAAA"),
    "jwk in the header": lambda: token(key=STRANGER, kid="own", jwk=STRANGER.as_dict(private=False)),
    "jwk in the header, known kid": lambda: token(key=STRANGER, jwk=STRANGER.as_dict(private=False)),
    "jku in the header": lambda: token(key=STRANGER, kid="own", jku="http://127.0.0.1/jwks.json"),
    "x5u in the header": lambda: token(key=STRANGER, kid="own", x5u="http://127.0.0.1/cert.pem"),
    "crit": lambda: signed({"crit": ["exp"], "exp": 1}, GOOD),
    "crit of nothing": lambda: signed({"crit": []}, GOOD),
    "crit null": lambda: signed({"crit": None}, GOOD),
    "an unencoded payload": lambda: signed({"b64": False, "crit": ["b64"]}, GOOD),
    "a signed document of another type": lambda: token(typ="secevent+jwt"),
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "a changed signature": lambda: token()[:-10] + "AAAAAAAAAA",
    "a changed content": lambda: ".".join([token().split(".")[0], token(claims(sub="x")).split(".")[1], "AAAA"]),
    "two parts": lambda: token().rpartition(".")[0],
    "five parts": lambda: "a.b.c.d.e",
    "nothing": lambda: "",
    "dots": lambda: "..",
    "no base64": lambda: "é.é.é",
    "a header that is no object": lambda: unsigned([1], claims(), "AAAA"),
    "a header that is no JSON": lambda: unsigned(b"\xff{", claims(), "AAAA"),
    "1 MiB": lambda: token(claims(x="x" * 1_048_576)),
    "one character too long": lambda: "a" * (LONGEST_TOKEN + 1),
    "content that is no JSON": lambda: token(b"hello"),
    "content that is no object": lambda: token(b'["iss"]'),
    "content that nests without end": lambda: token(b"[" * 5_000),
    "another issuer": lambda: token(claims(iss="https://evil.example")),
    "no issuer": lambda: token(claims(iss=None)),
    "the issuer with a slash": lambda: token(claims(iss=ISSUER + "/")),
    "another audience": lambda: token(claims(aud="https://other.example")),
    "no audience": lambda: token(claims(aud=None)),
    "an audience that is a number": lambda: token(claims(aud=1)),
    "an audience of lists": lambda: token(claims(aud=[["https://agent.example"]])),
    "an empty list of audiences": lambda: token(claims(aud=[])),
    "expired": lambda: token(claims(exp=NOW - 30)),
    "no expiry": lambda: token(claims(exp=None)),
    "an expiry that is a text": lambda: token(claims(exp="9999999999")),
    "an expiry that is a bool": lambda: token(claims(exp=True)),
    "an expiry beyond all times": lambda: token(claims(exp=10**400)),
    "an expiry that is infinite": lambda: token(b'{"exp": Infinity}'),
    "not valid yet": lambda: token(claims(nbf=NOW + 31)),
    "nbf that is a text": lambda: token(claims(nbf="0")),
    "no subject": lambda: token(claims(sub=None)),
    "an empty subject": lambda: token(claims(sub="")),
    "a subject that is a number": lambda: token(claims(sub=7)),
    "a subject without end": lambda: token(claims(sub="x" * 301)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("vector", BAD)
async def test_a_bad_token_proves_nothing(vector: str) -> None:
    """Whatever it says of where its key is, nothing is fetched for it."""
    issuer = Issuer()
    judge = verifier(issuer=issuer)
    await judge.principal(token())
    bad = BAD[vector]()

    with pytest.raises(BadCredential) as refused:
        await judge.principal(bad)

    assert issuer.reads == 1
    assert not bad or bad not in str(refused.value)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "vector", [name for name in BAD if name.startswith(("alg", "HS256")) and "missing" not in name]
)
async def test_an_algorithm_that_is_not_allowed_does_not_get_as_far_as_a_key(vector: str) -> None:
    issuer = Issuer()
    with pytest.raises(BadCredential):
        await verifier(issuer=issuer).principal(BAD[vector]())
    assert issuer.reads == 0


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "nonsense"])
def test_the_library_is_given_the_allowed_algorithms_alone(algorithm: str) -> None:
    with pytest.raises(UnsupportedAlgorithmError):
        _Algorithms(frozenset({"RS256"})).get_alg(algorithm)


@pytest.mark.asyncio
async def test_a_token_is_judged_in_little_time() -> None:
    """The event loop waits for it. The figure is generous: a machine may be busy."""
    judge, good = verifier(), token()
    await judge.principal(good)
    started = time.perf_counter()
    for _ in range(20):
        await judge.principal(good)
    assert (time.perf_counter() - started) / 20 < 0.02


MAPPED = replace(
    SETTINGS,
    jwt_principal_claim="client.id",
    jwt_tenant_claim="https://example.com/tenant",
    jwt_roles_claim="realm.roles",
    jwt_operator_role="admin",
    jwt_skills_claim="skills",
)


@pytest.mark.asyncio
async def test_claims_say_who_it_is_by_configuration() -> None:
    content = claims(sub=None) | {
        "client": {"id": "c1"},
        "https://example.com/tenant": "t",
        "realm": {"roles": ["user", "admin"]},
        "skills": "echo  hold",
    }

    principal = await verifier(MAPPED).principal(token(content))

    assert (principal.id, principal.tenant, principal.is_operator) == ("c1", "t", True)
    assert principal.skills == {"echo", "hold"}
    assert principal.owner == owner_of("t", "c1")


@pytest.mark.asyncio
async def test_a_claim_that_is_missing_gives_nothing() -> None:
    content = claims() | {"client": {"id": "c1"}, "https://example.com/tenant": "t", "realm": {"roles": {"admin": 1}}}

    principal = await verifier(MAPPED).principal(token(content))

    assert (principal.is_operator, principal.skills) == (False, frozenset())
    for name in ("client", "https://example.com/tenant"):
        with pytest.raises(BadCredential):
            await verifier(MAPPED).principal(token({k: v for k, v in content.items() if k != name}))


@pytest.mark.asyncio
@pytest.mark.parametrize("roles", ["a2a:operator", "x a2a:operator", ["a2a:operator"]])
async def test_the_scope_makes_an_operator(roles: Any) -> None:
    assert (await verifier().principal(token(claims(scope=roles)))).is_operator
    assert not (await verifier().principal(token(claims(scope="a2a:operators")))).is_operator


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADER = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "cty", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "b64", "zip", "enc"]),
    JSON,
)
CLAIMS = st.dictionaries(st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "jti"]), JSON)


@settings(max_examples=300)
@given(header=HEADER, changes=CLAIMS)
def test_whatever_an_issuer_signs_is_a_principal_or_proves_nothing(header: Any, changes: Any) -> None:
    """No field of any type makes it an error of ours."""

    async def judge() -> None:
        try:
            principal = await verifier().principal(signed(header, json.dumps(claims() | changes).encode()))
        except BadCredential:
            return
        assert principal.owner == owner_of("", principal.id)

    asyncio.run(judge())


@settings(max_examples=300)
@given(text=st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){2}", fullmatch=True))
def test_garbage_proves_nothing(text: str) -> None:
    async def judge() -> None:
        with pytest.raises(BadCredential):
            await verifier().principal(text)

    asyncio.run(judge())


WHY: dict[str, tuple[Callable[[], str], str]] = {
    "an unknown kid": (lambda: token(kid="other"), "the issuer has no such key"),
    "a forged signature": (lambda: token(key=STRANGER), "its signature is not valid (bad_signature)"),
    "no JSON": (lambda: token(b"hello"), "its content is not JSON"),
    "no content": (lambda: token(b""), "its content is not JSON"),
    "too long": (lambda: "a" * (LONGEST_TOKEN + 1), "it is longer than 16384 characters"),
    "as long as is allowed": (lambda: "a" * LONGEST_TOKEN, "it does not look like a token"),
    "five parts": (lambda: "a.b.c.d.e", "it does not look like a token"),
    "no header": (lambda: "..", "its header cannot be read"),
    "another algorithm": (lambda: token(alg="RS512"), "its algorithm is not allowed"),
    "crit": (lambda: signed({"crit": ["exp"]}, GOOD), "it requires an unknown extension (crit)"),
    "another type": (lambda: token(typ="secevent+jwt"), "its type (typ) is not that of a token"),
    "another issuer": (lambda: token(claims(iss="https://evil.example")), "its issuer (iss) is not accepted"),
    "another audience": (lambda: token(claims(aud="https://other.example")), "its audience (aud) is not this server"),
    "no end": (lambda: token(claims(exp=None)), "it has no expiry (exp)"),
    "at its end": (lambda: token(claims(exp=NOW - 30)), "it has expired"),
    "too early": (lambda: token(claims(nbf=NOW + 31)), "it is not valid yet"),
    "nobody": (lambda: token(claims(sub=None)), "it has no claim with the caller's identity"),
    "a name too long": (lambda: token(claims(sub="x" * 301)), "it has no claim with the caller's identity"),
    "a time that is none": (lambda: token(claims(exp=True)), "its time claims are not numbers"),
    "a time too late": (lambda: token(claims(exp=1e11 + 1)), "its time claims are not numbers"),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("case", WHY)
async def test_the_log_can_say_why_a_token_was_refused(case: str) -> None:
    """The caller is told nothing; the operator has only this."""
    make, reason = WHY[case]
    with pytest.raises(BadCredential) as refused:
        await verifier().principal(make())
    assert str(refused.value) == reason


@pytest.mark.asyncio
async def test_the_longest_name_and_the_latest_times_are_taken() -> None:
    given = claims(sub="x" * 300, exp=1e11, nbf=0)
    assert (await verifier().principal(token(given))).id == "x" * 300
