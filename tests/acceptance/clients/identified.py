"""A pytest plugin for a kit that knows no credentials: each of its calls with httpx carries that of `A2A_TOKEN`.

With it the kit may read the extended card, which this server keeps for callers who have said who they are.
"""

import os

import httpx

_init = httpx.Client.__init__


def _identified(self: httpx.Client, *args: object, **settings: object) -> None:
    _init(self, *args, **settings)  # type: ignore[arg-type]  # httpx's own parameters, passed on
    self.headers.setdefault("X-API-Key", os.environ["A2A_TOKEN"])


httpx.Client.__init__ = _identified  # type: ignore[method-assign]  # no hook of httpx reaches clients that others make
