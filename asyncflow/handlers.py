"""Events and queries: methods that callers name, what they take and what they give back."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any, Self, TypeVar, cast, get_args, get_origin, overload

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from pydantic import BaseModel, ConfigDict, JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import from_json
from referencing import Registry

from asyncflow.errors import InvalidInput
from asyncflow.refusals import missing, refusal

F = TypeVar("F", bound=Callable[..., object])

MISSING: Any = inspect.Parameter.empty
"""No annotation was given."""

GENERATOR = "is a generator, so a call of it would run nothing: return a value, as a list, instead of yield"

EVENT_MARK = "__asyncflow_event__"
QUERY_MARK = "__asyncflow_query__"
JSON_DIALECT = "https://json-schema.org/draft/2020-12/schema"

INPUT_ERRORS = 20
"""How many places of an input are named that do not fit: a hostile one has as many as it has bytes."""

ADAPTER_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
"""How types that are no models become JSON: bytes as base64; a NaN stays one, so that it is refused and not turned into null."""


@dataclass(frozen=True, slots=True)
class EventMark:
    """What `@event(…)` says of a method."""

    name: str | None = None
    role: tuple[str, ...] | None = None
    queue: bool = False
    schema: Mapping[str, JsonValue] | None = None


@overload
def event(method: F, /) -> F: ...
@overload
def event(
    name: str | None = None,
    /,
    *,
    role: str | Collection[str] | None = None,
    queue: bool = False,
    schema: Mapping[str, JsonValue] | None = None,
) -> Callable[[F], F]: ...
def event(
    name: Any = None,
    /,
    *,
    role: str | Collection[str] | None = None,
    queue: bool = False,
    schema: Mapping[str, JsonValue] | None = None,
) -> Any:
    """Mark a method as an event: callers deliver it, its body is the handler.

    The method takes nothing or one annotated input and returns nothing or a value. It runs at once, only changes state, and may
    run again when two writers meet; it refuses by raising `Rejected`.

    Args:
        name: The event's name; default: the method's.
        role: Who may send it; default: everybody.
        queue: An event that nobody awaits stays for its turn instead of being refused with 409.
        schema: A JSON Schema (2020-12) for the input, instead of the annotation's.
    """
    if callable(name):
        setattr(name, EVENT_MARK, EventMark())
        return name
    roles = None if role is None else ((role,) if isinstance(role, str) else tuple(sorted(role)))
    mark = EventMark(name, roles, queue, schema)

    def decorate(method: F) -> F:
        setattr(method, EVENT_MARK, mark)
        return method

    return decorate


def query(method: F, /) -> F:
    """Mark a method without input as a read-only view of the last saved state. What it changes is dropped."""
    setattr(method, QUERY_MARK, True)
    return method


# -- signatures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function takes (without self) and gives, with resolved annotations."""

    parameters: tuple[tuple[str, Any], ...]
    required: int
    variadic: bool
    result: Any
    is_async: bool
    is_generator: bool = False
    """Called, it would run nothing: it waits for somebody who asks it for values."""
    default: Any = MISSING
    """Of its first parameter."""
    problem: str = ""

    def takes(self, count: int) -> bool:
        """Whether it can be called with *count* positional arguments."""
        return self.required <= count and (self.variadic or count <= len(self.parameters))


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read a function's or bound method's signature. Annotations that do not resolve are said in `problem`."""
    bound = inspect.ismethod(function)
    plain = function.__func__ if inspect.ismethod(function) else function
    try:
        return _signature(plain, bound)
    except TypeError:  # unhashable callable
        return _signature.__wrapped__(plain, bound)


@lru_cache(maxsize=4096)
def _signature(function: Callable[..., Any], bound: bool) -> Signature:
    try:
        raw = inspect.signature(function)
    except (TypeError, ValueError):
        return Signature((), 0, True, MISSING, False)
    problem = ""
    hints: dict[str, Any] = {}
    target = function if inspect.isfunction(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception as error:  # noqa: BLE001 - an annotation may raise anything
        problem = f"its annotations do not resolve: {error}"
    parameters: list[tuple[str, Any]] = []
    required, variadic, default = 0, False, MISSING
    for position, (name, parameter) in enumerate(raw.parameters.items()):
        if bound and position == 0:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            variadic = True
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            default = default if parameters else parameter.default
            parameters.append((name, hints.get(name, MISSING)))
            required += parameter.default is parameter.empty
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            required += 1  # nobody gives it: no number of values is enough
    return Signature(
        tuple(parameters),
        required,
        variadic,
        hints.get("return", MISSING),
        inspect.iscoroutinefunction(function),
        any(one(two) for one in (inspect.isgeneratorfunction, inspect.isasyncgenfunction) for two in (function, target)),
        default,
        problem,
    )


def members_of(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows: those of a union, else itself."""
    while get_origin(annotation) is typing.Annotated:
        annotation = get_args(annotation)[0]
    return get_args(annotation) if is_union(annotation) else (annotation,)


def is_union(annotation: Any) -> bool:
    """Whether it is `A | B`, however that is written."""
    return get_origin(annotation) in (typing.Union, types.UnionType)


def awaited_result(signature: Signature) -> Any:
    """The type an action gives once awaited: `Awaitable[R]` is R."""
    result = signature.result
    if get_origin(result) in (Awaitable, Coroutine) or get_origin(result) in (
        typing.get_origin(Awaitable[int]),
        typing.get_origin(Coroutine[int, int, int]),
    ):
        arguments = get_args(result)
        return arguments[-1] if arguments else MISSING
    return result


# -- types as JSON -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return TypeAdapter(annotation)
    try:
        return TypeAdapter(annotation, config=ADAPTER_CONFIG)
    except PydanticUserError:  # types that bring a config of their own (TypedDict, dataclass)
        return TypeAdapter(annotation)


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """The pydantic adapter of a type; Any where there is no annotation.

    Raises:
        TypeError: pydantic has no schema for it. Say a type that can be JSON.
    """
    if annotation is MISSING:
        annotation = Any
    try:
        try:
            return _adapter(annotation)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            return _adapter.__wrapped__(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise TypeError(f"{annotation!r} cannot be JSON: {error}") from error


def schema_of(adapter: TypeAdapter[Any], mode: typing.Literal["validation", "serialization"]) -> dict[str, JsonValue]:
    """The JSON Schema 2020-12 of a type, with its `$schema`."""
    return {"$schema": JSON_DIALECT, **adapter.json_schema(mode=mode)}


def dump_json(adapter: TypeAdapter[Any], value: Any, *, round_trip: bool = False) -> bytes:
    """Write *value* as JSON text, an unfit value being an error and not a warning.

    Args:
        round_trip: For the engine's own reading, without computed fields; else as a caller reads it in the docs.
    """
    return adapter.dump_json(value, by_alias=True, round_trip=round_trip, warnings="error")


def read_json(adapter: TypeAdapter[Any], text: bytes) -> Any:
    """Give the typed value of what `dump_json` wrote, by the names that writing uses; computed fields in it are passed over.

    Raises:
        ValidationError: it is no value of the type.
    """
    try:
        return adapter.validate_json(text, by_alias=True, by_name=True)
    except ValidationError as error:
        # In a union the other members have refused it too.
        if all(one["type"] != "extra_forbidden" for one in error.errors(include_url=False)):
            raise
    return adapter.validate_json(text, by_alias=True, by_name=True, extra="ignore")


def type_of_result(cls: type[Any], step: Any) -> TypeAdapter[Any]:
    """The type of the result of a step of the workflow *cls*."""
    annotation = MISSING if step.action is None else awaited_result(signature_of(step.action))
    if annotation is MISSING and step.then is not None:
        parameters = signature_of(step.then).parameters
        annotation = parameters[0][1] if parameters else MISSING
    if annotation is MISSING and step.into is not None:
        annotation = cls.model_fields[step.into].annotation
    return adapter_of(annotation)


class Input:
    """What an event or a start takes: nothing, or one value with a schema, which may be left out where it has a *default*."""

    __slots__ = ("adapter", "optional", "schema", "validator")

    def __init__(
        self,
        annotation: Any = None,
        schema: Mapping[str, JsonValue] | None = None,
        *,
        none: bool = False,
        default: Any = MISSING,
    ) -> None:
        self.optional = default is not MISSING
        self.adapter: TypeAdapter[Any] | None = None if none else adapter_of(annotation)
        self.schema: dict[str, JsonValue] | None = None
        self.validator: Validator | None = None
        if schema is not None:
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as error:
                raise TypeError(f"its schema= is no JSON Schema: {error.message}") from error
        if self.adapter is not None:
            self.schema = schema_of(self.adapter, "validation") if schema is None else {"$schema": JSON_DIALECT, **dict(schema)}
            if self.optional and "default" not in self.schema:
                self.schema |= _default_of(self.adapter, default)
            # An empty registry: a schema never reaches for another one over the network.
            self.validator = Draft202012Validator(
                self.schema, registry=Registry(), format_checker=Draft202012Validator.FORMAT_CHECKER
            )

    @classmethod
    def of(cls, signature: Signature, schema: Mapping[str, JsonValue] | None = None) -> Self:
        """What a function of this signature takes: its first parameter."""
        if not signature.parameters:
            return cls(none=True)
        return cls(signature.parameters[0][1], schema, default=signature.default)

    def check(self, text: bytes | None) -> None:
        """Check *text* (JSON; None: empty) against the schema, as a caller reads it in the docs.

        Raises:
            InvalidInput: with every place that does not fit.
        """
        value = None if text is None else from_json(text)
        if self.validator is None:
            if value is not None:
                raise InvalidInput("expected no input", details={"errors": [{"path": "", "message": "expected no input"}]})
            return
        if text is None and self.optional:
            return
        errors = [refusal(error) for error in islice(self.validator.iter_errors(value), INPUT_ERRORS)]
        if errors:
            raise invalid_input([missing(self.schema)] if text is None else errors)
        self.parse(text)

    def arguments(self, text: bytes | None) -> tuple[Any, ...]:
        """Give what a function is called with: nothing where it takes nothing, or where its default is to hold.

        Raises:
            InvalidInput: *text* does not validate.
        """
        return () if self.adapter is None or (text is None and self.optional) else (self.parse(text),)

    def parse(self, text: bytes | None) -> Any:
        """Give the typed value of *text*.

        Raises:
            InvalidInput: it does not validate.
        """
        if self.adapter is None:
            return None
        try:
            return self.adapter.validate_json(b"null" if text is None else text)
        except ValidationError as error:
            raise invalid_input(
                [
                    {"path": "/".join(str(part) for part in one["loc"]), "message": one["msg"]}
                    for one in error.errors(include_url=False, include_context=False, include_input=False)
                ]
            ) from error


def _default_of(adapter: TypeAdapter[Any], value: Any) -> dict[str, JsonValue]:
    try:
        return {"default": from_json(dump_json(adapter, value))}
    except ValueError:  # it is Python's alone, and is not shown
        return {}


def invalid_input(errors: list[dict[str, str]]) -> InvalidInput:
    """The error of an input that does not fit, naming each place."""
    said = "; ".join(f"{one['path']}: {one['message']}" if one["path"] else one["message"] for one in errors[:5])
    more = f" and {len(errors) - 5} more" if len(errors) > 5 else ""
    return InvalidInput(
        f"the input does not fit its schema: {said}{more}", details={"errors": cast("JsonValue", errors[:INPUT_ERRORS])}
    )


@dataclass(slots=True)
class EventSpec:
    """One event of a workflow: its name has one input, output and role in the whole of it."""

    name: str
    role: list[str] | None
    queue: bool
    input: Input
    output: TypeAdapter[Any] | None
    """None: it gives nothing back."""
    description: str | None
    awaited_at: list[str] = field(default_factory=list)
    signature: tuple[Any, ...] = ()
    """What must be the same wherever the event is named."""
    sources: list[str] = field(default_factory=list)


@dataclass(slots=True)
class QuerySpec:
    """One query: a name, the method, and what it gives."""

    name: str
    method: str
    output: TypeAdapter[Any]
    description: str | None


def mark_of(handler: Callable[..., Any] | None) -> EventMark:
    """What `@event` said of this method; the defaults where it was not used."""
    return cast("EventMark", getattr(handler, EVENT_MARK, None) or EventMark())


def event_name(named: str | None, handler: Callable[..., Any] | None) -> str | None:
    """The name of the event in `On(…)`: given, marked, or the method's."""
    if named is not None:
        return named
    return mark_of(handler).name or getattr(handler, "__name__", None)


def declared_events(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """The events that a class declares by `@event`, awaited or not: each name with its method's."""
    for method, function in inspect.getmembers(cls, inspect.isfunction):
        if getattr(function, EVENT_MARK, None) is not None:
            yield event_name(None, function) or method, method


def event_spec(name: str, handler: Callable[..., Any] | None) -> EventSpec:
    """Read an event off its handler.

    Raises:
        TypeError: the handler's signature cannot be one of an event; the text says why.
    """
    if handler is None:
        return EventSpec(name, None, False, Input(none=True), None, None, signature=(None, None, None, False))
    mark = mark_of(handler)
    signature = signature_of(handler)
    if signature.problem:
        raise TypeError(signature.problem)
    if signature.is_async:
        raise TypeError("a handler is a plain function: it only changes state; do what takes time in a Step")
    if signature.is_generator:
        raise TypeError(f"its handler {GENERATOR}")
    if signature.required > len(signature.parameters):
        raise TypeError("an argument of its handler can only be given by name, and nobody does: leave out the '*'")
    if signature.required > 1 or signature.variadic:
        raise TypeError(f"a handler takes nothing or one input, this one takes {signature.required}")
    annotation = MISSING
    if signature.parameters:
        annotation = signature.parameters[0][1]
        if annotation is MISSING and mark.schema is None:
            raise TypeError("its input has no type: annotate it, or give @event(schema=…)")
    source = Input.of(signature, mark.schema)
    result = signature.result
    output = None if result is None or result is type(None) else adapter_of(result)
    role = None if mark.role is None else list(mark.role)
    description = inspect.getdoc(handler)
    shape = (
        repr(source.schema),
        None if output is None else repr(result),
        mark.role,
        mark.queue,
    )
    return EventSpec(name, role, mark.queue, source, output, description, signature=shape)
