"""What all statements have in common: where they stand in the source, their name, their bodies, and their mistakes.

Constructors never raise for what registration shall report: they note a text in `problems`, leave out what cannot be
used, and go on, so that one look shows all mistakes of a definition.
"""

import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias

from typing_extensions import TypeVar

from asyncflow.retry import Retry

Out = TypeVar("Out", covariant=True, default=Any)  # noqa: PLC0105 - the word that messages of checkers show

Cond: TypeAlias = Callable[[], bool] | Literal[True]
Delay: TypeAlias = timedelta | Callable[[], timedelta | None]
Instant: TypeAlias = datetime | Callable[[], datetime | None]
Handler: TypeAlias = Callable[[], object] | Callable[[Any], object]
Persist: TypeAlias = Literal["each", "smart", "nothing"]

# Frames of this package, and of `Section[int](…)`, are not where a statement was written.
_OWN_FILES = (__file__.removesuffix("nodes.py"), typing.__file__)


class Node:
    """A statement, or a part of one that has a place of its own (a case, an arm, an `Except`).

    `kind` is one word, `name` is None where it has none, `source` is `file:line`, `problems` are its mistakes.
    """

    kind: ClassVar[str]
    name: str | None
    source: str
    problems: list[str]

    def __init__(self) -> None:
        self.name = None
        self.source = _written_at()
        self.problems = []

    def _called(self, name: object) -> None:
        """Take *name*, or that of a function in its place."""
        if isinstance(name, str):
            if not name or "/" in name:
                self.problems.append(f"the name {name!r} cannot stand in a path: it is empty or has a '/' in it")
            self.name = name
            return
        function = getattr(name, "__name__", None) if callable(name) else None
        if isinstance(function, str) and function != "<lambda>":
            self.name = function
        elif callable(name):
            self.problems.append(f"{described(name)} has no name of its own: put a name before it")
        else:
            self.problems.append(f"expected a name, or a function that has one, got {described(name)}")

    def _function(self, value: object, what: str) -> Callable[..., Any] | None:
        """Take *value* if it can be called when the walk comes to it; *what* says what it has to be."""
        if callable(value) and not isinstance(value, Node):
            return value
        self.problems.append(f"{what}, got {described(value)}")
        return None

    def _optional(self, value: object, what: str) -> Callable[..., Any] | None:
        return None if value is None else self._function(value, f"{what} must be a function")

    def _condition(self, first: object, rest: tuple[object, ...]) -> tuple[Cond | None, tuple[object, ...]]:
        """Split `[name,] cond, …` into the condition and what follows it, and take the name."""
        self._called(first)
        if not isinstance(first, str):
            cond = first
        elif rest and not isinstance(rest[0], Node):
            cond, rest = rest[0], rest[1:]
        else:
            self.problems.append("there is no condition behind the name")
            return None, rest
        if cond is True:
            return True, rest
        return self._function(cond, "a condition must be a function, not its result"), rest

    def _body(self, values: Iterable[object]) -> "tuple[Statement[Any], ...]":
        """Keep the statements among *values*; note the rest."""
        body: list[Statement[Any]] = []
        for value in values:
            if isinstance(value, Statement):
                body.append(value)
                continue
            problem = f"expected a statement, got {described(value)}"
            if isinstance(value, Node):
                problem += ": it belongs directly into its Select or Switch"
            elif hasattr(value, "__name__"):
                problem += ": wrap it in Step(...)"
            self.problems.append(problem)
        return tuple(body)

    def _handled(self, values: tuple[object, ...]) -> "tuple[Callable[..., Any] | None, tuple[Statement[Any], ...]]":
        """Split `[handler,] *body`."""
        if values and callable(values[0]) and not isinstance(values[0], Node):
            return values[0], self._body(values[1:])
        return None, self._body(values)


class Statement(Node, Generic[Out]):
    """One statement of a definition; `Out` is what a `Return` inside gives. Plain data, which no tree writes into.

    `available` is False for statements that a later release brings.
    """

    available: ClassVar[bool] = True


@dataclass(frozen=True)
class Defaults:
    """What a region says for each step inside; None: nothing. A step's own word wins, then the innermost region."""

    retry: Retry | None = None
    timeout: timedelta | None = None
    idempotent: bool | None = None
    persist: Persist | None = None


class Section(Statement[Out]):
    """`Section("review", …)`: a named scope. `S(…)` is the same without a name, transparent to paths."""

    kind: ClassVar[str] = "section"
    body: tuple[Statement[Any], ...]
    defaults: Defaults | None

    def __init__(self, name: str, /, *body: Statement[Out]) -> None:
        super().__init__()
        self._called(name)
        self.body = self._body(body)
        self.defaults = None


def S(*body: Statement[Out]) -> Section[Out]:  # noqa: N802 - statements are written with a capital
    """Put statements in a row."""
    section = Section("S", *body)
    section.name = None
    return section


class Defines(Protocol[Out]):
    """Anything with a definition that returns `Out`."""

    def definition(self) -> Section[Out]:
        """The body."""
        ...


def described(value: object) -> str:
    """Say in a few words what *value* is, without asking it (its own `__repr__` may read a blank)."""
    if isinstance(value, Node):
        return type(value).__name__ if value.name is None else f"{type(value).__name__}({value.name!r})"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    function = getattr(value, "__name__", None) if callable(value) else None
    if function == "<lambda>":
        return "a lambda"
    if isinstance(function, str):
        return f"the function {function}"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return f"an object of {type(value).__name__}"


def _written_at() -> str:
    frame = sys._getframe(1)  # noqa: SLF001 - `inspect.stack` reads files, a thousand times slower
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN_FILES):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
