"""The linked tree: names, paths, addresses, what comes next, and the bodies of live items."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from asyncflow import (
    After,
    Break,
    Case,
    Default,
    Defines,
    For,
    ForEach,
    Go,
    If,
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
    With,
    Workflow,
)
from asyncflow.retry import Retry
from asyncflow.tree import END, PSEUDO, ItemGone, ItemsFailed, Place, Scope, in_order, link_definition


def act() -> None: ...


def yes() -> bool:
    return True


def paths(scope: Scope) -> dict[str, str]:
    return {place.at: place.path for place in scope.places.values() if place.kind not in PSEUDO}


def step(name: str) -> Step:
    return Step(name, act)


def test_what_is_transparent_has_an_address_and_no_path() -> None:
    scope = link_definition(S(Try(step("a"), S(step("b"))).Finally(step("a")), Switch(Case("c", yes, step("a")))))
    assert paths(scope) == {
        "try": "",
        "try/a": "a",
        "try/b": "b",
        "try/finally/a": "finally/a",
        "switch": "",
        "switch/c/a": "c/a",
    }
    assert scope.problems == []


def test_names_and_kinds_make_paths() -> None:
    scope = link_definition(
        S(
            Select("s", On("e", step("x")), After(timedelta(1), step("x")), After(timedelta(2), step("x"))),
            If("i", yes, step("x")).Elif("o", yes, step("x")).Else(step("x")),
            Section("t", Try(step("x")).Except((ValueError, KeyError), step("x")).Except(OSError, step("x"))),
            Switch("w", Default(step("x"))),
            Parallel("p", step("x"), S(step("y")), Section("z", step("x"))),
            WaitEvent("short", step("x")),
            Return(),
            Return(),
        )
    )
    assert scope.problems == []
    assert set(paths(scope).values()) == {
        "s", "s/e/x", "s/after/x", "s/after 2/x",
        "i", "i/x", "i/o/x", "i/else/x",
        "t", "t/x", "t/except ValueError|KeyError/x", "t/except OSError/x",
        "w", "w/default/x",
        "p", "p/x", "p/y", "p/z", "p/z/x",
        "short", "short/x",
        "return", "return 2",
    }  # fmt: skip


@pytest.mark.parametrize(
    "section, path, word",
    [
        (S(step("a"), step("a")), "a", "taken"),
        (S(Section("x", step("a"), S(step("a")))), "x/a", "taken"),
        (S(Select("s", On("e"), On("e"))), "s/e", "taken"),
        (S(Try(step("a")), Try(step("b"))), "", "needs a name"),
        (S(step("try"), Try(step("b"))), "", "needs a name"),
        (S(*[step("a")] * 2), "", "two places"),
        (S(If("i", yes, step("else")).Else(step("b"))), "i/else", "taken"),
    ],
)
def test_what_is_doubled_is_a_problem_with_its_path(section: Section[Any], path: str, word: str) -> None:
    (problem,) = link_definition(section).problems
    assert problem.path == path
    assert word in problem.message
    assert problem.source.rpartition(":")[0].endswith("test_tree.py")


def test_successors_lead_through_bodies_and_behind_them() -> None:
    scope = link_definition(S(For("l", yes, step("a"), If("i", yes, step("b"))), step("c")))
    at = scope.places
    assert scope.first is at["l"]
    assert at["l"].first is at["l/a"]
    assert at["l/a"].next is at["l/i"]
    assert at["l/i/b"].next is at["l"]
    assert at["l/i"].next is at["l"]
    assert at["l"].next is at["c"]
    assert at["c"].next.at == END


def test_a_region_counts_the_frames_of_a_thread_in_it() -> None:
    inside = S(Try(For("l", yes, Try("t", step("a"))), Parallel("p", Try(step("b")))), step("c"))
    at = link_definition(inside).places
    depths = {name: at[name].region.depth for name in ("c", "try", "try/l", "try/l/t", "try/l/t/a", "try/p", "try/p/try/b")}
    assert depths == {"c": 1, "try": 1, "try/l": 2, "try/l/t": 2, "try/l/t/a": 3, "try/p": 2, "try/p/try/b": 2}


def test_the_innermost_with_wins_and_a_steps_own_word_before_it() -> None:
    outer, inner, own = Retry(max_attempts=1), Retry(max_attempts=2), Retry(max_attempts=3)
    minute = timedelta(minutes=1)
    scope = link_definition(
        S(
            With(retry=outer, timeout=minute, idempotent=False)(
                step("a"),
                With(retry=inner)(step("b"), Step("c", act, retry=own, idempotent=True, timeout=minute * 2)),
                Go("g", step("d")),
            ),
            step("e"),
        )
    )
    at = scope.places
    kept = {name: (at[name].retry.max_attempts, at[name].timeout, at[name].idempotent) for name in ("a", "b", "c", "g/d", "e")}
    assert kept == {
        "a": (1, minute, False),
        "b": (2, minute, False),
        "c": (3, minute * 2, True),
        "g/d": (1, minute, False),
        "e": (20, None, True),
    }


def test_statements_come_in_the_order_of_the_source_and_each_once() -> None:
    section = S(
        step("a"),
        S(step("b"), For("l", yes, S(step("c"), S(step("d"), Break())))),
        Parallel("p", S(step("e"), step("f")), step("g")),
        Try("t", S(step("h"))).Except(ValueError, S(step("i"))).Finally(S(step("j"))),
        Select("s", On("x", S(step("k")))),
    )
    names = [place.path for place in in_order(link_definition(section))]
    assert names == [
        "a", "b", "l", "l/c", "l/d", "l/break", "p", "p/e", "p/f", "p/g",
        "t", "t/h", "t/except ValueError/i", "t/finally/j", "s", "s/x/k",
    ]  # fmt: skip


# -- items -------------------------------------------------------------------------------------------------------------


class Item(BaseModel):
    n: int = 0


class Items:
    """What stands for a workflow here: a container that `items` gives, and how often a body was made."""

    def __init__(self) -> None:
        self.found: Any = {"a": Item(n=1), "b": Item(n=2)}
        self.made = 0
        self.scope = link_definition(S(ForEach("each", lambda: self.found, self.body)))

    def body(self, item: Item) -> Statement[Any]:
        self.made += 1
        if item.n < 0:
            raise ValueError("no body for this one")
        return S(step(f"n{item.n}"))

    def places(self, key: str | int) -> dict[str, Place]:
        return self.scope.item("each", key).places


def test_a_body_is_made_when_first_needed_and_again_for_another_object() -> None:
    items = Items()
    assert "each/n1" in items.places("a")
    assert "each/n1" in items.places("a")
    assert items.made == 1
    items.found["a"] = Item(n=7)
    assert "each/n7" in items.places("a")
    items.scope.forget()
    assert "each/n7" in items.places("a")
    assert items.made == 3


@pytest.mark.parametrize("found", [{}, [], (), None, {"b": Item()}])
def test_an_item_whose_key_is_not_there_is_gone(found: Any) -> None:
    items = Items()
    items.places("a")
    items.found = found
    with pytest.raises(ItemGone):
        items.places("a")


def test_an_index_behind_the_end_is_gone() -> None:
    items = Items()
    items.found = [Item(n=1)]
    assert "each/n1" in items.places(0)
    with pytest.raises(ItemGone):
        items.places(1)


def test_items_that_raise_and_bodies_that_raise_are_told_from_items_that_are_gone() -> None:
    items = Items()
    items.found["a"] = Item(n=-1)
    with pytest.raises(ItemsFailed) as failed:
        items.places("a")
    assert failed.value.path == "each"
    assert isinstance(failed.value.__cause__, ValueError)
    nothing: dict[str, dict[str, Item]] = {}
    broken = link_definition(S(ForEach("each", lambda: nothing["x"], items.body)))
    with pytest.raises(ItemsFailed) as failed:
        broken.item("each", "a")
    assert isinstance(failed.value.__cause__, KeyError)


@pytest.mark.parametrize("at", ["elsewhere", "a"])
def test_a_statement_that_has_no_items_is_not_known(at: str) -> None:
    with pytest.raises(LookupError):
        link_definition(S(step("a"))).item(at, "a")


def test_a_class_with_a_definition_can_stand_in_two_places() -> None:
    class Part:
        def definition(self) -> Section[None]:
            return S(step("a"))

    part: Defines[None] = Part()
    scope = link_definition(S(Section("x", part.definition()), Section("y", part.definition())))
    assert set(paths(scope)) == {"x", "x/a", "y", "y/a"}
    assert issubclass(Workflow, BaseModel)
