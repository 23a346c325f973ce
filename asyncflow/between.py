"""Statements and field types that go between instances. A later release makes them work; their signatures stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Never, TypeVar, overload

from pydantic import BaseModel, ConfigDict

from asyncflow.errors import Failure, NotApplicable
from asyncflow.nodes import Defines, Delay, Statement

if TYPE_CHECKING:
    from asyncflow.workflow import Workflow

Input = TypeVar("Input")
Result = TypeVar("Result")
Value = TypeVar("Value")
Target = TypeVar("Target", bound="Workflow")

_AT_ONCE = timedelta(0)
# The first look comes soon after a short operation, and a long one costs six reads a minute.
_POLL = timedelta(seconds=10)


class Call(Statement[Never]):
    """Start a child and wait for its output."""

    kind: ClassVar[str] = "call"
    available: ClassVar[bool] = False
    child: Callable[..., Any] | None
    then: Callable[..., Any] | None
    into: str | None
    id: Callable[..., Any] | None

    @overload
    def __init__(
        self,
        name: str,
        child: Callable[[], Defines[Result]],
        /,
        *,
        then: Callable[[Result], object],
        id: Callable[[], str] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        child: Callable[[], Workflow],
        /,
        *,
        into: str | None = None,
        id: Callable[[], str] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        child: Callable[[], Any],
        /,
        *,
        then: Callable[[Any], object] | None = None,
        into: str | None = None,
        id: Callable[[], str] | None = None,
    ) -> None:
        super().__init__()
        self._called(name)
        self.child = self._function(child, "the child must be a function that gives a workflow")
        self.then = self._optional(then, "then=")
        self.into = into
        self.id = self._optional(id, "id=")


class Send(Statement[Never]):
    """Deliver an event to another instance, once, after *delay*."""

    kind: ClassVar[str] = "send"
    available: ClassVar[bool] = False
    event: Callable[..., Any] | None
    input: Callable[..., Any] | None
    to: Callable[..., Any] | None
    delay: Delay

    @overload
    def __init__(self, name: str, event: Callable[[Target], object], /, *, to: Callable[[], str], delay: Delay = ...) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        event: Callable[[Target, Input], object],
        input: Callable[[], Input],
        /,
        *,
        to: Callable[[], str],
        delay: Delay = ...,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        event: Callable[..., object],
        input: Callable[[], Any] | None = None,
        /,
        *,
        to: Callable[[], str],
        delay: Delay = _AT_ONCE,
    ) -> None:
        super().__init__()
        self._called(name)
        self.event = self._function(event, "an event must be a method")
        self.input = self._optional(input, "the input")
        self.to = self._function(to, "to= must be a function")
        self.delay = delay


class Reply(Statement[Never]):
    """Answer the event whose case this stands in; without it the handler's output is the answer."""

    kind: ClassVar[str] = "reply"
    available: ClassVar[bool] = False
    value: object

    def __init__(self, value: object, /) -> None:
        super().__init__()
        self.value = value


class Cancel(Statement[Never]):
    """Cancel another instance."""

    kind: ClassVar[str] = "cancel"
    available: ClassVar[bool] = False
    workflow: type[Workflow]
    id: Callable[..., Any] | None

    def __init__(self, name: str, workflow: type[Workflow], /, *, id: Callable[[], str]) -> None:
        super().__init__()
        self._called(name)
        self.workflow = workflow
        self.id = self._function(id, "id= must be a function")


class WaitOperations(Statement[Never]):
    """Wait until operations of another service have ended, asking every *poll*."""

    kind: ClassVar[str] = "waitoperations"
    available: ClassVar[bool] = False
    operations: Callable[..., Any] | None
    poll: timedelta
    timeout: timedelta | None
    on_error: Literal["raise", "collect"]

    def __init__(
        self,
        name: str,
        operations: Callable[[], Sequence[str]],
        /,
        *,
        poll: timedelta = _POLL,
        timeout: timedelta | None = None,
        on_error: Literal["raise", "collect"] = "raise",
    ) -> None:
        super().__init__()
        self._called(name)
        self.operations = self._function(operations, "the operations must be a function")
        self.poll = poll
        self.timeout = timeout
        self.on_error = on_error


class Promise(BaseModel, Generic[Value]):
    """A field completed once, from inside or outside. To wait: `WaitUntil("approved", lambda: self.approval.done)`."""

    model_config = ConfigDict(defer_build=True)

    id: str

    @property
    def url(self) -> str:
        """Where it is completed from outside."""
        raise _later("Promise")

    @property
    def done(self) -> bool:
        """Whether it is completed, with a value or an error."""
        raise _later("Promise")

    @property
    def value(self) -> Value:
        """What it was resolved with."""
        raise _later("Promise")

    @property
    def error(self) -> Failure | None:
        """What it was rejected with."""
        raise _later("Promise")

    def resolve(self, value: Value) -> bool:  # noqa: ARG002 - comes later
        """Complete it; False where it was completed before."""
        raise _later("Promise")

    def reject(self, message: str, *, code: int = 500) -> bool:  # noqa: ARG002 - comes later
        """Complete it with an error; False where it was completed before."""
        raise _later("Promise")


class Channel(BaseModel, Generic[Value]):
    """A field. To receive: `When("a job", lambda: self.jobs.ready, self.take_job)`; the handler runs once."""

    model_config = ConfigDict(defer_build=True)

    size: int = 0

    @property
    def ready(self) -> bool:
        """Whether there is something to receive."""
        raise _later("Channel")

    @property
    def full(self) -> bool:
        """Whether a `send` would be refused."""
        raise _later("Channel")

    @property
    def closed(self) -> bool:
        """Whether nothing more is sent."""
        raise _later("Channel")

    def send(self, value: Value) -> None:  # noqa: ARG002 - comes later
        """Put *value* behind the others."""
        raise _later("Channel")

    def receive(self) -> Value:
        """Take the first."""
        raise _later("Channel")

    def close(self) -> None:
        """Send nothing more; what lies there can still be received."""
        raise _later("Channel")


def _later(kind: str) -> NotApplicable:
    return NotApplicable(f"{kind} comes with a later release")
