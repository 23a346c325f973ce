"""What registration says of a definition: every problem at once, each with path and source line (docs/statements.md)."""

import re
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from asyncflow import (
    After,
    At,
    Atomic,
    Break,
    Call,
    Cancelled,
    Case,
    Commit,
    Continue,
    Default,
    DefinitionError,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Parallel,
    Raise,
    Reply,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    Switch,
    Try,
    WaitEvent,
    WaitFor,
    WaitUntil,
    When,
    With,
    Workflow,
    docs,
    event,
    query,
)

DAY = timedelta(days=1)


class Item(BaseModel):
    n: int = 0

    @event
    def accept(self) -> None: ...


class Base(Workflow):
    n: int = 0
    maybe: int | None = None
    texts: list[str] = []
    items: dict[str, Item] = {}

    def f(self) -> None: ...
    def g(self) -> None: ...
    def yes(self) -> bool: ...  # type: ignore[empty-body]
    def one(self, a: int) -> int: ...  # type: ignore[empty-body]
    def text(self) -> str: ...  # type: ignore[empty-body]
    def numbers(self) -> list[int]: ...  # type: ignore[empty-body]
    def perhaps(self) -> int | None: ...
    async def later(self) -> None: ...
    def each(self) -> Iterator[int]:
        yield 1

    def each_of(self, a: str) -> Iterator[int]:
        yield 1

    async def each_later(self) -> AsyncIterator[int]:
        yield 1

    def problems(self, a: int, b: int) -> None: ...
    def untyped(self, a): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201

    @event
    def e(self, a: int) -> None: ...
    @event("e")
    def e_text(self, a: str) -> None: ...
    @event("e", role="boss")
    def e_role(self, a: int) -> None: ...
    @event("e")
    def e_output(self, a: int) -> int: ...  # type: ignore[empty-body]
    @event("e", queue=True)
    def e_queue(self, a: int) -> None: ...


Build = Callable[[Any], Any]


def problems_of(build: Build, base: type[Workflow] = Base) -> list[tuple[str, str, str]]:
    cls = type("Checked", (base,), {"definition": build, "__module__": __name__})
    try:
        docs(cls)
    except DefinitionError as error:
        return [(problem.path, problem.message, problem.source) for problem in error.problems]
    return []


NEVER, TAKEN, LOOP = "can never win", "is taken", "never block or end"

WRONG: dict[str, tuple[Build, dict[str, str]]] = {
    "doubled": (
        lambda s: S(Step(s.f), Section("x", Step(s.f), S(Step("f", s.g))), Step(s.f)),
        {"x/f": TAKEN, "f": TAKEN},
    ),
    "doubled in an item": (
        lambda s: S(ForEach("e", lambda: s.items, lambda i: S(Step(s.f), Step(s.f)))),
        {"e/f": TAKEN},
    ),
    "empty select": (lambda s: S(Select("s"), Section("x", Select("t"))), dict.fromkeys(("s", "x/t"), "for ever")),
    "break and continue outside": (
        lambda s: S(For("l", s.yes, Go("g", Break()), WaitEvent("x")), Try(Step(s.f)).Finally(Continue())),
        {"l/g/break": "outside of a loop", "finally/continue": "outside of a loop"},
    ),
    "break in a branch": (lambda s: S(For("l", s.yes, Parallel("p", Break()))), {"l/p/break": "outside of a loop"}),
    "break and return in a parallel item": (
        lambda s: S(ForEach("e", lambda: s.items, lambda i: S(If(s.yes, Break()), Return(1)), parallel=2)),
        {"e/yes/break": "side by side", "e/return": "use Continue"},
    ),
    "cases that never win": (
        lambda s: S(
            Select("s", When("w", True), When("v", s.yes)),
            If("i", True, Step(s.f)).Else(Step(s.g)),
            Switch("x", Case("c", True, Step(s.f)), Default(Step(s.g))),
            Try("t", Step(s.f)).Except(Exception).Except(ValueError),
        ),
        {"s": NEVER, "i": NEVER, "x": NEVER, "t": NEVER},
    ),
    "an event twice": (lambda s: S(Select("s", On("a"), On("a"))), {"s": NEVER, "s/a": TAKEN}),
    "handlers": (
        lambda s: S(Select("s", On(s.untyped), On("x", s.one, Step(s.f)), On("l", s.later), On("m", s.problems))),
        {"s/untyped": "no type", "s/l": "plain function", "s/m": "one input"},
    ),
    "into": (
        lambda s: S(
            Step("a", s.text, into="n"),
            Step("b", s.perhaps, into="n"),
            Step("c", s.numbers, into="texts"),
            Step("d", s.one, 1, into="nowhere"),
            Step("fine", s.one, 1, into="maybe"),
        ),
        {"a": "has the type", "b": "has the type", "c": "has the type", "d": "is no field"},
    ),
    "loops": (
        lambda s: S(
            For("a", True, If("i", s.yes, Section("empty"))),
            For("b", s.yes),
            For("c", True, Go("g", Step(s.f))),
            For("d", True, For("inner", True, Break())),
            For("fine", True, Parallel("p", Step(s.f))),
        ),
        {"a": LOOP, "b": LOOP, "c": LOOP, "d": LOOP},
    ),
    "join": (
        lambda s: S(
            Join("nobody"),
            Section("x", Go("g", Step(s.f))),
            Section("y", Go("g", Step(s.f))),
            Section("z", Join("g"), Join("x/g")),
        ),
        {"join": "no Go named", "z/join": "say its path"},
    ),
    "lambdas as names": (
        lambda s: S(Step(lambda: None), WaitUntil(lambda: True), For(lambda: True, Step(s.f))),
        {"step": "no name of its own", "waituntil": "no name of its own", "for": "no name of its own"},
    ),
    "reads the state": (lambda s: S(Step(s.f) if s.n else Step(s.g)), {"": "reads the field 'n'"}),
    "reads it into a name": (lambda s: S(WaitFor(f"w{s.n}", DAY)), {"": "reads the field 'n'"}),
    "reads an item": (
        lambda s: S(ForEach("e", lambda: s.items, lambda i: S(WaitEvent(f"w{i.n}")))),
        {"e": "reads the field 'n' of the item Item"},
    ),
    "handlers that differ": (
        lambda s: S(
            WaitEvent(s.e),
            Section("a", WaitEvent(s.e_text)),
            Section("b", WaitEvent(s.e_role)),
            Section("c", WaitEvent(s.e_output)),
            Section("d", WaitEvent(s.e_queue)),
            Section("f", WaitEvent("e")),
        ),
        {"a/e_text": "one of each",
            "b/e_role": "one of each",
            "c/e_output": "one of each",
            "d/e_queue": "one of each",
            "f/e": "one of each",
        },
    ),
    "two places": (lambda s: S(*[Step(s.f)] * 2), {"": "two places"}),
    "unnamed": (lambda s: S(Try(Step(s.f)), Try(Step(s.g))), {"": "needs a name"}),
    "arity": (
        lambda s: S(
            Step("a", s.one),
            Step("b", s.f, 1),
            Step("c", s.f, then=s.f),
            Step("d", s.one, 1, undo=s.f),
            If("i", s.one, Step(s.f)),
            WaitFor("w", s.one),
            Go("g", Step(s.f), id=s.one),
            Try("t", Step(s.f)).Except(ValueError, s.f),
            ForEach("e", s.one, lambda i: S(Step(s.f))),
            If("later", s.later, Step(s.f)),
        ),
        {
            **dict.fromkeys(("a", "i", "w", "g", "e"), "takes 1"),
            **dict.fromkeys(("b", "c", "d", "t"), "takes 0"),
            "later": "async",
        },
    ),
    "names": (
        lambda s: S(Step("a/b", s.f), Step("", s.g)),
        {"a/b": "cannot stand in a path", "": "cannot stand in a path"},
    ),
    "undo in a loop": (
        lambda s: S(
            For("l", True, Step(s.f, undo=s.g)),
            For("m", True, Parallel("p", Step(s.f, undo=s.g))),
            For("fine", True, Try(Step(s.f, undo=s.g))),
        ),
        {"l/f": "undo in a For", "m/p/f": "undo in a For"},
    ),
    "at most once": (lambda s: S(Step(s.f, idempotent=False, retry=Retry())), {"f": "leave out"}),
    "no time zone": (lambda s: S(Select("s", At(datetime(2024, 1, 1)))), {"s": "no time zone"}),  # noqa: DTZ001
    "a negative delay": (
        lambda s: S(Select("s", After(-DAY)), WaitFor("w", -DAY), WaitFor("fine", DAY * 0)),
        {"s": "is negative", "w": "is negative"},
    ),
    "generators": (
        lambda s: S(
            Step(s.each),
            Step("async", s.each_later),
            Step("undone", s.f, undo=s.each),
            Step("then", s.text, then=s.each_of),
            Select("s", On(s.each_of), On("x", s.each), After(DAY, s.each), When("w", s.each)),
            ForEach("items", s.each, lambda i: S(Step(s.f))),
            Return(s.each),
            Raise(s.each),
        ),
        dict.fromkeys(("each", "async", "undone", "then", "s/each_of", "s/x", "s", "items", "return", "raise"), "is a generator"),
    ),
    "values": (
        lambda s: S(Section("a", Return(s.one)), Section("b", Return(s.later)), Section("c", Raise(s.one))),
        {"a/return": "takes 1", "b/return": "async", "c/raise": "takes 1"},
    ),
    "the text of an event": (
        lambda s: S(
            WaitEvent("e_text"),
            Select("s", On("e"), On("fine"), On("yes", s.f)),
            ForEach("each", lambda: s.items, lambda i: S(WaitEvent("accept"))),
        ),
        {"e_text": "say self.e_text", "s": "say self.e", "each/accept": "Item.accept"},
    ),
    "a name that is not there": (lambda s: S(Step(s.yess)), {"": "did you mean yes?"}),
    "a name that is nowhere": (lambda s: S(Step(s.zzz)), {"": "asks for Checked.zzz, which is not there"}),
    "unknown items": (
        lambda s: S(ForEach("e", lambda: list(s.items), lambda i: S(WaitEvent("x")))),
        {"e": "is unknown"},
    ),
    "no section": (lambda s: 3, {"": "expected S"}),
    "later": (
        lambda s: S(
            Atomic("a", Step(s.f)), Commit(), Call("c", lambda: s), Reply(1), With(persist="nothing")(Step(s.g))
        ),
        dict.fromkeys(("a", "commit", "c", "reply", ""), "later release"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_every_problem_is_reported_with_its_path_and_line(case: str) -> None:
    build, expected = WRONG[case]
    found = problems_of(build)
    told = {path: message for path, message, _ in found}
    assert {path: word for path, word in expected.items() if word not in told.get(path, "")} == {}, found
    assert set(told) == set(expected)
    for _, _, source in found:
        assert re.fullmatch(r".*test_checks\.py:\d+", source)


def test_what_a_part_has_noted_is_told_once() -> None:
    error: Any = "ValueError"
    found = problems_of(lambda s: S(Try(Step(s.f)).Except(error, Step(s.g))))
    assert [message for _, message, _ in found] == ["Except takes a class of exceptions or a tuple of them, got 'ValueError'"]


def test_a_text_beside_the_methods_of_other_items_is_fine() -> None:
    assert problems_of(lambda s: S(WaitEvent("accept"), ForEach("each", lambda: s.items, lambda i: S(WaitEvent("x"))))) == []


def test_all_problems_come_in_one_error() -> None:
    def build(self: Any) -> Any:
        return S(Select("s"), Join("nobody"), Step(self.f), Step(self.f), Break())

    assert {path for path, _, _ in problems_of(build)} == {"s", "join", "f", "break"}


FINE: dict[str, Build] = {
    "nested names": lambda s: S(Step(s.f), Section("x", Step(s.f), If(s.yes, Step(s.f)).Else(Step(s.f)))),
    "unnamed statements": lambda s: S(Return(1), Section("x", Return(2)), Raise(ValueError())),
    "a handler that may take nothing": lambda s: S(Select("s", On("a"), On(s.e), After(DAY), After(DAY * 2))),
    "a cancel caught": lambda s: S(Try(WaitEvent("x")).Except(Exception).Except(Cancelled)),
    "continue in a parallel item": lambda s: S(ForEach("e", lambda: s.items, lambda i: S(WaitEvent("x"), Continue()), parallel=2)),
    "the last resort": lambda s: S(If("i", s.yes, Step(s.f)).Elif("j", True, Step(s.g))),
    "an event in two places": lambda s: S(WaitEvent(s.e), Section("x", WaitEvent(s.e))),
    "a loop left by a return": lambda s: S(For("l", True, If(s.yes, Return(1)), WaitEvent("x"))),
}


@pytest.mark.parametrize("case", FINE)
def test_what_is_right_is_not_complained_about(case: str) -> None:
    assert problems_of(FINE[case]) == []


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["context", "definition", "copy", "model_dump", "model_fields"])
def test_a_field_that_hides_a_name_is_refused_when_the_class_is_made(name: str) -> None:
    with pytest.raises(DefinitionError, match=name):
        type("Hiding", (Workflow,), {"__annotations__": {name: int}, name: 0, "__module__": __name__})


def waiting(self: Any) -> Any:
    return S(WaitEvent("x"))


def looping(self: Any) -> Any:
    return S(ForEach("e", lambda: self.found, lambda i: S(WaitEvent("x"))))


class Private(BaseModel):
    n: int = 0
    _hidden: int = 0


class Excluded(BaseModel):
    n: int = Field(0, exclude=True)


class Renamed(BaseModel):
    n: int = Field(0, serialization_alias="written")


class Fine(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(0, alias="other")
    b: int = Field(0, validation_alias="read")
    c: int = Field(0, validation_alias=AliasChoices("one", "two"), serialization_alias="two")


@pytest.mark.parametrize(
    "annotation, build, word",
    [
        (list[Private], looping, "private attribute Private._hidden"),
        (dict[str, Private | int], looping, "private attribute Private._hidden"),
        (list[typing.Annotated[Excluded, "x"]], looping, "Excluded.n is excluded"),
        (list[Renamed], looping, "written as 'written'"),
        (dict[str, list[Renamed | None]], waiting, "written as 'written'"),
        (dict[str, list[Fine | None]], waiting, ""),
        (list[Fine], looping, ""),
    ],
)
def test_state_that_would_not_be_in_the_document_is_refused(annotation: Any, build: Build, word: str) -> None:
    fields = {"__annotations__": {"found": annotation}, "found": Field(default_factory=dict)}
    cls = type("Holding", (Workflow,), {"definition": build, "__module__": __name__, **fields})
    if not word:
        docs(cls)
        return
    with pytest.raises(DefinitionError, match=re.escape(word)):
        docs(cls)


def test_a_label_that_is_no_field_is_refused() -> None:
    class Labelled(Base, labels=("nowhere",)):
        def definition(self) -> Section[Any]:
            return S()

    with pytest.raises(DefinitionError, match="nowhere"):
        docs(Labelled)


def each(cls: type[Workflow]) -> Iterator[Any]:
    yield cls()


async def later(cls: type[Workflow]) -> Any:
    return cls()


@pytest.mark.parametrize("start, word", [(each, "is a generator"), (later, "this one is async")])
def test_a_start_that_gives_no_object_is_refused(start: Any, word: str) -> None:
    cls = type("Starting", (Workflow,), {"definition": waiting, "__module__": __name__, "start": classmethod(start)})
    with pytest.raises(DefinitionError, match=word):
        docs(cls)


def test_a_query_that_is_a_generator_is_refused() -> None:
    cls = type("Asked", (Base,), {"definition": waiting, "__module__": __name__, "listed": query(Base.each)})
    with pytest.raises(DefinitionError, match="the query is a generator"):
        docs(cls)


def test_a_keyword_that_no_workflow_takes_is_named() -> None:
    with pytest.raises(TypeError, match="Odd is given lables=: a workflow takes name= and labels="):
        type("Odd", (Workflow,), {"__module__": __name__}, lables=("a",))
