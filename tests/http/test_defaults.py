"""Inputs that have a default may be left out: of an event, and of a start."""

from collections.abc import Iterator
from typing import Self

import pytest
from flask import Flask

from asyncflow import On as Case
from asyncflow import Return, S, Section, Select, Workflow, event
from runner import Runner
from tests.http.asking import Asker


class Room(Workflow):
    guests: int

    @classmethod
    def start(cls, guests: int = 2) -> Self:
        return cls(guests=guests)

    @event
    def book(self, nights: int | None = 5) -> int | None:
        return nights

    @event
    def leave(self, why: str = "no reason") -> str:
        return why

    def definition(self) -> Section[int]:
        return S(Select("open", Case(self.book), Case(self.leave)), Return(lambda: self.guests))


@pytest.fixture
def app() -> Iterator[Flask]:
    runner = Runner([Room], store="memory://")
    yield runner.create_app()
    runner.close()


@pytest.mark.parametrize("raw, guests", [(None, 2), (b"3", 3)])
def test_a_start_without_a_body_takes_the_default(client: Asker, raw: bytes | None, guests: int) -> None:
    instance = client.ask("POST", "/workflows/Room", raw=raw, status=201).get_json()
    assert instance["state"]["guests"] == guests


@pytest.mark.parametrize(
    "path, raw, answer", [("book", None, 5), ("book", b"null", None), ("book", b"1", 1), ("leave", None, "no reason")]
)
def test_an_event_without_a_body_takes_the_default(client: Asker, path: str, raw: bytes | None, answer: object) -> None:
    client.start("Room", "r")
    assert client.ask("POST", f"/workflows/Room/r/events/{path}", raw=raw, status=200).get_json() == answer


def test_a_null_is_a_null_which_the_type_has_to_take(client: Asker) -> None:
    client.start("Room", "r")
    problem = client.problem("POST", "/workflows/Room/r/events/leave", raw=b"null", status=422)
    assert problem["errors"] == [{"path": "", "message": "expected string, found null"}]


def test_the_schema_says_the_default(client: Asker) -> None:
    docs = client.get("/workflows/Room/docs").get_json()
    assert docs["start"]["default"] == 2
    assert (docs["events"]["book"]["input"]["default"], docs["events"]["leave"]["input"]["default"]) == (5, "no reason")
