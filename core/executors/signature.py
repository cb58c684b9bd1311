"""What a function takes, and how a task's inputs become its arguments.

A function takes `(inputs, context)`, either or neither, or parameters by name: `def greet(name: str, times: int = 1,
context=None)`. What has an annotation is converted, and the annotations make the input schema. A single parameter
whose type has fields of its own (a dataclass, a TypedDict, a msgspec.Struct, a pydantic model) stands for all inputs.
"""

import functools
import inspect
import json
import operator
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, is_dataclass
from types import SimpleNamespace
from typing import Any

import msgspec

from core.model.errors import CallerError, ConfigurationError
from core.model.problems import problem_of

WHOLE = frozenset({"inputs", "_inputs", "input", "i", "_i", "_"})  # a first parameter so named gets all inputs
CONTEXT = frozenset({"context", "_context", "ctx", "_ctx"})
CONTEXT_TYPES = frozenset({"TaskContext", "ThreadContext", "ProcessContext"})
RAW = (Any, object, dict, Mapping, MutableMapping, inspect.Parameter.empty)  # handed over as they are
REF = "#/$defs/{name}"
MOST_NAMED = 10  # fields in one text
# What annotations raise that cannot be resolved, or have no schema: they are foreign code.
WRONG = (AttributeError, LookupError, NameError, RuntimeError, SyntaxError, TypeError, ValueError)

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_REQUIRED = inspect.Parameter.empty


class InputsRefused(CallerError):
    """The inputs do not fit the executor's parameters. The text names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One parameter that is filled from the inputs."""

    name: str
    convert: Callable[[Any, str], Any] | None  # (value, path) -> the argument; raises InputsRefused
    schema: Mapping[str, Any]
    is_required: bool
    is_positional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How the function is called.

    With an `arity` it gets so many of (inputs, context), and `whole` makes its first argument of the inputs. Else the
    `fields` are filled, `context_name` gets the context, and `takes_rest` says whether the other inputs go along.
    """

    arity: int | None
    whole: Field | None = None
    fields: tuple[Field, ...] = ()
    context_name: str | None = None
    takes_rest: bool = False
    bound: frozenset[str] = frozenset()  # what a partial has filled, and inputs may not

    @property
    def input_schema(self) -> Mapping[str, Any] | None:
        """What the annotations say of the inputs; None where they say nothing."""
        if self.whole is not None:
            return self.whole.schema
        if not self.fields:
            return None
        definitions: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        for field in self.fields:
            schema = dict(field.schema)
            definitions |= schema.pop("$defs", {})
            properties[field.name] = schema
        made: dict[str, Any] = {"type": "object", "properties": properties}
        if required := [field.name for field in self.fields if field.is_required]:
            made["required"] = required
        return made | ({"$defs": definitions} if definitions else {})

    def call(self, function: Callable[..., Any], inputs: dict[str, Any], context: Any) -> Any:
        """Call the function. Raises InputsRefused, which names the field, and whatever the function raises."""
        positional, named = self.arguments(inputs, context)
        return function(*positional, **named)

    def arguments(self, inputs: dict[str, Any], context: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        """Those by position and those by name. Raises InputsRefused."""
        if self.arity is not None:
            first = inputs if self.whole is None or self.whole.convert is None else self.whole.convert(inputs, "inputs")
            return (first, context)[: self.arity], {}
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for field in self.fields:
            if field.name not in inputs:
                if field.is_required:
                    raise InputsRefused(f"inputs: {field.name!r} is a required property")
                continue
            value = inputs[field.name]
            value = field.convert(value, f"inputs.{field.name}") if field.convert else value
            if field.is_positional and len(positional) == self.fields.index(field):
                positional.append(value)
            elif not field.is_positional:
                named[field.name] = value
        if self.takes_rest:
            known = {field.name for field in self.fields} | self.bound | {self.context_name}
            named |= {name: value for name, value in inputs.items() if name not in known}
        if self.context_name is not None:
            named[self.context_name] = context
        return positional, named


def layers(function: Any) -> Iterator[Any]:
    """The function, and what is below it: partials, `functools.wraps`, objects that can be called. The last runs."""
    seen: set[int] = set()
    while id(function) not in seen:
        yield function
        seen.add(id(function))
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif not inspect.isroutine(function):
            function = type(function).__call__


def unwrapped(function: Any) -> Any:
    """What runs in the end."""
    return list(layers(function))[-1]


def is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(unwrapped(function))


def signature_of(function: Callable[..., Any], whose: str, *, is_method: bool) -> Signature:
    """How to call it. Raises ConfigurationError, which begins with `whose`, when it cannot be filled from inputs."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[is_method:]
    except (TypeError, ValueError):
        raise ConfigurationError(f"{whose}: its parameters cannot be inspected; wrap it in a def") from None
    partials = [each for each in layers(function) if isinstance(each, functools.partial)]
    bound = frozenset(name for each in partials for name in each.keywords)
    parameters = [each for each in parameters if each.name not in bound]
    resolve = functools.partial(_annotation, unwrapped(function), whose)
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return Signature(arity=2)
    if parameters and parameters[0].kind in _POSITIONAL and parameters[0].name in WHOLE:
        return _classical(parameters, whose, resolve)
    return _by_name(parameters, bound, whose, resolve)


def _classical(parameters: list[inspect.Parameter], whose: str, resolve: "_Resolve") -> Signature:
    """(inputs) or (inputs, context); parameters with defaults behind them are the function's own affair."""
    first, *others = parameters
    needed = [each for each in others if each.default is _REQUIRED and each.kind is not each.VAR_KEYWORD]
    if len(needed) > 1 or any(each.kind is each.KEYWORD_ONLY for each in needed):
        named = ", ".join(each.name for each in needed if each.name not in CONTEXT)
        raise ConfigurationError(
            f"{whose}: it takes all inputs as {first.name!r}, so nothing is left for {named}; "
            f"take (inputs, context), or leave {first.name!r} out and name each input"
        )
    has_context = bool(needed) or (bool(others) and others[0].kind in _POSITIONAL and others[0].name in CONTEXT)
    annotation = resolve(first)
    whole = None
    if not _is_raw(annotation):
        whole = _field(first, annotation, whose)
        if whole.schema.get("type") != "object":
            raise ConfigurationError(
                f"{whose}: {first.name!r} gets all inputs, an object, and cannot be a {_name(annotation)}"
            )
    return Signature(arity=2 if has_context else 1, whole=whole)


def _by_name(parameters: list[inspect.Parameter], bound: frozenset[str], whose: str, resolve: "_Resolve") -> Signature:
    context_name = None
    fields: list[Field] = []
    takes_rest = False
    models: list[tuple[inspect.Parameter, Any]] = []
    for each in parameters:
        if each.kind is each.VAR_KEYWORD:
            takes_rest = True
            continue
        if each.name in CONTEXT or _is_context(each.annotation):
            if each.kind is each.POSITIONAL_ONLY and len(parameters) > 1:
                raise ConfigurationError(f"{whose}: {each.name!r} cannot be positional-only beside other parameters")
            context_name = each.name
            continue
        annotation = resolve(each)
        fields.append(_field(each, annotation, whose))
        if _has_fields(annotation):
            models.append((each, annotation))
    if not fields and not takes_rest and (context_name is None or parameters[0].kind is parameters[0].POSITIONAL_ONLY):
        return Signature(arity=0) if context_name is None else _only_context(whose)
    if len(fields) == 1 and fields[0].is_required and models and not takes_rest and models[0][0].kind in _POSITIONAL:
        is_first = parameters[0].name == fields[0].name
        if is_first and (context_name is None or parameters[1].kind in _POSITIONAL):
            return Signature(arity=1 + (context_name is not None), whole=fields[0])
    return Signature(arity=None, fields=tuple(fields), context_name=context_name, takes_rest=takes_rest, bound=bound)


def _only_context(whose: str) -> Signature:
    raise ConfigurationError(f"{whose}: a positional-only parameter must be the inputs")


_Resolve = Callable[[inspect.Parameter], Any]


def _annotation(function: Any, whose: str, parameter: inspect.Parameter) -> Any:
    """The parameter's annotation, text resolved where the function was defined. Raises ConfigurationError."""
    annotation = parameter.annotation
    if isinstance(annotation, str):
        names = getattr(function, "__globals__", {})
        try:
            held: Any = SimpleNamespace(__annotations__={parameter.name: annotation})
            annotation = typing.get_type_hints(held, names, include_extras=True)[parameter.name]
        except WRONG as error:
            raise ConfigurationError(
                f"{whose}: the annotation of {parameter.name!r} cannot be resolved: {type(error).__name__}: {error}"
            ) from None
    return annotation


def _is_context(annotation: Any) -> bool:
    name = annotation.rpartition(".")[2] if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name in CONTEXT_TYPES


def _is_raw(annotation: Any) -> bool:
    """Whether the inputs fit the annotation as they are."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    return annotation in RAW or (origin in RAW and arguments in ((str, Any), (str, object), (Any, Any)))


def _parts(annotation: Any) -> Iterator[Any]:
    """The annotation, and what it is made of."""
    yield annotation
    for each in typing.get_args(annotation):
        yield from _parts(each)


def _is_pydantic(annotation: Any) -> bool:
    """Whether pydantic has to convert it. The code that defines such a type imports it; this module never does."""
    return "pydantic" in sys.modules and any(hasattr(each, "__pydantic_core_schema__") for each in _parts(annotation))


def _has_fields(annotation: Any) -> bool:
    """Whether the type is an object with named fields, so that a single one of it stands for all inputs."""
    if not inspect.isclass(annotation):
        return False
    is_struct = issubclass(annotation, msgspec.Struct) and not annotation.__struct_config__.array_like
    return is_struct or is_dataclass(annotation) or typing.is_typeddict(annotation) or _is_pydantic(annotation)


def _field(parameter: inspect.Parameter, annotation: Any, whose: str) -> Field:
    """How the parameter is filled. Raises ConfigurationError for a type that no JSON value can become."""
    schema: dict[str, Any] = {}
    convert = None
    if _is_pydantic(annotation):
        convert, schema = _by_pydantic(parameter, annotation, whose)
    elif annotation not in (Any, object, _REQUIRED):
        convert, schema = _by_msgspec(parameter, annotation, whose)
    if parameter.default is not _REQUIRED:
        schema = _with_default(schema, parameter.default)
    return Field(
        name=parameter.name,
        convert=convert,
        schema=schema,
        is_required=parameter.default is _REQUIRED,
        is_positional=parameter.kind is parameter.POSITIONAL_ONLY,
    )


def _with_default(schema: dict[str, Any], default: Any) -> dict[str, Any]:
    """The schema with the parameter's default, where JSON can say it."""
    try:
        return schema | {"default": json.loads(json.dumps(default, allow_nan=False))}
    except (TypeError, ValueError, RecursionError):
        return schema


def _by_msgspec(
    parameter: inspect.Parameter, annotation: Any, whose: str
) -> tuple[Callable[[Any, str], Any], dict[str, Any]]:
    try:
        if parameter.default is None:
            annotation = annotation | None
        (schema,), definitions = msgspec.json.schema_components([annotation], ref_template=REF)
        msgspec.convert(None, annotation | None)  # finds what has a schema and still cannot be made
    except WRONG as error:
        reason = f"no JSON value can become a {_name(annotation)}: {_first_line(error)}"
        raise ConfigurationError(f"{whose}: parameter {parameter.name!r}: {reason}") from None
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]

    def convert(value: Any, path: str) -> Any:
        try:
            return _converted(value, annotation)
        except msgspec.ValidationError as error:
            problem = problem_of(error, path)
            raise InputsRefused(f"{problem.field}: {problem.message}") from None

    return convert, schema | ({"$defs": definitions} if definitions else {})


def _converted(value: Any, annotation: Any) -> Any:
    """The value as that type. Raises msgspec.ValidationError. JSON has one kind of number: `3.0` is the integer 3.

    JSON Schema says so (2020-12, 4.2.3), and clients that keep data in protobuf's Struct write all numbers as `3.0`.
    """
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError:
        if (whole := _whole(value)) is value:
            raise
    return msgspec.convert(whole, annotation)


def _whole(value: Any) -> Any:
    """The value with whole floats as integers, at any depth; itself where there are none."""
    match value:
        case float():
            return int(value) if value.is_integer() else value
        case list():
            items = [_whole(each) for each in value]
            return value if all(map(operator.is_, items, value)) else items
        case dict():
            members = {name: _whole(each) for name, each in value.items()}
            return value if all(map(operator.is_, members.values(), value.values())) else members
    return value


def _by_pydantic(
    parameter: inspect.Parameter, annotation: Any, whose: str
) -> tuple[Callable[[Any, str], Any], dict[str, Any]]:
    pydantic = sys.modules["pydantic"]
    try:
        if parameter.default is None:
            annotation = annotation | None
        adapter = pydantic.TypeAdapter(annotation)
        schema = adapter.json_schema(ref_template=REF.replace("name", "model"))
    except WRONG as error:
        raise ConfigurationError(
            f"{whose}: parameter {parameter.name!r}: pydantic refuses its type: {_first_line(error)}"
        ) from None

    def convert(value: Any, path: str) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            named = [f"{path}{_steps(each['loc'])}: {each['msg']}" for each in problems[:MOST_NAMED]]
            raise InputsRefused("; ".join(named + ["and more"] * (len(problems) > MOST_NAMED))) from None

    return convert, schema


def _steps(steps: Sequence[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
