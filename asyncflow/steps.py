"""`Step`, the place for side effects, and the statements that say how steps inside them are kept."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, Never, TypeVar, TypeVarTuple, overload

from asyncflow.nodes import Defaults, Out, Persist, S, Section, Statement, described
from asyncflow.retry import Retry

Args = TypeVarTuple("Args")
Given = TypeVarTuple("Given")
Result = TypeVar("Result")


class Step(Statement[Never]):
    """The place for side effects: a function, called with *args*."""

    kind: ClassVar[str] = "step"
    action: Callable[..., Any] | None
    args: tuple[Any, ...]
    then: Callable[..., Any] | None
    into: str | None
    undo: Callable[..., Any] | None
    retry: Retry | None
    timeout: timedelta | None
    idempotent: bool | None

    @overload
    def __init__(
        self,
        action: Callable[[*Args], Awaitable[Result]],
        /,
        *args: *Args,
        then: Callable[[Result], object] | None = None,
        into: str | None = None,
        undo: Callable[[*Args], object] | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        idempotent: bool | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        action: Callable[[*Args], Result],
        /,
        *args: *Args,
        then: Callable[[Result], object] | None = None,
        into: str | None = None,
        undo: Callable[[*Args], object] | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        idempotent: bool | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        action: Callable[[*Args], Awaitable[Result]],
        /,
        *args: *Args,
        then: Callable[[Result], object] | None = None,
        into: str | None = None,
        undo: Callable[[*Args], object] | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        idempotent: bool | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        action: Callable[[*Args], Result],
        /,
        *args: *Args,
        then: Callable[[Result], object] | None = None,
        into: str | None = None,
        undo: Callable[[*Args], object] | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        idempotent: bool | None = None,
    ) -> None: ...
    def __init__(
        self,
        *given: *Given,  # pyright: ignore[reportInvalidTypeVarUse] - mypy takes no *Any for *Args
        then: Callable[[Any], object] | None = None,
        into: str | None = None,
        undo: Callable[..., object] | None = None,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        idempotent: bool | None = None,
    ) -> None:
        super().__init__()
        self._named_action(given)
        self.then = self._optional(then, "then=")
        self.into = into
        self.undo = self._optional(undo, "undo=")
        self.retry, self.timeout, self.idempotent = retry, timeout, idempotent
        if then is not None and into is not None:
            self.problems.append("then= and into= both take the result: choose one")
        field: object = into
        if not (field is None or isinstance(field, str)):
            self.problems.append(f"into= is the name of a field, got {described(field)}")
        self.problems += _problems_of_options(retry, timeout, idempotent)

    def _named_action(self, given: tuple[Any, ...]) -> None:
        """Take `[name,] action, *args`."""
        if not given:
            raise TypeError("Step() takes an action: Step([name,] action, *args)")
        if isinstance(given[0], str):
            self._called(given[0])
            given = given[1:]
        elif callable(given[0]):
            self._called(given[0])
        if given:
            self.action, self.args = self._function(given[0], "an action must be a function, not its result"), given[1:]
        else:
            self.action, self.args = None, ()
            self.problems.append("there is no action behind the name")


class With:
    """`With(retry=…)(*body)`: the same keywords as `Step`, as defaults for each step inside; the innermost wins."""

    defaults: Defaults
    problems: list[str]

    def __init__(
        self,
        *,
        retry: Retry | None = None,
        timeout: timedelta | None = None,
        idempotent: bool | None = None,
        persist: Persist | None = None,
    ) -> None:
        self.defaults = Defaults(retry, timeout, idempotent, persist)
        self.problems = _problems_of_options(retry, timeout, idempotent, persist)

    def __call__(self, *body: Statement[Out]) -> Section[Out]:
        """Make the region."""
        section = S(*body)
        section.defaults = self.defaults
        section.problems += self.problems
        return section


class Atomic(Statement[Never]):
    """Several steps that are one: one lease, no save inside."""

    kind: ClassVar[str] = "atomic"
    available: ClassVar[bool] = False
    body: tuple[Statement[Any], ...]

    def __init__(self, name: str, /, *body: Step) -> None:
        super().__init__()
        self._called(name)
        self.body = self._body(body)
        self.problems += [f"expected a Step, got {described(step)}" for step in self.body if not isinstance(step, Step)]


class Commit(Statement[Never]):
    """Save here, and wait until as many replicas have it."""

    kind: ClassVar[str] = "commit"
    available: ClassVar[bool] = False
    replicas: int
    timeout: timedelta | None

    def __init__(self, replicas: int = 0, timeout: timedelta | None = None) -> None:
        super().__init__()
        self.replicas = replicas
        self.timeout = timeout


def _problems_of_options(retry: object, timeout: object, idempotent: object, persist: object = None) -> list[str]:
    problems: list[str] = []
    if not (retry is None or isinstance(retry, Retry)):
        problems.append(f"retry= is a Retry, got {described(retry)}")
    if timeout is not None and (not isinstance(timeout, timedelta) or timeout <= timedelta(0)):
        problems.append(f"timeout= is a timedelta above zero, got {described(timeout)}")
    if not (idempotent is None or isinstance(idempotent, bool)):
        problems.append(f"idempotent= is True or False, got {described(idempotent)}")
    if persist not in {None, "each", "smart", "nothing"}:
        problems.append(f"persist= is 'each', 'smart' or 'nothing', got {described(persist)}")
    return problems
