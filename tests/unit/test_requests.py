"""What callers hand in and get back: names of events, inputs as JSON, hashes of keys, answers."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, computed_field

from asyncflow import AnswerDropped, InvalidInput, NotFound, On, Rejected, S, Section, Select, Workflow, event
from asyncflow.activation import Answer
from asyncflow.definition import Definition
from asyncflow.requests import NO_INPUT, encode_input, event_of, outcome_of, request_hash, typed_answer


class Box(BaseModel):
    model_config = ConfigDict(extra="forbid")
    n: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.n * 2


class Mail(Workflow):
    @event
    def put(self, box: Box) -> Box:
        return box

    @event("Other")
    def named(self) -> Decimal:
        return Decimal(1)

    def given(self) -> None: ...

    def never(self) -> None: ...

    @event("Declared")
    def declared(self) -> None: ...

    def definition(self) -> Section[Any]:
        return S(Select("wait", On(self.put), On(self.named), On("asked", self.given), On("plain")))


MAIL: Definition[Any] = Definition.of(Mail)


@pytest.mark.parametrize(
    "asked, name",
    [("put", "put"), (Mail.put, "put"), (Mail.named, "Other"), (Mail.given, "asked"), ("anything", "anything")],
)
def test_an_event_is_named_by_its_name_or_its_method(asked: Any, name: str) -> None:
    assert event_of(MAIL, asked) == name


def test_a_method_that_nothing_waits_for_is_not_found() -> None:
    with pytest.raises(NotFound, match="never"):
        event_of(MAIL, Mail.never)
    with pytest.raises(NotFound, match=r"Mail\.declared is one, but no statement awaits it"):
        event_of(MAIL, Mail.declared)


@pytest.mark.parametrize(
    "value, text",
    [
        (NO_INPUT, None),
        (None, b"null"),
        (0, b"0"),
        (False, b"false"),
        ("", b'""'),
        ([], b"[]"),
        (b"\xff\x00", b'"_wA="'),
        (Decimal("1.10"), b'"1.10"'),
        (Box(n=3), b'{"n":3}'),
        ({"a": [Box()]}, b'{"a":[{"n":1}]}'),
    ],
)
def test_an_input_becomes_the_json_that_its_schema_takes(value: Any, text: bytes | None) -> None:
    assert encode_input(value) == text


def test_what_can_never_be_json_is_an_invalid_input() -> None:
    with pytest.raises(InvalidInput, match="cannot be JSON"):
        encode_input(object())


def test_a_hash_is_of_the_meaning_and_not_of_the_spelling() -> None:
    one = request_hash("event", "e", None, b'{"a": 1, "b": [{"c": 1, "d": 2}]}')
    assert one == request_hash("event", "e", None, b'{"b":[{"d":2,"c":1}],"a":1}')
    assert request_hash("event", "e", None, None) == request_hash("event", "e", None, b" null ")


@pytest.mark.parametrize(
    "other",
    [
        ("start", "e", "t", b"[1]"),
        ("event", "f", "t", b"[1]"),
        ("event", "e", "u", b"[1]"),
        ("event", "e", "t", b"[2]"),
        ("event", "e", "t", b"[true]"),
        ("event", "et", "", b"[1]"),
    ],
)
def test_a_hash_differs_with_everything_the_key_was_used_for(other: tuple[str, str, str, bytes]) -> None:
    assert request_hash("event", "e", "t", b"[1]") != request_hash(*other)


def test_an_answer_is_a_value_or_raises_what_it_is() -> None:
    assert outcome_of(Answer(200, b"0")) == b"0"
    with pytest.raises(AnswerDropped):
        outcome_of(Answer(200, dropped=True))
    with pytest.raises(Rejected):
        outcome_of(Answer(409, error=Rejected("no")))


@pytest.mark.parametrize(
    "name, text, value",
    [
        ("put", b'{"n": 4, "double": 8}', Box(n=4)),
        ("Other", b'"2.50"', Decimal("2.50")),
        ("plain", b"null", None),
        ("asked", b"null", None),
        ("unknown", b"1", None),
    ],
)
def test_an_answer_has_the_type_that_its_handler_returns(name: str, text: bytes, value: Any) -> None:
    assert typed_answer(MAIL, name, Answer(200, text)) == value
