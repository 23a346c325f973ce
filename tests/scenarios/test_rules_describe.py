"""docs/statements.md: what can be read from a definition without an instance."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, JsonValue

from asyncflow import (
    After,
    AsyncflowError,
    Case,
    Default,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Parallel,
    Return,
    S,
    Section,
    Select,
    Statement,
    Step,
    Switch,
    Try,
    WaitEvent,
    WaitUntil,
    With,
    docs,
    event,
    find,
    query,
    walk,
)
from tests.scenarios.traced import Traced


class Item(BaseModel):
    name: str
    price: Decimal = Decimal(0)

    @event(role="operator")
    def approve(self) -> None:
        """Let it pass."""


class Request(BaseModel):
    goal: str


class Agent(Traced):
    """Work on a goal."""

    goal: str
    items: dict[str, Item] = {}
    answer: str | None = None

    @event(role={"cook", "waiter"})
    def add(self, item: Item) -> list[Item]:
        """Put one in."""
        return [item]

    @event(schema={"type": "object", "required": ["age"]})
    def enter(self, guest: dict[str, int]) -> None: ...

    @query
    def total(self) -> int:
        """How many."""
        return len(self.items)

    def one(self, item: Item) -> Section[Any]:
        return S(Select("approval", On(item.approve), After(timedelta(days=1))))

    def definition(self) -> Section[str | None]:
        return S(
            For("loop", lambda: self.answer is None, Select("next", On(self.add), On(self.enter))),
            ForEach("items", lambda: self.items, self.one, parallel=3),
            Section("again", WaitEvent(self.add)),
            WaitEvent("bare"),
            Return(lambda: self.answer),
        )


class WithStart(Agent):
    @classmethod
    def start(cls, request: Request) -> "WithStart":
        return cls(goal=request.goal)


def docs_of(workflow: type[Traced]) -> Any:
    return docs(workflow)


def test_docs_name_the_workflow_and_all_it_takes_and_gives() -> None:
    found = docs_of(Agent)
    assert set(found) == {"workflow", "description", "start", "state", "output", "events", "queries"}
    assert (found["workflow"], found["description"]) == ("Agent", "Work on a goal.")
    assert set(found["events"]) == {"add", "enter", "approve", "bare"}
    assert set(found["queries"]) == {"total"}


def schemas(found: Any) -> list[dict[str, JsonValue]]:
    parts = [found["start"], found["state"], found["output"], found["queries"]["total"]["output"]]
    parts += [event[kind] for event in found["events"].values() for kind in ("input", "output")]
    return [part for part in parts if part is not None]


def test_every_schema_is_valid_and_says_its_dialect() -> None:
    found = schemas(docs_of(Agent))
    assert len(found) >= 7
    for schema in found:
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(schema)


def test_docs_of_an_event() -> None:
    add = docs_of(Agent)["events"]["add"]
    assert set(add) == {"input", "output", "role", "description", "awaited_at"}
    assert sorted(add["awaited_at"]) == ["again/add", "loop/next"]
    assert add["description"] == "Put one in."
    assert sorted(add["role"]) == ["cook", "waiter"]
    assert add["input"]["required"] == ["name"]
    assert add["output"]["type"] == "array"


def test_docs_of_an_event_of_items() -> None:
    approve = docs_of(Agent)["events"]["approve"]
    assert approve["awaited_at"] == ["items/approval"]
    assert approve["role"] == ["operator"]
    assert approve["description"] == "Let it pass."


def test_what_has_no_schema_is_null() -> None:
    events = docs_of(Agent)["events"]
    assert events["bare"]["input"] is None
    assert events["bare"]["output"] is None
    assert events["approve"]["input"] is None
    assert events["bare"]["role"] is None


def test_a_schema_that_was_given_is_the_one_that_is_shown() -> None:
    assert docs_of(Agent)["events"]["enter"]["input"]["required"] == ["age"]


def test_inputs_are_schemas_for_validation_and_outputs_for_serialization() -> None:
    """A Decimal may come as a number or a string, and is always given as a string."""
    add = docs_of(Agent)["events"]["add"]
    takes, gives = Draft202012Validator(add["input"]), Draft202012Validator(add["output"])
    assert takes.is_valid({"name": "nut", "price": 1.5})
    assert takes.is_valid({"name": "nut", "price": "1.5"})
    assert gives.is_valid([{"name": "nut", "price": "1.5"}])
    assert not gives.is_valid([{"name": "nut", "price": 1.5}])


def test_the_start_takes_the_fields_without_default_and_nothing_else() -> None:
    start = docs_of(Agent)["start"]
    assert set(start["properties"]) == {"goal"}
    assert start["required"] == ["goal"]
    validator = Draft202012Validator(start)
    assert validator.is_valid({"goal": "x"})
    assert not validator.is_valid({"goal": "x", "answer": "y"})
    assert not validator.is_valid({})


def test_the_start_of_a_class_with_a_start_is_its_input() -> None:
    start = docs_of(WithStart)["start"]
    assert set(start["properties"]) == {"goal"}
    assert start["title"] == "Request"


def test_the_output_and_the_state() -> None:
    found = docs_of(Agent)
    assert Draft202012Validator(found["output"]).is_valid(None)
    assert Draft202012Validator(found["output"]).is_valid("x")
    assert not Draft202012Validator(found["output"]).is_valid(1)
    assert {"goal", "items", "answer", "log"} <= set(found["state"]["properties"])
    total = found["queries"]["total"]
    assert set(total) == {"output", "description"}
    assert total["output"]["type"] == "integer"
    assert total["description"] == "How many."


class Everything(Traced):
    """One of most kinds, for their paths."""

    ready: bool = False
    items: list[Item] = []

    @event
    def ev(self) -> None: ...

    def is_ready(self) -> bool:
        return self.ready

    def step(self, name: str) -> Step:
        return Step(name, self.mark, name)

    def definition(self) -> Section[None]:
        return S(
            S(self.step("in s")),
            With(timeout=timedelta(seconds=1))(self.step("in with")),
            Section("named", self.step("in section")),
            If(self.is_ready, self.step("a")).Elif("other", lambda: True, self.step("b")).Else(self.step("c")),
            Switch("sw", Case("one", lambda: True, self.step("d")), Default(self.step("e"))),
            Select(
                "sel",
                On(self.ev, self.step("f")),
                After(timedelta(1), self.step("g")),
                After(timedelta(2), self.step("h")),
            ),
            WaitEvent(self.ev, self.step("i")),
            WaitUntil("cond", lambda: True, self.step("j")),
            Try(self.step("k")).Except((ValueError, KeyError), self.step("l")).Finally(self.step("m")),
            Try("tried", self.step("n")).Except(ValueError, self.step("o")),
            Go("go", self.step("p")),
            Parallel("par", self.step("q")),
            ForEach("each", lambda: self.items, lambda item: self.step("r")),
            Join("go"),
            Return(),
        )


STEPS = [
    "in s",
    "in with",
    "named/in section",
    "is_ready/a",
    "is_ready/other/b",
    "is_ready/else/c",
    "sw/one/d",
    "sw/default/e",
    "sel/ev/f",
    "sel/after/g",
    "sel/after 2/h",
    "ev/i",
    "cond/j",
    "k",
    "except ValueError|KeyError/l",
    "finally/m",
    "tried/n",
    "tried/except ValueError/o",
    "go/p",
    "par/q",
    "each/r",
]


def test_walk_visits_every_statement_in_the_order_of_the_text() -> None:
    found: list[tuple[str, str]] = []

    def visit(path: str, statement: Statement[Any]) -> None:
        found.append((path, type(statement).__name__))

    walk(Everything, visit)
    assert [path for path, kind in found if kind == "Step"] == STEPS
    for place in [("is_ready", "If"), ("sw", "Switch"), ("sel", "Select"), ("tried", "Try"), ("join", "Join")]:
        assert place in found
    assert ("return", "Return") in found


def test_walk_does_not_go_inside_where_it_is_told_not_to() -> None:
    found: list[str] = []

    def visit(path: str, statement: Statement[Any]) -> bool | None:
        found.append(path)
        return False if path in {"named", "is_ready", "sel", "go", "each"} else None

    walk(Everything, visit)
    assert "named" in found
    assert not [path for path in found if path.startswith(("named/", "is_ready/", "sel/", "go/", "each/"))]
    assert "sw/one/d" in found


@pytest.mark.parametrize("path", [*STEPS, "sel", "is_ready", "join", "return"])
def test_find_gives_the_statement_that_walk_visits(path: str) -> None:
    seen: dict[str, str] = {}

    def visit(path: str, statement: Statement[Any]) -> None:
        seen.setdefault(path, type(statement).__name__)

    walk(Everything, visit)
    assert type(find(Everything, path)).__name__ == seen[path]


def test_a_path_that_does_not_exist_is_not_found() -> None:
    with pytest.raises((LookupError, AsyncflowError)):
        find(Everything, "sel/nowhere")
