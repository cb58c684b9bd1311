"""What the card says of credentials."""

import msgspec
import pytest
from msgspec.structs import replace

from a2a_server.auth.schemes import security_requirements, security_schemes
from a2a_server.auth.settings import AuthSettings
from a2a_server.protocol.codec import encode
from tests.a2a_server.auth.tokens import SETTINGS

KEY = {"apiKeySecurityScheme": {"location": "header", "name": "X-API-Key"}}
OPEN_ID = {
    "openIdConnectSecurityScheme": {"openIdConnectUrl": "https://issuer.example/realm/.well-known/openid-configuration"}
}
BEARER = {"httpAuthSecurityScheme": {"scheme": "Bearer"}}
TOKEN = {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "JWT"}}


@pytest.mark.parametrize(
    ("settings", "schemes"),
    [
        (AuthSettings(), {}),
        (AuthSettings(auth=("keys",)), {"apiKey": KEY, "bearer": BEARER}),
        (SETTINGS, {"openIdConnect": OPEN_ID, "bearer": TOKEN}),
        (replace(SETTINGS, jwt_keys="jwks.json"), {"bearer": TOKEN}),
        (replace(SETTINGS, auth=("keys", "jwt")), {"apiKey": KEY, "openIdConnect": OPEN_ID, "bearer": BEARER}),
    ],
)
def test_each_credential_that_is_taken_is_one_scheme(settings: AuthSettings, schemes: object) -> None:
    assert msgspec.json.decode(encode(security_schemes(settings))) == schemes


def test_any_one_of_the_schemes_will_do() -> None:
    assert security_requirements(AuthSettings()) == []
    told = [list(each.schemes) for each in security_requirements(AuthSettings(auth=("keys",)))]
    assert told == [["apiKey"], ["bearer"]]
