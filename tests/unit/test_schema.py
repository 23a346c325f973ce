"""A workflow from outside: `docs`, `walk`, `find` and the tree as JSON (docs())."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, computed_field

from asyncflow import (
    For,
    ForEach,
    Go,
    If,
    NotFound,
    On,
    Parallel,
    S,
    Section,
    Select,
    Statement,
    Step,
    Try,
    WaitEvent,
    Workflow,
    docs,
    event,
    find,
    query,
    simulate,
    walk,
)
from asyncflow.schema import definition_json


class Pizza(BaseModel):
    name: str
    size: int = 30

    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return f"{self.name} {self.size}"


class Order(Workflow):
    """One order."""

    customer: str
    cart: dict[str, Pizza] = {}

    @event(role={"cook", "boss"})
    def add(self, pizza: Pizza) -> list[Pizza]:
        """Put a pizza in."""
        self.cart[pizza.name] = pizza
        return list(self.cart.values())

    @event
    def submit(self) -> None: ...

    @query
    def count(self) -> int:
        """How many."""
        return len(self.cart)

    def work(self) -> None: ...

    def each(self, pizza: Pizza) -> Section[Any]:
        return S(Parallel("p", S(Step("bake", self.work)), Step("cut", self.work)), WaitEvent("next"))

    def definition(self) -> Section[int]:
        return S(
            For("shopping", True, Select("wait", On(self.add), On(self.submit, Step(self.work)))),
            Section("x", Try(S(Step("one", self.work))).Except(ValueError, Step("one", self.work)), If("i", lambda: True)),
            ForEach("pizzas", lambda: self.cart, self.each),
            Go("again", lambda: self.cart, self.each, id=lambda: "a"),
        )


def test_the_docs_have_every_schema_and_null_where_there_is_none() -> None:
    told: dict[str, Any] = docs(Order)
    assert (told["workflow"], told["description"]) == ("Order", "One order.")
    assert set(told["events"]) == {"add", "submit", "next"}
    assert told["start"]["required"] == ["customer"]
    assert list(told["start"]["properties"]) == ["customer"]
    assert told["output"]["type"] == "integer"
    add = told["events"]["add"]
    assert (add["role"], add["description"], add["awaited_at"]) == (
        ["boss", "cook"],
        "Put a pizza in.",
        ["shopping/wait"],
    )
    assert "label" not in add["input"]["properties"]
    assert "label" in str(add["output"])
    assert told["events"]["submit"] == {
        "input": None, "output": None, "role": None, "description": None, "awaited_at": ["shopping/wait"],
    }  # fmt: skip
    assert told["events"]["next"]["awaited_at"] == ["pizzas/next", "again/next"]
    assert told["queries"]["count"]["description"] == "How many."
    for schema in (
        told["start"],
        told["state"],
        told["output"],
        add["input"],
        add["output"],
        told["queries"]["count"]["output"],
    ):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        Draft202012Validator.check_schema(schema)


def test_what_the_runtime_gives_is_what_the_schemas_say() -> None:
    told: dict[str, Any] = docs(Order)
    sim = simulate(Order(customer="ann"), evict=True)
    for value in ({"name": "m"}, {"name": "n", "size": 3}):
        Draft202012Validator(told["events"]["add"]["input"]).validate(value)
        sim.send("add", value)
    Draft202012Validator(told["state"]).validate(sim.document["state"])
    answer = sim.send(Order.add, Pizza(name="o"))
    assert [pizza.label for pizza in answer] == ["m 30", "n 3", "o 30"]


ALL = [
    "shopping", "shopping/wait", "shopping/wait/submit/work", "x", "x", "x/one", "x/except ValueError/one", "x/i",
    "pizzas", "pizzas/p", "pizzas/p/bake", "pizzas/p/cut", "pizzas/next",
    "again", "again/p", "again/p/bake", "again/p/cut", "again/next",
]  # fmt: skip


def test_walk_visits_every_statement_once_and_those_before_that_stand_before() -> None:
    paths: list[str] = []
    statements: list[Statement[Any]] = []

    def visit(path: str, statement: Statement[Any]) -> None:
        paths.append(path)
        statements.append(statement)

    walk(Order, visit)
    assert paths == ALL
    assert len({id(statement) for statement in statements}) == len(ALL)


@pytest.mark.parametrize("closed", ["shopping", "pizzas", "again", "pizzas/p"])
def test_false_does_not_go_inside(closed: str) -> None:
    paths: list[str] = []

    def visit(path: str, statement: Statement[Any]) -> bool:
        paths.append(path)
        return path != closed

    walk(Order, visit)
    assert paths == [path for path in ALL if not path.startswith(f"{closed}/")]


def test_walk_takes_a_statement_too() -> None:
    paths: list[str] = []
    walk(S(Section("a", WaitEvent("b")), WaitEvent("c")), lambda path, statement: paths.append(path))
    assert paths == ["a", "a/b", "c"]


@pytest.mark.parametrize("path", [path for path in ALL if path != "x"])
def test_find_gives_the_statement_at_a_path(path: str) -> None:
    assert find(Order, path).name == path.rpartition("/")[2]


def test_find_names_what_comes_near() -> None:
    with pytest.raises(NotFound, match="pizzas/p/bake"):
        find(Order, "pizzas/bake")


def test_the_tree_as_json_has_every_statement_at_its_place() -> None:
    def paths(node: Any) -> list[str]:
        below = [*node.get("body", ()), *node.get("cases", ()), *node.get("finally", ())]
        return [node["path"], *(path for one in below for path in paths(one))]

    tree: Any = definition_json(Order)
    assert (tree["kind"], tree["name"]) == ("workflow", "Order")
    assert set(ALL) <= set(paths(tree))
    kinds = {node["kind"] for node in tree["body"]}
    assert kinds == {"for", "section", "foreach", "go"}
