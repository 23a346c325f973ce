"""The statements a definition is made of. Each is plain data; the tree of a workflow links them.

What they mean is in the guide; here is what they take and what they keep. Every callable they keep is called when the
walk comes to it. Misuse is noted in `problems` and reported when the workflow is registered.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Never, overload

from typing_extensions import TypeVar

from asyncflow.between import Call, Cancel, Channel, Promise, Reply, Send, WaitOperations
from asyncflow.cases import After, At, On, Select, SelectCase, WaitEvent, WaitFor, WaitUntil, When
from asyncflow.errors import ErrorTypes, Failure
from asyncflow.nodes import (
    Cond,
    Defaults,
    Defines,
    Delay,
    Handler,
    Instant,
    Node,
    Out,
    S,
    Section,
    Statement,
    described,
)
from asyncflow.steps import Atomic, Commit, Step, With

__all__ = [
    "After",
    "Arm",
    "At",
    "Atomic",
    "Break",
    "Call",
    "Cancel",
    "Case",
    "Channel",
    "Commit",
    "Cond",
    "Continue",
    "Default",
    "Defaults",
    "Defines",
    "Delay",
    "ExceptClause",
    "For",
    "ForEach",
    "Go",
    "Handler",
    "If",
    "Instant",
    "Join",
    "Node",
    "On",
    "Parallel",
    "Promise",
    "Raise",
    "Reply",
    "Return",
    "S",
    "Section",
    "Select",
    "SelectCase",
    "Send",
    "Statement",
    "Step",
    "Switch",
    "Try",
    "WaitEvent",
    "WaitFor",
    "WaitOperations",
    "WaitUntil",
    "When",
    "With",
]

Item = TypeVar("Item")
# Without the default, pyright makes an empty body Unknown, and refuses what is chained behind it.
More = TypeVar("More", default=Never)


class Arm(Node):
    """One condition of an `If` with its body."""

    kind: ClassVar[str] = "if"
    cond: Cond | None
    body: tuple[Statement[Any], ...]

    def __init__(self, first: object, rest: tuple[object, ...]) -> None:
        super().__init__()
        self.cond, rest = self._condition(first, rest)
        self.body = self._body(rest)


class If(Statement[Out]):
    """Run the body of the first true condition; `otherwise` is the body of `Else`, None without one."""

    kind: ClassVar[str] = "if"
    arms: list[Arm]
    otherwise: tuple[Statement[Any], ...] | None

    @overload
    def __init__(self, cond: Callable[[], bool], /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: str | Callable[[], bool], /, *rest: Any) -> None:
        super().__init__()
        self.arms = [Arm(first, rest)]
        self.otherwise = None
        self.name = self.arms[0].name

    @overload
    def Elif(self, cond: Callable[[], bool], /, *body: Statement[More]) -> "If[Out | More]": ...
    @overload
    def Elif(self, name: str, cond: Cond, /, *body: Statement[More]) -> "If[Out | More]": ...
    def Elif(self, first: str | Callable[[], bool], /, *rest: Any) -> "If[Any]":
        """Add a condition that is looked at when those before are false."""
        arm = Arm(first, rest)
        if self.otherwise is not None:
            arm.problems.append("an Elif after the Else is never reached")
        self.arms.append(arm)
        return self

    def Else(self, *body: Statement[More]) -> "Statement[Out | More]":
        """Say what runs when no condition is true."""
        if self.otherwise is not None:
            self.problems.append("a second Else")
        self.otherwise = self._body(body)
        return self


class Case(Node, Generic[Out]):
    """One condition of a `Switch` with its body."""

    kind: ClassVar[str] = "case"
    cond: Cond | None
    body: tuple[Statement[Any], ...]

    @overload
    def __init__(self, cond: Callable[[], bool], /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: str | Callable[[], bool], /, *rest: Any) -> None:
        super().__init__()
        self.cond, rest = self._condition(first, rest)
        self.body = self._body(rest)


class Default(Node, Generic[Out]):
    """What a `Switch` runs when no case is true."""

    kind: ClassVar[str] = "default"
    body: tuple[Statement[Any], ...]

    def __init__(self, *body: Statement[Out]) -> None:
        super().__init__()
        self.body = self._body(body)


class Switch(Statement[Out]):
    """Run the first case that is true."""

    kind: ClassVar[str] = "switch"
    cases: tuple[Case[Any] | Default[Any], ...]

    @overload
    def __init__(self, name: str, /, *cases: Case[Out] | Default[Out]) -> None: ...
    @overload
    def __init__(self, *cases: Case[Out] | Default[Out]) -> None: ...
    def __init__(self, *given: Any) -> None:
        super().__init__()
        if given and isinstance(given[0], str):
            self._called(given[0])
            given = given[1:]
        self.cases = tuple(case for case in given if isinstance(case, Case | Default))
        self.problems += [
            f"expected a Case or a Default, got {described(case)}" for case in given if not isinstance(case, Case | Default)
        ]
        if any(isinstance(case, Default) for case in self.cases[:-1]):
            self.problems.append("the Default is the last of a Switch, and the only one")


class For(Statement[Out]):
    """Repeat the body while a condition is true."""

    kind: ClassVar[str] = "for"
    cond: Cond | None
    body: tuple[Statement[Any], ...]

    @overload
    def __init__(self, cond: Callable[[], bool], /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: str | Callable[[], bool], /, *rest: Any) -> None:
        super().__init__()
        self.cond, rest = self._condition(first, rest)
        self.body = self._body(rest)


class ForEach(Statement[Out]):
    """Run a body for each item of a list or dict of the state; `body` makes it for one item."""

    kind: ClassVar[str] = "foreach"
    items: Callable[..., Any] | None
    body: Callable[..., Any] | None
    parallel: int

    def __init__(
        self,
        name: str,
        items: Callable[[], Mapping[str, Item] | Sequence[Item]],
        body: Callable[[Item], Statement[Out]],
        /,
        *,
        parallel: int = 1,
    ) -> None:
        super().__init__()
        self._called(name)
        self.items = self._function(items, "the items must be a function")
        self.body = self._function(body, "the body of an item must be a function of it")
        self.parallel = parallel
        count: object = parallel
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            self.problems.append(f"parallel= is how many items run side by side, at least 1, got {described(count)}")


class Break(Statement[Never]):
    """Leave the innermost loop of the thread."""

    kind: ClassVar[str] = "break"


class Continue(Statement[Never]):
    """Go on with the next pass of the innermost loop of the thread."""

    kind: ClassVar[str] = "continue"


class Go(Statement[Never]):
    """Begin a thread: of `body`, or of `item_body` for the item of `items` that `id` names."""

    kind: ClassVar[str] = "go"
    body: tuple[Statement[Any], ...]
    items: Callable[..., Any] | None
    item_body: Callable[..., Any] | None
    id: Callable[..., Any] | None

    @overload
    def __init__(self, name: str, /, *body: Statement[Any], id: Callable[[], str] | None = None) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        items: Callable[[], Mapping[str, Item]],
        body: Callable[[Item], Statement[Any]],
        /,
        *,
        id: Callable[[], str],
    ) -> None: ...
    def __init__(self, name: str, /, *rest: Any, id: Callable[[], str] | None = None) -> None:
        super().__init__()
        self._called(name)
        self.id = self._optional(id, "id=")
        self.items = self.item_body = None
        if len(rest) == 2 and not isinstance(rest[0], Node) and not isinstance(rest[1], Node):
            self.body = ()
            self.items = self._function(rest[0], "the items must be a function")
            self.item_body = self._function(rest[1], "the body of an item must be a function of it")
            if id is None:
                self.problems.append("a thread of an item needs id=, the key of its item")
        else:
            self.body = self._body(rest)


class Join(Statement[Never]):
    """Wait until no thread of these `Go` is alive; without names, of any."""

    kind: ClassVar[str] = "join"
    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        super().__init__()
        given: tuple[object, ...] = names
        self.names = tuple(name for name in given if isinstance(name, str))
        self.problems += [f"expected the name of a Go, got {described(name)}" for name in given if not isinstance(name, str)]


class Parallel(Statement[Never]):
    """Run the branches side by side, each in a thread, and wait for all."""

    kind: ClassVar[str] = "parallel"
    branches: tuple[Statement[Any], ...]

    def __init__(self, name: str, /, *branches: Statement[Any]) -> None:
        super().__init__()
        self._called(name)
        self.branches = self._body(branches)


class Return(Statement[Out]):
    """End the thread with a value, or with what a function gives then; `has_value` is False for a bare one."""

    kind: ClassVar[str] = "return"
    value: Any
    has_value: bool

    @overload
    def __init__(self: "Return[None]") -> None: ...
    @overload
    def __init__(self, value: Callable[[], Out], /) -> None: ...
    @overload
    def __init__(self, value: Out, /) -> None: ...
    def __init__(self, *value: Any) -> None:
        super().__init__()
        self.has_value = bool(value)
        self.value = value[0] if value else None
        if len(value) > 1:
            self.problems.append(f"a Return has one value, got {len(value)}")


class Raise(Statement[Never]):
    """Raise an error, or the one a function gives then."""

    kind: ClassVar[str] = "raise"
    error: Exception | Callable[..., Any] | None

    def __init__(self, error: Exception | Callable[[], Exception], /) -> None:
        super().__init__()
        self.error = error if isinstance(error, Exception) else self._function(error, "an error must be an exception or a function")


class ExceptClause(Node):
    """One `Except` of a `Try`: what it takes, its handler (None: none) and its body."""

    kind: ClassVar[str] = "except"
    types: ErrorTypes
    handler: Callable[..., Any] | None
    body: tuple[Statement[Any], ...]

    def __init__(self, error: object, rest: tuple[object, ...]) -> None:
        super().__init__()
        given = error if isinstance(error, tuple) else (error,)
        self.types = tuple(kind for kind in given if isinstance(kind, type) and issubclass(kind, BaseException))
        if len(self.types) < len(given) or not given:
            self.problems.append(f"Except takes a class of exceptions or a tuple of them, got {described(error)}")
        self.handler, self.body = self._handled(rest)


class Try(Statement[Out]):
    """Run the body; what its errors meet follows in `Except` and `Finally`."""

    kind: ClassVar[str] = "try"
    body: tuple[Statement[Any], ...]
    handlers: list[ExceptClause]
    final: tuple[Statement[Any], ...] | None

    @overload
    def __init__(self, name: str, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, *body: Statement[Out]) -> None: ...
    def __init__(self, *body: Any) -> None:
        super().__init__()
        if body and isinstance(body[0], str):
            self._called(body[0])
            body = body[1:]
        self.body = self._body(body)
        self.handlers = []
        self.final = None

    @overload
    def Except(
        self, error: type[BaseException] | tuple[type[BaseException], ...], /, *body: Statement[More]
    ) -> "Try[Out | More]": ...
    @overload
    def Except(
        self,
        error: type[BaseException] | tuple[type[BaseException], ...],
        handler: Callable[[Failure], object],
        /,
        *body: Statement[More],
    ) -> "Try[Out | More]": ...
    def Except(self, error: Any, /, *rest: Any) -> "Try[Any]":
        """Say what runs after an error of a class, first its handler and then the body."""
        clause = ExceptClause(error, rest)
        if self.final is not None:
            clause.problems.append("an Except stands before the Finally")
        self.handlers.append(clause)
        return self

    def Finally(self, *body: Statement[More]) -> "Statement[Out | More]":
        """Say what runs in any case."""
        if self.final is not None:
            self.problems.append("a second Finally")
        self.final = self._body(body)
        return self
