"""`Select`, the one statement that waits, its cases, and the waits of one case."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, overload

from asyncflow.nodes import Cond, Delay, Handler, Instant, Node, Out, Statement, described


class SelectCase(Node, Generic[Out]):
    """What a `Select` may wait for, the handler that runs first (None: none), and the body that follows."""

    handler: Callable[..., Any] | None
    body: tuple[Statement[Any], ...]


class On(SelectCase[Out]):
    """Wait for an event: a method, a name without input, or a method under another name.

    `event` is the name that was given, None where the method has its own.
    """

    kind: ClassVar[str] = "on"
    event: str | None

    @overload
    def __init__(self, handler: Handler, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, event: str, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, event: str, handler: Handler, /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: str | Handler, /, *rest: Any) -> None:
        super().__init__()
        self._called(first)
        if isinstance(first, str):
            self.event = first
            self.handler, self.body = self._handled(rest)
        else:
            self.event = None
            self.handler, self.body = self._function(first, "an event must be a method or a name"), self._body(rest)


class After(SelectCase[Out]):
    """Wait for a time to pass since the `Select` was entered; a function is asked then, and None is never."""

    kind: ClassVar[str] = "after"
    delay: Delay | None

    @overload
    def __init__(self, delay: Delay, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, delay: Delay, handler: Callable[[], object], /, *body: Statement[Out]) -> None: ...
    def __init__(self, delay: Delay, /, *rest: Any) -> None:
        super().__init__()
        self.delay = delay if isinstance(delay, timedelta) else self._function(delay, "a delay must be a timedelta or a function")
        if isinstance(delay, timedelta) and delay < timedelta(0):
            self.problems.append(f"the delay {delay.total_seconds():g} s is negative: it would be over before the wait begins")
        self.handler, self.body = self._handled(rest)


class At(SelectCase[Out]):
    """Wait for an instant, which has a time zone; a function is asked on entering the `Select`, and None is never."""

    kind: ClassVar[str] = "at"
    instant: Instant | None

    @overload
    def __init__(self, instant: Instant, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, instant: Instant, handler: Callable[[], object], /, *body: Statement[Out]) -> None: ...
    def __init__(self, instant: Instant, /, *rest: Any) -> None:
        super().__init__()
        if isinstance(instant, datetime):
            self.instant = instant
            if instant.utcoffset() is None:
                self.problems.append(f"the instant {instant.isoformat()} has no time zone: give it one, such as UTC")
        else:
            self.instant = self._function(instant, "an instant must be a datetime or a function")
        self.handler, self.body = self._handled(rest)


class When(SelectCase[Out]):
    """Wait until a condition of the state is true."""

    kind: ClassVar[str] = "when"
    cond: Cond | None

    @overload
    def __init__(self, cond: Callable[[], bool], /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, handler: Callable[[], object], /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: str | Callable[[], bool], /, *rest: Any) -> None:
        super().__init__()
        self.cond, rest = self._condition(first, rest)
        if isinstance(first, str):
            self.handler, self.body = self._handled(rest)
        else:
            self.handler, self.body = None, self._body(rest)


class Select(Statement[Out]):
    """Wait for the first of several cases; exactly one wins."""

    kind: ClassVar[str] = "select"
    cases: tuple[SelectCase[Any], ...]

    def __init__(self, name: str, /, *cases: SelectCase[Out]) -> None:
        super().__init__()
        self._called(name)
        given: tuple[object, ...] = cases
        self.cases = tuple(case for case in given if isinstance(case, SelectCase))
        self.problems += [
            f"expected a case (On, After, At, When), got {described(case)}" for case in given if not isinstance(case, SelectCase)
        ]


class WaitEvent(Statement[Out]):
    """Wait for one event; its name is the event's."""

    kind: ClassVar[str] = "waitevent"
    case: On[Any]
    cases: tuple[On[Any]]

    @overload
    def __init__(self, handler: Handler, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, event: str, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, event: str, handler: Handler, /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: Any, /, *rest: Any) -> None:
        super().__init__()
        self.case = On(first, *rest)
        self.cases = (self.case,)
        self.name = self.case.name


class WaitFor(Statement[Out]):
    """Wait for a time to pass."""

    kind: ClassVar[str] = "waitfor"
    case: After[Any]
    cases: tuple[After[Any]]

    def __init__(self, name: str, delay: Delay, /, *body: Statement[Out]) -> None:
        super().__init__()
        self._called(name)
        self.case = After(delay)
        self.case.body = self._body(body)
        self.cases = (self.case,)


class WaitUntil(Statement[Out]):
    """Wait until a condition of the state is true; its name is the condition's."""

    kind: ClassVar[str] = "waituntil"
    case: When[Any]
    cases: tuple[When[Any]]

    @overload
    def __init__(self, cond: Callable[[], bool], /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, /, *body: Statement[Out]) -> None: ...
    @overload
    def __init__(self, name: str, cond: Cond, handler: Callable[[], object], /, *body: Statement[Out]) -> None: ...
    def __init__(self, first: Any, /, *rest: Any) -> None:
        super().__init__()
        self.case = When(first, *rest)
        self.cases = (self.case,)
        self.name = self.case.name
