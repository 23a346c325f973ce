"""The state as JSON text: what it may hold, and that what was written is what is read (rule 5)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field, field_validator
from pydantic_core import from_json

from asyncflow import Section, Workflow
from asyncflow.errors import InvalidState
from asyncflow.limits import JSON_INTEGER_MAX, STATE_DEPTH
from asyncflow.state import StateCodec, check_restricted


def deep(levels: int, inner: str = "1") -> bytes:
    return ("[" * levels + inner + "]" * levels).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"null",
        b"0",
        b'""',
        b"[]",
        b'{"a": 1, "b": {"a": 2}}',
        b"9007199254740991",
        b"-9007199254740991",
        b'"NaN Infinity 99999999999999999999 1e999"',
        b"1e308",
        b"5e-324",
        b"0.1234567890123456789",
        deep(STATE_DEPTH),
        b"[" + b"[]," * 200 + b"[]]",
    ],
)
def test_what_every_store_keeps_is_taken(text: bytes) -> None:
    check_restricted(text)


@pytest.mark.parametrize(
    "text, what",
    [
        (b"NaN", "NaN"),
        (b'{"a": [-Infinity]}', "-Infinity"),
        (b"[1e999]", "0: the number Infinity"),
        (b"-1E+400", "-Infinity"),
        (b"9007199254740992", "9007199254740992"),
        (b'{"a": -9007199254740992}', "a: the integer -9007199254740992"),
        (b'{"a": {"b": [0, 1' + b"0" * 400 + b"]}}", r"a/b/1: the integer 1(0){19}… \(401 digits\)"),
        (b"1" + b"0" * 5_000, "thousands of digits"),
        (b'"a\\u0000b"', "NUL"),
        (b'{"b": {"a\\u0000": 1}}', "b: a NUL"),
        (b'{"a": 1, "a": 1}', "the doubled key 'a'"),
        (b'[{"x": {"a": 1, "b": 2, "a": 3}}]', "doubled"),
        (deep(STATE_DEPTH + 1), "deeper"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "^a/a/a/a/a/a/…: JSON deeper"),
        (deep(100_000), "deeper"),
    ],
)
def test_what_some_store_does_not_keep_is_refused_and_named(text: bytes, what: str) -> None:
    with pytest.raises(InvalidState, match=what):
        check_restricted(text)


# -- writing and reading -----------------------------------------------------------------------------------------------


class Colour(Enum):
    red = "r"


class Line(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(default="x", alias="lineName")
    price: float | None = None
    tags: set[str] = set()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.name.upper()


class Kept(Workflow):
    lines: dict[str, list[Line]] = {}
    money: Decimal = Decimal("1.10")
    raw: bytes = b""
    colour: Colour = Colour.red
    when: datetime | None = None
    after: timedelta = timedelta(0)
    id_: UUID | None = None
    pairs: list[tuple[int, str]] = []
    renamed: int = Field(0, alias="other-name")
    read_as: int = Field(0, validation_alias=AliasChoices("one", "two"))

    def definition(self) -> Section[Any]:
        raise NotImplementedError


def test_every_kind_of_value_is_read_as_it_was_written() -> None:
    state = Kept(  # type: ignore[call-arg]
        lines={"a": [Line(lineName="n", price=0.1, tags={"t"}), Line(lineName="x")], "": []},
        money=Decimal("0.10"),
        raw=b"\xff\x00",
        when=datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=UTC),
        after=timedelta(days=1, microseconds=1),
        id_=UUID(int=7),
        pairs=[(0, "")],
    )
    state.renamed = 3
    state.read_as = 9
    codec = StateCodec(Kept)
    text = codec.dump(state)
    again, extra = codec.parse(text)
    assert again.__dict__ == state.__dict__
    assert extra is None
    assert codec.dump(again) == text
    values = from_json(text)
    assert values["raw"] == "_wA="
    assert "shout" not in values["lines"]["a"][0]
    assert "other-name" in values


@pytest.mark.parametrize("value", [0, "", False, [], {}, None, 0.0])
def test_a_value_that_is_false_is_kept(value: Any) -> None:
    class Anything(Workflow):
        value: Any = "something else"

    codec = StateCodec(Anything)
    again = codec.parse(codec.dump(Anything(value=value)))[0]
    assert again.__dict__ == {"value": value}
    assert type(again.__dict__["value"]) is type(value)


class Holder(Workflow):
    number: float | None = None
    lines: list[Line] = []
    count: int = 0
    anything: Any = None
    keyed: dict[int | str, int] = {}
    text: str = ""
    strict: int = Field(default=0, ge=0)


@pytest.mark.parametrize(
    "change, what",
    [
        ({"number": float("nan")}, "number: the number NaN"),
        ({"number": float("inf")}, "Infinity"),
        ({"lines": [Line(lineName="x", price=float("nan"))]}, "NaN"),
        ({"count": JSON_INTEGER_MAX + 1}, "9007199254740992"),
        ({"anything": {"a": [2**70]}}, "beyond"),
        ({"anything": float("nan")}, "NaN"),
        ({"anything": from_json(deep(STATE_DEPTH))}, "deeper"),
        ({"keyed": {1: 1, "1": 2}}, "doubled"),
        ({"anything": {1: 1, "1": 2}}, "doubled"),
        ({"text": "a\0b"}, "NUL"),
        ({"text": "\ud800"}, "cannot be written"),
        ({"text": 3}, "cannot be written as JSON: the field 'text'"),
        ({"lines": [{"name": "no model"}]}, "cannot be written"),
        ({"anything": object()}, "cannot be written"),
    ],
)
def test_what_cannot_be_stored_is_refused_when_it_is_written(change: dict[str, Any], what: str) -> None:
    state = Holder()
    state.__dict__.update(change)
    with pytest.raises(InvalidState, match=what):
        StateCodec(Holder).dump(state)


@pytest.mark.parametrize("base64", [True, False])
def test_bytes_in_a_model_of_its_own_go_by_its_config_and_the_error_says_which(base64: bool) -> None:
    how: ConfigDict = {"ser_json_bytes": "base64", "val_json_bytes": "base64"} if base64 else {}

    class Blob(BaseModel):
        model_config = how
        raw: bytes

    class Blobs(Workflow):
        blobs: list[Blob] = []

    codec, state = StateCodec(Blobs), Blobs(blobs=[Blob(raw=b"\xff")])
    if base64:
        assert codec.parse(codec.dump(state))[0] == state
        return
    with pytest.raises(InvalidState, match="ser_json_bytes='base64'"):
        codec.dump(state)


def test_what_does_not_validate_is_refused_when_it_is_read_and_its_place_is_named() -> None:
    codec = StateCodec(Holder)
    state = Holder()
    state.__dict__["strict"] = -1
    with pytest.raises(InvalidState, match="strict"):
        codec.parse(codec.dump(state))
    with pytest.raises(InvalidState, match="lines/0/price"):
        codec.parse(b'{"lines": [{"price": "much"}]}')


def test_a_validator_that_breaks_refuses_the_state() -> None:
    class Broken(Workflow):
        n: int = 0

        @field_validator("n")
        @classmethod
        def look(cls, n: int) -> int:
            if n == 1:
                raise KeyError("a fault in the validator")
            return n

    with pytest.raises(InvalidState, match="a fault in the validator"):
        StateCodec(Broken).parse(b'{"n": 1}')


# -- fields the class does not have ------------------------------------------------------------------------------------


def test_unknown_fields_are_kept_beside_the_object() -> None:
    codec = StateCodec(Holder)
    state, extra = codec.parse(b'{"count": 2, "older": {"a": [1]}, "flag": false}')
    assert isinstance(state, Holder)
    assert state.count == 2
    assert extra == {"older": {"a": [1]}, "flag": False}
    state.count = 3
    assert from_json(codec.dump(state, extra)) == {**from_json(codec.dump(state)), "older": {"a": [1]}, "flag": False}


def test_an_unknown_field_inside_a_model_that_forbids_it_does_not_fit() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        n: int = 0

    class Outer(Workflow):
        inner: Strict = Strict()

    with pytest.raises(InvalidState, match="inner/older"):
        StateCodec(Outer).parse(b'{"inner": {"older": 1}}')


def test_a_model_that_allows_extras_keeps_its_own() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        n: int = 0

    class Outer(Workflow):
        inner: Open = Open()

    codec = StateCodec(Outer)
    state, _ = codec.parse(b'{"inner": {"n": 1, "older": [2]}}')
    assert from_json(codec.dump(state)) == {"inner": {"n": 1, "older": [2]}}
