"""What functions may take, and how a task's inputs become their arguments. One table of signatures."""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pytest

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.function import Declared, executor, make_spec
from core.executors.registry import ExecutorRegistry
from core.executors.schema import violation
from core.executors.signature import InputsRefused, signature_of, unwrapped
from core.model.errors import ConfigurationError
from tests.core.executors.context import make_context

if TYPE_CHECKING:
    from somewhere import Missing

pydantic = pytest.importorskip("pydantic")


class Size(Enum):
    SMALL = "S"
    LARGE = "L"


@dataclass
class Line:
    item: str
    count: int = 1

    def __post_init__(self) -> None:
        if self.item == "nothing":
            raise ValueError("nothing is no item")


@dataclass
class Order:
    lines: list[Line]
    note: str | None = None


class Place(TypedDict):
    city: str
    zip: NotRequired[str]


class Point(msgspec.Struct):
    x: float
    y: Annotated[float, msgspec.Meta(ge=0)] = 0


class Pair(msgspec.Struct, array_like=True):
    a: int
    b: int


class Model(pydantic.BaseModel):
    name: str
    tags: list[str] = []


class Opaque:
    pass


CONTEXT = make_context()
ANY = {"a": 1, "b": "two"}


async def classical(inputs, context):
    return inputs, context


def short(i, c):
    return i, c


def odd_names(_, whatever):
    return _, whatever


def only_inputs(inputs: dict[str, Any]):
    return inputs


def nothing():
    return "nothing"


def any_number(*arguments):
    return arguments


def optional_context(inputs, context=None):
    return inputs, context


def own_default(inputs, b="own"):
    return b


def only_context(context):
    return context


def named_otherwise(b, told: TaskContext):
    return b, told


def by_name(a, b):
    return a, b


def reordered(b, context, a):
    return a, b, context


def with_default(b, z=26):
    return b, z


def keyword_only(a, *, b):
    return a, b


def positional_only(a, b, /):
    return a, b


def rest(a, **others):
    return a, others


def all_of_it(**inputs):
    return inputs


def typed(a: int, b: str):
    return a, b


def in_text(a: "int", b: "str", context: "Missing" = None):
    return a, b


class Called:
    def __call__(self, a: int, context: Any) -> Any:
        return a, context


class Methods:
    async def execute(self, a: int, b: str) -> Any:
        return a, b

    @classmethod
    def of_class(cls, a: int) -> Any:
        return cls.__name__, a


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapper


CALLS: list[tuple[Any, Any]] = [
    (classical, (ANY, CONTEXT)),
    (short, (ANY, CONTEXT)),
    (odd_names, (ANY, CONTEXT)),
    (only_inputs, ANY),
    (nothing, "nothing"),
    (any_number, (ANY, CONTEXT)),
    (optional_context, (ANY, CONTEXT)),
    (own_default, "own"),
    (only_context, CONTEXT),
    (named_otherwise, ("two", CONTEXT)),
    (by_name, (1, "two")),
    (reordered, (1, "two", CONTEXT)),
    (with_default, ("two", 26)),
    (keyword_only, (1, "two")),
    (positional_only, (1, "two")),
    (rest, (1, {"b": "two"})),
    (all_of_it, ANY),
    (typed, (1, "two")),
    (in_text, (1, "two")),
    (lambda inputs: inputs, ANY),
    (lambda a: a, 1),
    (Called(), (1, CONTEXT)),
    (Methods.of_class, ("Methods", 1)),
    (functools.partial(by_name, a="own"), ("own", "two")),
    (functools.partial(rest, b="own"), (1, {"b": "own"})),
    (functools.partial(by_name, "own"), ("own", "two")),
    (logged(typed), (1, "two")),
    (logged(logged(typed)), (1, "two")),
    (logged(Called()), (1, CONTEXT)),
    (logged(functools.partial(typed, b="own")), (1, "own")),
]


def spec_of(target: Any, **declared: Any) -> ExecutorSpec:
    return make_spec("f", target, Declared(**declared))


@pytest.mark.parametrize(("function", "expected"), CALLS, ids=range(len(CALLS)))
@pytest.mark.asyncio
async def test_functions_get_what_they_name(function: Any, expected: Any) -> None:
    """Found from outside: a parameter other than `inputs` got all inputs."""
    returned = signature_of(function, "f", is_method=False).call(function, dict(ANY), CONTEXT)
    assert (await returned if function is classical else returned) == expected


@pytest.mark.asyncio
async def test_methods_of_a_class_take_inputs_by_name() -> None:
    spec = spec_of(Methods)
    assert await spec.make().execute(dict(ANY), CONTEXT) == (1, "two")
    assert spec.input_schema is not None and spec.input_schema["required"] == ["a", "b"]


def order(order: Order, context: Any) -> Any:
    return order


def place(inputs: Place) -> Any:
    return inputs


def point(inputs: Point) -> Any:
    return inputs


def model(model: Model) -> Any:
    return model


def two_models(line: Line, at: Point | None = None) -> Any:
    return line, at


def many(lines: list[Line], size: Size = Size.SMALL) -> Any:
    return lines, size


def models(models: list[Model]) -> Any:
    return models


def when(at: datetime, kind: Literal["a", "b"] = "a") -> Any:
    return at, kind


def pair(pair: Pair) -> Any:
    return pair


def limited(n: Annotated[int, msgspec.Meta(ge=1)], m: float = None) -> Any:  # noqa: RUF013 - as users write it
    return n, m


class Level(IntEnum):
    LOW = 1


def numbers(many: list[int], named: dict[str, int], one: Literal[1, 2], level: Level = Level.LOW) -> Any:
    return many, named, one, level


def maybe(model: Model = None) -> Any:
    return model


CONVERTED: list[tuple[Any, dict[str, Any], Any]] = [
    (order, {"lines": [{"item": "pen", "count": 2}]}, Order([Line("pen", 2)])),
    (place, {"city": "Oslo"}, {"city": "Oslo"}),
    (point, {"x": 1.5}, Point(1.5)),
    (model, {"name": "n"}, Model(name="n")),
    (two_models, {"line": {"item": "pen"}}, (Line("pen"), None)),
    (two_models, {"line": {"item": "pen"}, "at": {"x": 1}}, (Line("pen"), Point(1.0))),
    (many, {"lines": [{"item": "a"}, {"item": "b"}], "size": "L"}, ([Line("a"), Line("b")], Size.LARGE)),
    (many, {"lines": []}, ([], Size.SMALL)),
    (models, {"models": [{"name": "n"}]}, [Model(name="n")]),
    (when, {"at": "2026-11-30T10:00:00Z"}, (datetime.fromisoformat("2026-11-30T10:00:00+00:00"), "a")),
    (pair, {"pair": [1, 2]}, Pair(1, 2)),
    (limited, {"n": 1}, (1, None)),
    (limited, {"n": 1, "m": None}, (1, None)),
    (maybe, {}, None),
    (maybe, {"model": None}, None),
    # JSON has one kind of number: a client that keeps data in protobuf's Struct writes 2 as 2.0.
    (typed, {"a": 2.0, "b": "x"}, (2, "x")),
    (typed, {"a": -0.0, "b": "x"}, (0, "x")),
    (typed, {"a": 1e300, "b": "x"}, (int(1e300), "x")),
    (order, {"lines": [{"item": "pen", "count": 2.0}]}, Order([Line("pen", 2)])),
    (numbers, {"many": [1.0, 2], "named": {"a": 3.0}, "one": 2.0}, ([1, 2], {"a": 3}, 2, Level.LOW)),
    (numbers, {"many": [], "named": {}, "one": 1, "level": 1.0}, ([], {}, 1, Level.LOW)),
    (point, {"x": 2.0}, Point(2.0)),
]


@pytest.mark.parametrize(("function", "inputs", "expected"), CONVERTED, ids=range(len(CONVERTED)))
def test_annotated_inputs_are_converted_and_fit_their_schema(function: Any, inputs: Any, expected: Any) -> None:
    schema = spec_of(function).input_schema
    if function is not maybe:
        assert schema is not None and schema["type"] == "object" and schema["properties"]
    assert schema is None or violation(schema, inputs, "inputs") is None
    assert signature_of(function, "f", is_method=False).call(function, inputs, CONTEXT) == expected


WRONG_INPUTS: list[tuple[Any, dict[str, Any], str]] = [
    (by_name, {"a": 1}, "inputs: 'b' is a required property"),
    (typed, {"a": "one", "b": "two"}, "inputs.a: expected `integer`, got `string`"),
    (order, {}, "inputs: object missing required field `lines`"),
    (order, {"lines": [{"item": "pen", "count": "2"}]}, "inputs.lines[0].count: expected `integer`, got `string`"),
    (order, {"lines": [{"item": "nothing"}]}, "inputs.lines[0]: nothing is no item"),
    (place, {"zip": "1"}, "inputs: object missing required field `city`"),
    (point, {"x": 1, "y": -1}, "inputs.y: expected `number` >= 0.0"),
    (two_models, {"line": {}}, "inputs.line: object missing required field `item`"),
    (many, {"lines": [], "size": "M"}, "inputs.size: invalid enum value 'M'"),
    (typed, {"a": 2.5, "b": "x"}, "inputs.a: expected `integer`, got `number`"),
    (typed, {"a": float("inf"), "b": "x"}, "inputs.a: expected `integer`, got `number`"),
    (typed, {"a": 2.0, "b": 2.0}, "inputs.b: expected `string`, got `integer`"),
    (typed, {"a": True, "b": "x"}, "inputs.a: expected `integer`, got `boolean`"),
    (order, {"lines": [{"item": "pen", "count": 0.5}]}, "inputs.lines[0].count: expected `integer`, got `number`"),
    (when, {"at": "yesterday"}, "inputs.at: invalid RFC3339 encoded datetime"),
    (model, {"name": 5}, "inputs.name: Input should be a valid string"),
    (models, {"models": [{"name": "n", "tags": [1]}]}, "inputs.models[0].tags[0]: Input should be a valid string"),
]


@pytest.mark.parametrize(("function", "inputs", "text"), WRONG_INPUTS, ids=range(len(WRONG_INPUTS)))
def test_wrong_inputs_name_the_field(function: Any, inputs: Any, text: str) -> None:
    with pytest.raises(InputsRefused) as refused:
        signature_of(function, "f", is_method=False).call(function, inputs, CONTEXT)
    assert str(refused.value) == text


def opaque(a: Opaque) -> None: ...
def unknown(a: "Missing") -> None: ...
def broken(a: "list[") -> None: ...  # noqa: F722
def not_an_object(inputs: int) -> None: ...
def beside(inputs: Any, text: str, context: Any) -> None: ...
def beside_by_name(inputs: Any, *, text: str) -> None: ...
def lone(context: Any, /) -> None: ...
def mixed(context: Any, a: int, /) -> None: ...
def pydantic_opaque(a: Annotated[list[Model | Opaque], 1]) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (opaque, "executor 'f': parameter 'a': no JSON value can become a Opaque"),
        (unknown, "executor 'f': the annotation of 'a' cannot be resolved: NameError: name 'Missing' is not defined"),
        (broken, "executor 'f': the annotation of 'a' cannot be resolved: SyntaxError"),
        (not_an_object, "executor 'f': 'inputs' gets all inputs, an object, and cannot be a int"),
        (beside, "executor 'f': it takes all inputs as 'inputs', so nothing is left for text; take (inputs, context)"),
        (beside_by_name, "executor 'f': it takes all inputs as 'inputs', so nothing is left for text"),
        (lone, "executor 'f': a positional-only parameter must be the inputs"),
        (mixed, "executor 'f': 'context' cannot be positional-only beside other parameters"),
        (pydantic_opaque, "executor 'f': parameter 'a': pydantic refuses its type"),
        (type("NoSignature", (), {"__call__": staticmethod(dict.fromkeys)})(), "executor 'f'"),
    ],
)
def test_what_cannot_be_filled_is_one_line_when_it_is_registered(function: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        spec_of(function)
    assert str(refused.value).startswith(text) and "\n" not in str(refused.value)


def test_a_given_schema_stands_and_the_inputs_are_converted_all_the_same() -> None:
    given = {"type": "object", "required": ["a"]}
    assert spec_of(typed, input_schema=given).input_schema == given


def test_only_annotations_and_names_make_a_schema() -> None:
    for function in (classical, short, only_inputs, nothing, only_context, all_of_it):
        assert spec_of(function).input_schema is None
    assert spec_of(by_name).input_schema == {
        "type": "object",
        "properties": {"a": {}, "b": {}},
        "required": ["a", "b"],
    }


def test_pydantic_is_never_imported_for_what_does_not_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pydantic")
    assert spec_of(order).input_schema is not None
    assert "pydantic" not in sys.modules


# The decorator


@pytest.mark.parametrize("form", ["bare", "called", "by id"])
def test_the_decorator_works_without_parentheses(form: str) -> None:
    """Found from outside: `@executor` alone registered nothing, without a word."""
    registry = ExecutorRegistry()

    async def greet(name: str) -> str:
        return f"hello {name}"

    made = {
        "bare": lambda: executor(greet, registry=registry),
        "called": lambda: executor(registry=registry)(greet),
        "by id": lambda: executor("greet", registry=registry)(greet),
    }[form]()
    assert made is greet and registry.ids() == ["greet"]


def test_what_has_no_name_needs_an_id() -> None:
    with pytest.raises(ConfigurationError, match="non-empty string"):
        executor(functools.partial(by_name, a=1))


async def inner(a: int) -> int:
    return a + 1


class AsyncCalled:
    async def __call__(self, a: int) -> int:
        return a + 1


def unmarked(a: int) -> Any:
    """A wrapper that nothing tells apart from a plain function."""
    return inner(a)


async def speaks(inputs: Any, context: TaskContext) -> Any:
    await context.progress(0.5)
    return inputs["a"] + 1


WRAPPED: list[Any] = [
    inner,
    logged(inner),
    logged(logged(inner)),
    functools.partial(inner),
    functools.partial(logged(inner)),
    AsyncCalled(),
    logged(AsyncCalled()),
    unmarked,
    lambda a: inner(a),
    logged(speaks),
    lambda inputs, context: speaks(inputs, context),
]


@pytest.mark.parametrize("target", WRAPPED, ids=range(len(WRAPPED)))
@pytest.mark.asyncio
async def test_wrappers_over_a_coroutine_function_are_awaited(target: Any) -> None:
    """Found from outside: a decorated `async def` gave its coroutine as the result.

    So is what it says through its context, wherever it runs.
    """
    assert await spec_of(target).make().execute({"a": 1}, make_context()) == 2


@pytest.mark.asyncio
async def test_a_wrapper_of_a_coroutine_function_may_answer_itself() -> None:
    @functools.wraps(inner)
    def cached(a: int) -> int:
        return 7

    assert await spec_of(cached).make().execute({"a": 1}, make_context()) == 7


def test_only_what_a_wrapper_shows_runs_as_a_coroutine() -> None:
    for target in WRAPPED:
        is_hidden = target is unmarked or getattr(target, "__name__", "") == "<lambda>"
        assert spec_of(target).uses_thread is is_hidden


def test_a_wrapper_that_leads_back_to_itself_ends() -> None:
    def circular() -> None: ...

    circular.__wrapped__ = circular
    assert unwrapped(circular) is circular


def test_default_factories_are_no_part_of_the_table() -> None:
    """Dataclasses with factories convert as others do."""

    @dataclass
    class Bag:
        items: list[str] = field(default_factory=list)

    def bag(bag: Bag) -> Any:
        return bag

    assert signature_of(bag, "f", is_method=False).call(bag, {}, CONTEXT) == Bag()
