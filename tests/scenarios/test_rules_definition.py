"""Registration reports every problem of a definition at once, each with path and source line."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Never

import pytest
from pydantic import BaseModel, Field, PrivateAttr

from asyncflow import (
    Atomic,
    Break,
    Call,
    Case,
    Continue,
    DefinitionError,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Parallel,
    Reply,
    Retry,
    Return,
    S,
    Section,
    Select,
    Statement,
    Step,
    Switch,
    Try,
    WaitEvent,
    When,
    With,
    Workflow,
    docs,
    event,
    simulate,
)
from tests.scenarios.traced import Traced

HOUR = timedelta(hours=1)


class Item(BaseModel):
    name: str = ""


class Base(Traced):
    """Words for definitions that cannot work."""

    n: int = 0
    text: str = ""
    ready: bool = False
    items: dict[str, Item] = {}

    @event
    def ev(self) -> None: ...

    @event
    def number(self, n: int) -> None: ...

    @event("number")
    def other_number(self, text: str) -> None: ...

    @event("number")
    def same_number(self, n: int) -> None: ...

    def count(self) -> int:
        return 1

    def item_step(self, item: Item) -> int:
        return 1


def problems(workflow: type[Workflow]) -> dict[str, str]:
    """Give the problems that registration reports: path and message."""
    with pytest.raises(DefinitionError) as refused:
        docs(workflow)
    assert refused.value.problems
    return {problem.path: problem.message for problem in refused.value.problems}


def of_body(*body: Any) -> dict[str, str]:
    """Give the problems of a definition made by callables of the blank, one for each statement."""

    class Wrong(Base):
        def definition(self) -> Section[Any]:
            return S(*(make(self) for make in body))

    return problems(Wrong)


class Many(Base):
    def definition(self) -> Section[None]:
        return S(
            Step("twice", self.mark, "a"),
            Step("twice", self.mark, "b"),
            Select("empty"),
            Section("inner", Break(), Join("nobody")),
        )


def test_all_problems_are_reported_at_once_each_with_its_source_line() -> None:
    with pytest.raises(DefinitionError) as refused:
        docs(Many)
    found = refused.value.problems
    paths = " ".join(problem.path for problem in found)
    assert len(found) >= 4
    for path in ("twice", "empty", "inner/break", "inner/join"):
        assert path in paths
    lines = Path(__file__).read_text().splitlines()
    for problem in found:
        place = re.search(r"test_rules_definition\.py:(\d+)", problem.source)
        assert place is not None, problem.source
        assert lines.index("class Many(Base):") < int(place[1]) < lines.index("class Many(Base):") + 9


def test_simulate_refuses_what_registration_refuses() -> None:
    with pytest.raises(DefinitionError):
        simulate(Many())


def test_a_name_that_stands_twice_among_siblings() -> None:
    assert "a" in of_body(lambda w: Step("a", w.count), lambda w: Step("a", w.count))
    assert of_body(lambda w: Step(w.count), lambda w: Section("s", Step(w.count)), lambda w: Step("count", w.count))


def test_a_second_try_without_a_name() -> None:
    """docs/statements.md: what is transparent shares the names around it."""
    assert of_body(
        lambda w: Try(Step("a", w.count)).Finally(Step("f", w.count)),
        lambda w: Try(Step("b", w.count)).Finally(Step("f", w.count)),
    )


def test_a_second_switch_without_a_name() -> None:
    assert of_body(
        lambda w: Switch(Case("a", lambda: w.ready, Step("x", w.count))),
        lambda w: Switch(Case("b", lambda: w.ready, Step("y", w.count))),
    )


def test_a_statement_object_that_stands_in_two_places() -> None:
    step = Step("a", Item)
    assert of_body(lambda w: Section("one", step), lambda w: Section("two", step))


def test_a_select_without_cases() -> None:
    assert "s" in of_body(lambda w: Select("s"))


def test_a_break_or_continue_outside_a_loop() -> None:
    assert "break" in of_body(lambda w: Break())
    assert "if/continue" in of_body(lambda w: If("if", lambda: w.ready, Continue()))


def test_a_break_of_a_loop_of_another_thread() -> None:
    """docs/statements.md: the innermost loop of the same thread."""
    assert of_body(lambda w: For("loop", True, WaitEvent(w.ev), Go("g", Break())))
    assert of_body(lambda w: For("loop", True, WaitEvent(w.ev), Parallel("p", Break())))


def test_a_return_or_break_out_of_a_parallel_item() -> None:
    def one_break(item: Item) -> Section[Never]:
        return S(Break())

    def one_return(item: Item) -> Section[int]:
        return S(Return(1))

    assert of_body(lambda w: ForEach("items", lambda: w.items, one_break, parallel=2))
    assert of_body(lambda w: ForEach("items", lambda: w.items, one_return, parallel=2))


def test_a_case_that_can_never_win() -> None:
    assert of_body(lambda w: Select("s", On(w.ev), On(w.ev)))
    assert of_body(lambda w: Select("s", When("at once", True), When("late", lambda: w.ready)))


class WithoutType(Base):
    @event
    def untyped(self, value) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.untyped))


def test_a_handler_whose_input_has_no_type() -> None:
    assert "untyped" in problems(WithoutType)


class TwoInputs(Base):
    @event
    def wide(self, a: int, b: int) -> None: ...

    def definition(self) -> Section[Any]:
        handler: Any = self.wide
        return S(WaitEvent(handler))


class AsyncHandler(Base):
    @event
    async def later(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.later))


@pytest.mark.parametrize("workflow", [TwoInputs, AsyncHandler])
def test_a_handler_of_a_shape_that_does_not_exist(workflow: type[Workflow]) -> None:
    """docs/statements.md: sync, and nothing or one annotated input."""
    assert problems(workflow)


def test_an_into_field_that_does_not_exist_or_has_another_type() -> None:
    assert "count" in of_body(lambda w: Step(w.count, into="nowhere"))
    assert "count" in of_body(lambda w: Step(w.count, into="text"))


def test_a_loop_that_can_never_block_or_end() -> None:
    assert "loop" in of_body(lambda w: For("loop", True, If("never", lambda: w.ready, Section("nothing"))))
    assert "loop" in of_body(lambda w: For("loop", True, Continue()))


def test_a_join_on_a_name_that_does_not_exist() -> None:
    assert "join" in of_body(lambda w: Go("there", WaitEvent(w.ev)), lambda w: Join("nowhere"))


def test_a_join_on_a_name_in_two_places() -> None:
    """docs/statements.md: it needs its path."""
    assert of_body(
        lambda w: Section("a", Go("g", WaitEvent(w.ev))),
        lambda w: Section("b", Go("g", WaitEvent(w.ev))),
        lambda w: Join("g"),
    )


def test_two_handlers_of_one_event_that_differ() -> None:
    """docs/statements.md: one event name has one input, output and role in the whole workflow."""
    assert of_body(lambda w: WaitEvent(w.number), lambda w: Section("s", WaitEvent(w.other_number)))


class SameEvent(Base):
    def definition(self) -> Section[None]:
        return S(WaitEvent(self.number), Section("s", WaitEvent(self.same_number)))


def test_two_handlers_of_one_event_that_agree_are_allowed() -> None:
    assert docs(SameEvent)


def test_a_lambda_as_a_name() -> None:
    assert of_body(lambda w: If(lambda: w.ready, Step(w.count)))
    assert of_body(lambda w: Step(lambda: 1))


class ReadsInIf(Base):
    def definition(self) -> Section[None]:
        if self.ready:
            return S()
        return S(Step(self.count))


class ReadsInText(Base):
    def definition(self) -> Section[None]:
        return S(Step(f"step {self.n}", self.count))


class ReadsInLoop(Base):
    def definition(self) -> Section[None]:
        return S(*(Step(name, self.count) for name in self.items))


@pytest.mark.parametrize("workflow", [ReadsInIf, ReadsInText, ReadsInLoop])
def test_a_definition_that_reads_state(workflow: type[Workflow]) -> None:
    """docs/statements.md: it is built from a blank, and reported with its source line."""
    with pytest.raises(DefinitionError) as refused:
        docs(workflow)
    text = Path(__file__).read_text().splitlines()
    start = text.index(f"class {workflow.__name__}(Base):") + 1
    (problem,) = refused.value.problems
    place = re.search(r"test_rules_definition\.py:(\d+)", problem.source)
    assert place is not None
    assert start < int(place[1]) <= start + 4


def test_a_policy_on_a_step_that_runs_at_most_once() -> None:
    """Rule 17: the step's own is an error, an inherited one is ignored."""
    assert "count" in of_body(lambda w: Step(w.count, idempotent=False, retry=Retry()))


def test_an_undo_in_a_loop_without_a_try_inside() -> None:
    """Rule 32."""
    assert of_body(lambda w: For("loop", lambda: w.ready, Step("a", w.count, undo=w.count)))


class UndoInTryInLoop(Base):
    def definition(self) -> Section[None]:
        body: Statement[Never] = Try(Step("a", self.count, undo=self.count)).Except(ValueError)
        return S(For("loop", lambda: self.ready, body))


def test_an_undo_in_a_loop_with_a_try_inside_is_allowed() -> None:
    assert docs(UndoInTryInLoop)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: Atomic("a", Step("b", w.count)),
        lambda w: With(persist="nothing")(Step("b", w.count)),
        lambda w: Call("child", Base),
        lambda w: WaitEvent(w.ev, Reply("x")),
    ],
    ids=["Atomic", "persist", "Call", "Reply"],
)
def test_what_a_later_issue_brings_says_so_at_registration(make: Any) -> None:
    def body(w: Base) -> Statement[Any]:
        statement: Statement[Any] = make(w)
        return statement

    (message,) = of_body(body).values()
    assert "not" in message


def test_a_field_that_hides_a_name_of_workflow() -> None:
    """docs/statements.md: when the class is made."""
    with pytest.raises(DefinitionError, match="context"):

        class HidesContext(Workflow):
            context: str = ""  # type: ignore[assignment]

    with pytest.raises(DefinitionError, match="definition"):

        class HidesDefinition(Workflow):
            definition: str = ""  # type: ignore[assignment]

    with pytest.raises(DefinitionError, match="copy"):

        class HidesCopy(Workflow):
            copy: str = ""  # type: ignore[assignment]


class Private(Base):
    _secret: int = PrivateAttr(default=0)

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.ev))


class Excluded(Base):
    secret: int = Field(default=0, exclude=True)

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.ev))


class PrivateItem(BaseModel):
    _secret: int = PrivateAttr(default=0)


class OfPrivateItems(Base):
    rows: list[PrivateItem] = []

    def definition(self) -> Section[None]:
        return S(ForEach("rows", lambda: self.rows, lambda row: Section("one", WaitEvent(self.ev))))


@pytest.mark.parametrize("workflow", [Private, Excluded, OfPrivateItems])
def test_state_outside_the_document(workflow: type[Workflow]) -> None:
    """Rule 5: a private attribute or an excluded field of a workflow or item."""
    assert problems(workflow)


class PlainInParallel(Base):
    def definition(self) -> Section[None]:
        return S(ForEach("items", lambda: self.items, lambda item: Step(self.item_step, item), parallel=5))


def test_parallel_around_plain_steps_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="plain steps"):
        docs(PlainInParallel)
