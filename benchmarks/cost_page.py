"""The accepted counts of function calls and commits, and their part of docs/performance.md."""

import json
import re
from pathlib import Path
from typing import NamedTuple

FIGURES = Path(__file__).parent / "cost.json"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- cost: made by scripts/cost -->", "<!-- /cost -->"

HEAD = """## What each kind of work costs, counted

Function calls in all threads of the server, and commits, for one unit of work from a single caller: the same on a busy
machine as on an idle one. `scripts/cost` counts them and CI compares them with this table, so a change that needs more
has to change the table. "Own" calls are those of functions in `core` and `a2a_server`, and those that they make; "all"
adds the calls within libraries. Python {python}, with the locked versions of all libraries.

| work | own calls | all calls | commits |
|---|---|---|---|
"""


class Cost(NamedTuple):
    """Of one unit of work."""

    own: float  # calls of functions of core and a2a_server, and from them
    calls: int  # all, those within libraries too
    commits: float


def held() -> tuple[str, dict[str, Cost]]:
    """The accepted figures, and the version of Python with which they were counted."""
    told = json.loads(FIGURES.read_text("utf-8"))
    return told["python"], {name: Cost(**cost) for name, cost in told["costs"].items()}


def keep(python: str, costs: dict[str, Cost]) -> None:
    """Accept these figures, here and on the page."""
    told = {"python": python, "costs": {name: cost._asdict() for name, cost in costs.items()}}
    FIGURES.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    PAGE.write_text(with_costs(PAGE.read_text("utf-8")), "utf-8")


def with_costs(page: str) -> str:
    """The page with the accepted figures in place of those that it shows."""
    python, costs = held()
    rows = "".join(
        f"| {name} | {cost.own:,.0f} | {cost.calls:,} | {cost.commits:g} |\n" for name, cost in costs.items()
    )
    rest = re.sub(rf"\n*{re.escape(BEGIN)}.*{re.escape(END)}\n*", "\n", page, flags=re.DOTALL)
    return f"{rest.rstrip()}\n\n{BEGIN}\n{HEAD.format(python=python)}{rows}{END}\n"
