"""http and https URLs, as others give them to this server. Pure."""

from urllib.parse import SplitResult, urlsplit


def web_url(text: str, *, may_have_user: bool = False) -> SplitResult:
    """The parts of an absolute http or https URL without a user or password.

    Raises ValueError whose text, behind the name of what holds the URL, says what is wrong.
    """
    try:
        url = urlsplit(text)
        url.port  # noqa: B018 - it is only looked at here
    except ValueError:
        raise ValueError("is not a URL") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("must be an absolute http or https URL")
    if "@" in url.netloc and not may_have_user:
        raise ValueError("must not contain a user or password")
    return url
