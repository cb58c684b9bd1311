"""How an A2A message becomes work (semantics §8, rules 1 to 3): the array of tasks that it stands for. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from msgspec import UNSET, Struct
from msgspec.structs import replace

from a2a_server.auth.principal import Principal
from a2a_server.protocol.errors import ContentTypeNotSupported, InvalidParams
from a2a_server.protocol.types import Message, SendMessageRequest
from a2a_server.views.translate import part_values
from core.executors.base import ExecutorSpec
from core.executors.registry import ExecutorRegistry
from core.model.content import Said
from core.model.content_json import part_of
from core.model.errors import InvalidPlan, Problem
from core.model.plan import Plan

TREE_MODES = ("application/json", "text/plain")  # what a message that brings a tree may hold beside it


class Intake(Struct, frozen=True, kw_only=True):
    """A message that begins a task, as it was read: the tasks that it asks for, and what its executors see of it."""

    items: Any  # as a caller of `tasks.create` would write them
    path: str = ""  # of the tasks in the request, where the caller wrote them
    skill: str | None = None
    metadata: Mapping[str, Any] = {}  # of the request
    output_modes: Sequence[str] = ()  # media types that the caller takes; none: any

    def planned(self, make: Callable[[Any], Plan]) -> Plan:
        """The plan that `make` makes of the items. Raises InvalidPlan in the request's own paths."""
        if not self.path:
            return make(self.items)
        try:
            plan = make(self.items)
        except InvalidPlan as error:
            raise InvalidPlan([Problem(f"{self.path}.{p.field}", p.message) for p in error.problems]) from None
        unjudged = tuple(replace(each, field=f"{self.path}.{each.field}") for each in plan.unjudged)
        return replace(plan, unjudged=unjudged) if unjudged else plan

    def check_output(self, plan: Plan, registry: ExecutorRegistry) -> None:
        """Raise ContentTypeNotSupported when the caller takes nothing of what the plan's executors give."""
        accepted = self.output_modes
        if not accepted:
            return
        used = sorted({task.executor for task in plan.tasks if task.executor is not None})
        modes = dict.fromkeys(mode for executor in used for mode in registry_spec(registry, executor).output_modes)
        if modes and not any(accepts(accepted, mode) or accepts([mode], *accepted) for mode in modes):
            raise ContentTypeNotSupported(
                "None of acceptedOutputModes is available", metadata={"offered": ", ".join(modes)}
            )

    def request(
        self, message: Mapping[str, Any], references: Sequence[str] = (), extensions: Sequence[str] = ()
    ) -> dict[str, Any]:
        """What executors see of the request as `context.request`. The tree itself is left out: they are in it.

        `message` is the JSON of the message as it is stored. `extensions`: those that the request activated.
        `references` are the message's `referenceTaskIds` without those that the caller cannot see.
        """
        parts = [each for each in message["parts"] if not _is_tree(each.get("data"))]
        seen = {**message, "parts": parts}
        if "referenceTaskIds" in seen:
            seen["referenceTaskIds"] = list(references)
        request: dict[str, Any] = {"message": seen, "metadata": dict(self.metadata)}
        if self.output_modes:
            request["acceptedOutputModes"] = list(self.output_modes)
        if extensions:
            request["extensions"] = list(extensions)
        return request


def read(params: SendMessageRequest, registry: ExecutorRegistry, default_skill: str | None) -> Intake:
    """Read a message that begins a task.

    Raises InvalidParams, with the skills there are, when it does not say what is to be done, and
    ContentTypeNotSupported for a part that it cannot be done with.
    """
    message, metadata = params.message, params.metadata
    output_modes = params.configuration.accepted_output_modes
    trees = [(index, part.data["tasks"]) for index, part in enumerate(message.parts) if _is_tree(part.data)]
    if len(trees) > 1:
        raise InvalidParams.of(
            [Problem(f"message.parts[{trees[1][0]}].data.tasks", "a message can have only one tree of tasks")]
        )
    if trees:
        index, items = trees[0]
        check_input_modes(message, tree_modes(registry))
        path = f"message.parts[{index}].data"
        return Intake(items=items, path=path, metadata=metadata, output_modes=output_modes)
    skill = _named_skill(message, metadata) or default_skill
    known = [spec.id for spec in skills(registry)]
    if skill is None or skill not in known:
        told = "name a skill" if skill is None else f"unknown skill {skill!r}"
        text = f"{told}; the skills are: {', '.join(known) or 'none'}"
        raise InvalidParams.of([Problem("message.metadata.skillId", text)])
    check_input_modes(message, registry_spec(registry, skill).input_modes)
    items = [{"name": skill, "inputs": _inputs(message)}]
    return Intake(items=items, skill=skill, metadata=metadata, output_modes=output_modes)


def _is_tree(data: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a part's data is a tree of tasks."""
    return isinstance(data, dict) and "tasks" in data


def said_of(message: Mapping[str, Any]) -> Said:
    """A caller's message, given as a JSON value, as the log keeps it."""
    return Said(
        tuple(map(part_of, message["parts"])),
        message.get("metadata"),
        tuple(message.get("extensions", ())),
        message["messageId"],
        message.get("contextId"),
        message.get("taskId"),
        tuple(message.get("referenceTaskIds", ())),
    )


def skills(registry: ExecutorRegistry) -> list[ExecutorSpec]:
    """The executors that A2A callers may name."""
    return [spec for spec in registry if spec.is_skill]


def usable(registry: ExecutorRegistry, principal: Principal) -> ExecutorRegistry:
    """The executors that this caller may use, as a skill and in a tree of its own; it sees no others."""
    if principal.is_operator:
        return registry
    may = principal.skills
    return registry.only({spec.id for spec in skills(registry) if may is None or spec.id in may})


def registry_spec(registry: ExecutorRegistry, executor: str) -> ExecutorSpec:
    """The spec of an executor that is known to be registered."""
    spec = registry.get(executor)
    assert spec is not None, executor
    return spec


def accepts(modes: Iterable[str], *media_types: str) -> bool:
    """Whether one of the media types is covered by the modes, which may have wildcards (`text/*`)."""
    return any(_covers(mode, media_type) for mode in modes for media_type in media_types)


def _covers(mode: str, media_type: str) -> bool:
    mode, media_type = (value.partition(";")[0].strip().lower() for value in (mode, media_type))
    if mode in ("*/*", "*", media_type):
        return True
    return mode.endswith("/*") and media_type.startswith(mode[:-1])


def tree_modes(registry: ExecutorRegistry) -> tuple[str, ...]:
    """What a message to a whole tree may hold: what any skill takes."""
    return TREE_MODES + tuple(mode for spec in skills(registry) for mode in spec.input_modes)


def check_input_modes(message: Message, modes: Sequence[str]) -> None:
    """Raise ContentTypeNotSupported for a part in none of these media types; one that names none is taken."""
    for index, part in enumerate(message.parts):
        if part.media_type and not accepts(modes, part.media_type):
            raise ContentTypeNotSupported(
                f"message.parts[{index}] has a media type that is not accepted",
                metadata={"mediaType": part.media_type[:100], "accepted": ", ".join(dict.fromkeys(modes))},
            )


def _named_skill(message: Message, metadata: Mapping[str, Any]) -> str | None:
    for path, source in (("message.metadata", message.metadata), ("metadata", metadata)):
        for key in ("skillId", "skill_id"):
            if (named := source.get(key)) is None:
                continue
            if not isinstance(named, str) or not named:
                raise InvalidParams.of([Problem(f"{path}.{key}", "must be the id of a skill")])
            return named
    return None


def _inputs(message: Message) -> dict[str, Any]:
    """Data parts merged in their order, texts as `text`; data that is no object as `data`, files as `files`."""
    inputs: dict[str, Any] = {}
    data: list[Any] = []
    for part in message.parts:
        if isinstance(part.data, dict):
            inputs.update(part.data)
        elif part.data is not UNSET:
            data.append(part.data)
    texts = [part.text for part in message.parts if part.text is not None]
    files = [part for part in part_values(message) if "raw" in part or "url" in part]
    given = {"text": "\n".join(texts), "data": data[0] if len(data) == 1 else data, "files": files}
    present = {"text": bool(texts), "data": bool(data), "files": bool(files)}
    return inputs | {key: value for key, value in given.items() if present[key]}
