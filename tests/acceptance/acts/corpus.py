"""The cases of a checkout, and whether they are ACTS (§2 to §4): what is not in the document is refused."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from tests.acceptance.acts.matching import MISSING, CaseError, at

MASTER = "suite.acts.yaml"
TEST_KEYS = frozenset(("id", "name", "description", "spec_ref", "level", "tags", "transport", "steps", "assertions"))
TEST_KEYS |= {"preconditions", "requires_behaviors", "origin", "runner_requirements"}
COMMON = frozenset(("id", "description", "assertions"))
EXPECTS = frozenset(("expect", "expect_error", "expect_stream", "capture"))
STEP_KEYS: Mapping[str, frozenset[str]] = {  # by the key that says what the step does
    "operation": COMMON | EXPECTS | {"operation", "params", "repeat"},
    "raw": COMMON | EXPECTS | {"raw"},
    "client_response": COMMON | {"client_response", "expect_parsed"},
    "assertion": COMMON | {"assertion"},
}
_VARIABLE = re.compile(r"\{\{([^{}]+)\}\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test of the corpus. `variables`: those of its document."""

    id: str
    level: str
    transports: tuple[str, ...]  # none: every one
    tags: tuple[str, ...]
    capabilities: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    assertions: tuple[Mapping[str, Any], ...]
    variables: Mapping[str, str]


def load(folder: Path) -> list[Case]:
    """Every case that the master document includes. Raises CaseError for one that is not ACTS."""
    master = _document(folder / MASTER)
    shared = master.get("variables", {})
    cases = []
    for name in master["include"]:
        document = _document(folder / name)
        variables = shared | document.get("variables", {})
        for suite in document["suites"]:
            inherited = tuple(suite.get("tags", ()))
            cases += [_case(test, inherited, variables) for test in suite["tests"]]
    if len({case.id for case in cases}) < len(cases):
        raise CaseError("two tests have the same id")
    return cases


def kind_of(step: Mapping[str, Any]) -> str:
    """What the step does: the key that says it. Raises CaseError."""
    kinds = [kind for kind in STEP_KEYS if kind in step]
    if len(kinds) != 1:
        raise CaseError(f"the step {step.get('id')!r} does {len(kinds)} things")
    if unknown := set(step) - STEP_KEYS[kinds[0]]:
        raise CaseError(f"the step {step['id']!r} has {', '.join(sorted(unknown))}")
    return kinds[0]


def resolved(value: Any, variables: Mapping[str, Any]) -> Any:
    """The value with its `{{…}}` replaced (§8, §12.2). One that is all of a text may stand for any value."""
    if isinstance(value, dict):
        return {key: resolved(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [resolved(each, variables) for each in value]
    if not isinstance(value, str):
        return value
    if whole := _VARIABLE.fullmatch(value):
        return _variable(whole[1].strip(), variables)
    return _VARIABLE.sub(lambda found: str(_variable(found[1].strip(), variables)), value)


def captured(body: Any, paths: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """What a step keeps for later ones. Raises CaseError for what is not there."""
    for name, path in paths.items():
        found = at(body, path)
        if not found:
            raise CaseError(f"nothing to capture at {path!r}")
        yield name, found[0]


def _document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    if not str(document["acts_version"]).startswith("1."):
        raise CaseError(f"{path.name}: ACTS {document['acts_version']} is not known")
    return document


def _case(test: Mapping[str, Any], inherited: tuple[str, ...], variables: Mapping[str, str]) -> Case:
    if unknown := set(test) - TEST_KEYS:
        raise CaseError(f"the test {test.get('id')!r} has {', '.join(sorted(unknown))}")
    preconditions = test.get("preconditions", {})
    if unknown := set(preconditions) - {"capabilities", "description"}:
        raise CaseError(f"{test['id']}: no preconditions of {', '.join(sorted(unknown))} are known here")
    for step in test["steps"]:
        kind_of(step)
    return Case(
        id=test["id"],
        level=test["level"],
        transports=tuple(test.get("transport", ())),
        tags=inherited + tuple(test.get("tags", ())),
        capabilities=preconditions.get("capabilities", {}),
        steps=tuple(test["steps"]),
        assertions=tuple(test.get("assertions", ())),
        variables=variables,
    )


def _variable(name: str, variables: Mapping[str, Any]) -> Any:
    if name == "$uuid":
        return str(uuid4())
    if (value := variables.get(name, MISSING)) is MISSING:
        raise CaseError(f"nothing is known of {{{{{name}}}}}")
    return value
