"""Signatures of handlers, inputs and outputs: what is read off a method, and what it takes."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, computed_field
from pydantic_core import from_json

from asyncflow import InvalidInput, event
from asyncflow.handlers import (
    MISSING,
    Input,
    adapter_of,
    awaited_result,
    dump_json,
    event_name,
    event_spec,
    read_json,
    signature_of,
)


class Pizza(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(3, alias="pizzaSize")
    read_as: int = Field(0, validation_alias="readAs")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.size * 2


class Shapes:
    def nothing(self): ...  # type: ignore[no-untyped-def]  # noqa: ANN201
    def one(self, a: int) -> str: ...  # type: ignore[empty-body]
    def optional(self, a: int = 0) -> None: ...
    def untyped(self, a): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    def two(self, a: int, b: int) -> None: ...
    def many(self, *a: int) -> None: ...
    def by_name(self, *, a: int) -> None: ...
    def by_name_optional(self, a: int, *, b: int = 0) -> None: ...
    def unresolved(self, a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
    async def later(self, a: int) -> None: ...


SHAPES = Shapes()


@pytest.mark.parametrize(
    "method, counts",
    [
        (SHAPES.nothing, {0}),
        (SHAPES.one, {1}),
        (SHAPES.optional, {0, 1}),
        (SHAPES.two, {2}),
        (SHAPES.many, {0, 1, 2, 3}),
        (SHAPES.by_name, set()),
        (SHAPES.by_name_optional, {1}),
        (lambda a, b=1: None, {1, 2}),
    ],
)
def test_a_signature_says_how_many_values_a_function_takes(method: Callable[..., Any], counts: set[int]) -> None:
    assert {count for count in range(4) if signature_of(method).takes(count)} == counts


def test_a_signature_has_the_types_without_self() -> None:
    signature = signature_of(SHAPES.one)
    assert signature.parameters == (("a", int),)
    assert signature.result is str
    assert signature_of(SHAPES.nothing).result is MISSING
    assert signature_of(Shapes.one).parameters[0] == ("self", MISSING)
    assert signature_of(SHAPES.later).is_async


def test_a_result_that_is_awaited_counts() -> None:
    def given() -> Awaitable[int]: ...  # type: ignore[empty-body]

    assert awaited_result(signature_of(given)) is int
    assert awaited_result(signature_of(SHAPES.one)) is str


@pytest.mark.parametrize(
    "method, word",
    [
        (SHAPES.untyped, "no type"),
        (SHAPES.two, "takes 2"),
        (SHAPES.many, "one input"),
        (SHAPES.by_name, "by name"),
        (SHAPES.unresolved, "do not resolve"),
        (SHAPES.later, "plain function"),
    ],
)
def test_what_cannot_be_a_handler_is_told_why(method: Callable[..., Any], word: str) -> None:
    with pytest.raises(TypeError, match=word):
        event_spec("e", method)


def test_a_schema_that_is_none_is_told() -> None:
    class Wrong:
        @event(schema={"type": "strnig"})
        def put(self, value: Any) -> None: ...

    with pytest.raises(TypeError, match="no JSON Schema"):
        event_spec("put", Wrong().put)


def test_the_name_of_an_event_is_given_or_marked_or_the_methods() -> None:
    class Named:
        @event("Marked", role={"b", "a"}, queue=True)
        def method(self) -> int: ...  # type: ignore[empty-body]

    method = Named().method
    assert event_name("given", method) == "given"
    assert event_name(None, method) == "Marked"
    assert event_name(None, SHAPES.one) == "one"
    assert event_name(None, None) is None
    spec = event_spec("Marked", method)
    assert (spec.role, spec.queue, spec.input.schema) == (["a", "b"], True, None)


# -- inputs ------------------------------------------------------------------------------------------------------------


def errors_of(given: Input, text: bytes | None) -> list[dict[str, str]]:
    with pytest.raises(InvalidInput) as refused:
        given.check(text)
    return refused.value.errors


def test_an_input_is_checked_as_the_docs_say_it() -> None:
    given = Input(Annotated[list[int], Field(max_length=2)])
    given.check(b"[1, 0]")
    assert errors_of(given, b'["1"]') == [{"path": "0", "message": 'expected integer, found "1"'}]
    assert {error["path"] for error in errors_of(given, b'[1, "a", null]')} == {"", "1", "2"}
    assert errors_of(given, None) == [{"path": "", "message": "expected a body: array, found none"}]
    assert errors_of(given, b"null") == [{"path": "", "message": "expected array, found null"}]


@pytest.mark.parametrize(
    "annotation, text, said",
    [
        (Literal["yes", "no"], b'"oh"', 'expected "yes" or "no", found "oh"'),
        (bool, b"1", "expected boolean, found 1"),
        (int | None, b"true", "true is not valid under any of the given schemas"),
        (Annotated[str, Field(max_length=1)], b'"it\'s"', '"it\'s" is too long'),
        (dict[str, int], b'{"a": null}', "expected integer, found null"),
    ],
)
def test_a_refusal_is_said_in_the_words_of_json(annotation: Any, text: bytes, said: str) -> None:
    assert [one["message"] for one in errors_of(Input(annotation), text)] == [said]


def test_what_a_hostile_input_holds_is_not_said_whole() -> None:
    assert len(errors_of(Input(int), b'"' + b"x" * 100_000 + b'"')[0]["message"]) < 600


def test_an_input_with_a_default_may_be_left_out() -> None:
    class Optional:
        @event
        def opt(self, n: int | None = 5) -> None: ...
        @event
        def keep(self, why: str = "") -> None: ...

    opt, keep = event_spec("opt", Optional().opt).input, event_spec("keep", Optional().keep).input
    assert (opt.schema or {})["default"] == 5
    assert (keep.schema or {})["default"] == ""
    for given in (opt, keep):
        given.check(None)
        assert given.arguments(None) == ()
    opt.check(b"null")
    assert opt.arguments(b"null") == (None,), "a null is a value, where the type takes one"
    assert errors_of(keep, b"null") == [{"path": "", "message": "expected string, found null"}]


def test_a_default_that_is_no_json_is_not_shown() -> None:
    unshown = Input(Any, default=object())
    unshown.check(None)
    assert "default" not in (unshown.schema or {})


def test_what_the_schema_cannot_say_pydantic_says() -> None:
    class Even(BaseModel):
        n: Annotated[int, Field(multiple_of=2)]

        def model_post_init(self, context: Any) -> None:
            if self.n == 4:
                raise ValueError("not this one")

    assert errors_of(Input(Even), b'{"n": 4}')[0]["message"].endswith("not this one")


def test_no_input_takes_nothing_or_null() -> None:
    none = Input(none=True)
    none.check(None)
    none.check(b"null")
    for text in (b"0", b'""', b"false", b"[]", b"{}"):
        assert errors_of(none, text) == [{"path": "", "message": "expected no input"}]


@pytest.mark.parametrize("text, value", [(b"0", 0), (b'""', ""), (b"false", False), (b"[]", []), (b"null", None)])
def test_an_input_that_is_false_arrives(text: bytes, value: Any) -> None:
    given = Input(Any)
    given.check(text)
    assert given.parse(text) == value


def test_a_given_schema_takes_the_place_of_the_annotations() -> None:
    given = Input(Any, {"type": "object", "required": ["x"]})
    given.check(b'{"x": 1}')
    assert errors_of(given, b"{}") == [{"path": "", "message": "'x' is a required property"}]


def test_bytes_are_base64() -> None:
    given = Input(bytes)
    given.check(b'"_wA="')
    assert given.parse(b'"_wA="') == b"\xff\x00"
    assert dump_json(adapter_of(bytes), b"\xff\x00") == b'"_wA="'
    assert errors_of(given, b'"@"')


# -- values that are written and read back -----------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [Pizza, Pizza | None, list[Pizza], dict[str, Pizza | int]])
@pytest.mark.parametrize("round_trip", [True, False])
def test_what_is_written_is_read_back_whatever_the_model_is_like(annotation: Any, round_trip: bool) -> None:
    pizza = Pizza.model_validate({"pizzaSize": 5, "readAs": 2})
    adapter: TypeAdapter[Any] = adapter_of(annotation)
    value = [pizza] if annotation == list[Pizza] else {"a": pizza, "b": 0} if "dict" in str(annotation) else pizza
    text = dump_json(adapter, value, round_trip=round_trip)
    assert (b"double" in text) != round_trip
    assert read_json(adapter, text) == value


def test_what_no_value_of_the_type_can_be_is_not_read_back() -> None:
    with pytest.raises(ValidationError):
        read_json(adapter_of(Pizza), b'{"pizzaSize": "large"}')


def test_a_value_that_does_not_fit_its_type_is_an_error_and_no_warning() -> None:
    with pytest.raises(ValueError, match="serialized value may not be as expected"):
        dump_json(adapter_of(int), "one")
    assert from_json(dump_json(adapter_of(MISSING), {"a": 1})) == {"a": 1}


def test_what_can_never_be_json_has_no_adapter() -> None:
    class Opaque: ...

    with pytest.raises(TypeError, match="cannot be JSON"):
        adapter_of(Opaque)
