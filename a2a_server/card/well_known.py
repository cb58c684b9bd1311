"""The addresses under `/.well-known/`: public documents that are ready, and what a cache asks about them."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from a2a_server.card.published import (
    CARD_PATH,
    CATALOG_PATH,
    KEYS_PATH,
    VERSION_HEADER,
    Document,
    Published,
    precondition,
)

_LISTS = ("if-match", "if-none-match")  # which may come on several lines (RFC 9110 §5.3)
CARD_PATHS = (CARD_PATH, "/.well-known/agent.json", "/.well-known/agent-card")


class WellKnown:
    """Serves what is published at the time."""

    def __init__(self, published: Published) -> None:
        self.published = published

    def routes(self) -> list[Route]:
        """GET and HEAD for each document."""
        return [
            *(Route(path, self.card, methods=["GET"]) for path in CARD_PATHS),
            Route(KEYS_PATH, self.keys, methods=["GET"]),
            Route(CATALOG_PATH, self.catalog, methods=["GET"]),
        ]

    async def card(self, request: Request) -> Response:
        """The agent card (A2A §8.2) in the form for the client's version, by header or query (§3.6.1)."""
        version = request.headers.get(VERSION_HEADER) or request.query_params.get(VERSION_HEADER)
        return _answer(request, self.published.card_for(version))

    async def keys(self, request: Request) -> Response:
        """The public keys of the card's signatures."""
        if self.published.keys is None:
            return Response(status_code=404)
        return _answer(request, self.published.keys)

    async def catalog(self, request: Request) -> Response:
        """The catalog of the one agent here."""
        return _answer(request, self.published.catalog)


def _answer(request: Request, document: Document) -> Response:
    lists = {name: ", ".join(request.headers.getlist(name)) for name in _LISTS if name in request.headers}
    status = precondition(document, {**request.headers, **lists})
    if status != 200:
        return Response(status_code=status, headers=document.headers if status == 304 else None)
    return Response(document.body, media_type=document.media_type, headers=document.headers)
