"""What the process says when it takes work."""

import pytest

from a2a_server.server import say_ready


@pytest.mark.parametrize(
    ("url", "address", "said"),
    [
        ("http://127.0.0.1:8000/", "127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("http://[::1]:8000/agents/", "[::1]:8000", "http://[::1]:8000/agents/"),
        ("https://a.example/", "127.0.0.1:8000", "127.0.0.1:8000, URL https://a.example/"),
        ("https://127.0.0.1:8000.example/", "127.0.0.1:8000", "127.0.0.1:8000, URL https://127.0.0.1:8000.example/"),
        ("http://localhost:8000/", "0.0.0.0:8000", "0.0.0.0:8000, URL http://localhost:8000/"),
    ],
)
def test_start_line_shows_where_it_listens_beside_another_url(
    url: str, address: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by an operator: behind a proxy the line showed only `public_url`, as if the server listened there."""
    say_ready(url, address)
    assert capsys.readouterr().err == f"a2a-server listening on {said} (Ctrl-C stops it)\n"
