"""The input schemas that tasks bring along: small ones are judged on the spot, the others in another process."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from core.executors.judges import Judges, Undecided
from core.executors.schema import QUICK_PARTS, is_quickly_checked, judge_schema
from core.model.errors import Problem
from core.model.plan import Plan, Unjudged
from core.model.task import Task

MAX_BYTES: Final = 64 * 1024  # of one schema
MAX_PARTS: Final = 10_000  # of all different schemas of one request
MOST_AT_ONCE: Final = 2 * QUICK_PARTS  # parts of different schemas that one request may have judged on the spot


class BroughtSchemas:
    """The schemas of one request. `judge` says what is wrong with one of them, and notes which it leaves for later."""

    def __init__(self) -> None:
        self._known: dict[bytes, str | None] = {}
        self.later: set[bytes] = set()  # JSON of those that are still to be judged
        self._parts = 0
        self._judged = 0

    def judge(self, schema: Mapping[str, Any]) -> str | None:
        """What is wrong with the schema; None when nothing is, or when that is to be found out later."""
        try:
            data = msgspec.json.encode(schema)
        except (TypeError, ValueError, RecursionError) as error:
            return f"is not a usable JSON Schema: {error}"
        if data not in self._known:
            self._known[data] = self._first_judgement(schema, data)
        return self._known[data]

    def _first_judgement(self, schema: Mapping[str, Any], data: bytes) -> str | None:
        if len(data) > MAX_BYTES:
            return f"has more than {MAX_BYTES} bytes"
        parts = _parts(schema)
        self._parts += parts
        if self._parts > MAX_PARTS:
            return f"is one too many: the different schemas of one request may have {MAX_PARTS} parts"
        if self._judged + parts <= MOST_AT_ONCE and is_quickly_checked(schema):
            self._judged += parts
            return judge_schema(schema)
        self.later.add(data)
        return None

    def noted(self, plan: Plan) -> Plan:
        """The plan with the schemas that are still to be judged."""
        found = [each for task in plan.tasks for each in self.left(task, f"tasks[{task.position}].")]
        return msgspec.structs.replace(plan, unjudged=tuple(found))

    def left(self, task: Task, prefix: str = "") -> list[Unjudged]:
        """The task's own schema, if that is still to be judged. `prefix`: of its field's path."""
        schema = (task.schemas or {}).get("input_schema") if self.later else None
        if not isinstance(schema, dict) or msgspec.json.encode(schema) not in self.later:
            return []
        return [Unjudged(f"{prefix}schemas.input_schema", schema)]


async def judge_rest(left: Sequence[Unjudged], owner: str, judges: Judges) -> list[Problem]:
    """What is wrong with those schemas. Raises NoRoom when too many of the owner's wait to be judged already."""
    if not left:
        return []
    different = {msgspec.json.encode(each.schema): each.schema for each in left}
    try:
        found = dict(zip(different, await judges.unusable(owner, list(different.values())), strict=True))
    except Undecided as error:
        return [Problem(left[0].field, f"cannot be validated: {error}")]
    told = ((each.field, found[msgspec.json.encode(each.schema)]) for each in left)
    return [Problem(field, text) for field, text in told if text]


def _parts(schema: Any) -> int:
    """How many objects, arrays, names and constants a schema has."""
    pending = [schema]
    for each in pending:
        if isinstance(each, dict | list):
            pending.extend(each.values() if isinstance(each, dict) else each)
    return len(pending)
