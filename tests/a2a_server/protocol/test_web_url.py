"""Tests of a2a_server.protocol.web_url: the one judge of URLs that others give."""

import pytest

from a2a_server.protocol.web_url import web_url

NOT_A_URL = "is not a URL"
NOT_ABSOLUTE = "must be an absolute http or https URL"
HAS_USER = "must not contain a user or password"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://example.com", "example.com", None),
        ("http://example.com:8080/a?b=c#d", "example.com", 8080),
        ("HTTPS://EXAMPLE.COM/", "example.com", None),
        ("http://[::1]:65535/", "::1", 65_535),
        ("http://127.0.0.1", "127.0.0.1", None),
        ("https://example.com/@name", "example.com", None),
    ],
)
def test_a_web_url_is_split(text: str, host: str, port: int | None) -> None:
    url = web_url(text)
    assert (url.hostname, url.port) == (host, port)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://example.com:65536", NOT_A_URL),
        ("http://example.com:port", NOT_A_URL),
        ("http://[::1", NOT_A_URL),
        ("", NOT_ABSOLUTE),
        ("example.com", NOT_ABSOLUTE),
        ("//example.com/a", NOT_ABSOLUTE),
        ("/path", NOT_ABSOLUTE),
        ("localhost:8000", NOT_ABSOLUTE),
        ("ftp://example.com", NOT_ABSOLUTE),
        ("javascript:alert(1)", NOT_ABSOLUTE),
        ("http://", NOT_ABSOLUTE),
        ("https://:443/", NOT_ABSOLUTE),
        ("https://@/", NOT_ABSOLUTE),
        ("https://user@example.com", HAS_USER),
        ("https://user:secret@example.com", HAS_USER),
        ("https://:secret@example.com", HAS_USER),
        ("https://@example.com", HAS_USER),
    ],
)
def test_what_is_none_is_refused_without_being_quoted(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        web_url(text)
    assert str(refused.value) == reason


def test_a_client_may_log_in_by_its_url() -> None:
    assert web_url("https://user:secret@example.com", may_have_user=True).username == "user"
