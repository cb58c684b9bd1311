"""The floor of a JSON-RPC answer in Python: a bare Starlette route, jsonrpcserver's dispatcher, and a method that gives
its params back. Nothing is checked and nothing is stored.
"""

import argparse
from typing import Any

import uvicorn
from jsonrpcserver import Result, Success, async_dispatch
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def echo(**params: Any) -> Result:
    return Success(params)


METHODS = {"GetTask": echo, "SendMessage": echo}


async def answer(request: Request) -> Response:
    body = await async_dispatch(await request.body(), methods=METHODS)
    return Response(body, media_type="application/json")


app = Starlette(routes=[Route("/", answer, methods=["POST"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
