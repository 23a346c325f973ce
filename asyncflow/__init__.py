"""Durable workflows as trees of statements: `asyncflow` decides, `runner` does.

A workflow is a class: typed fields are its state, `definition()` returns a tree of statements. See docs/tutorial.md.
"""

from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import (
    AlreadyExists,
    AnswerDropped,
    AsyncflowError,
    Awaited,
    Cancelled,
    DefinitionError,
    Ended,
    Failure,
    Forbidden,
    Full,
    HandlerFailed,
    InvalidInput,
    InvalidState,
    KeyReused,
    Lost,
    Malformed,
    NotApplicable,
    NotAwaited,
    NotFound,
    Pending,
    PreconditionFailed,
    Problem,
    Rejected,
    RunawayWorkflow,
    TerminalError,
    TooLarge,
    Unauthorized,
    Unavailable,
    Uncertain,
    WorkflowCancelled,
    WorkflowFailed,
)
from asyncflow.handlers import event, query
from asyncflow.instance import Status
from asyncflow.retry import Retry
from asyncflow.schema import docs, find, walk
from asyncflow.statements import (
    After,
    At,
    Atomic,
    Break,
    Call,
    Cancel,
    Case,
    Channel,
    Commit,
    Continue,
    Default,
    Defines,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Parallel,
    Promise,
    Raise,
    Reply,
    Return,
    S,
    Section,
    Select,
    SelectCase,
    Send,
    Statement,
    Step,
    Switch,
    Try,
    WaitEvent,
    WaitFor,
    WaitOperations,
    WaitUntil,
    When,
    With,
)
from asyncflow.workflow import Context, Workflow

if TYPE_CHECKING:
    from asyncflow.testing import Held, Simulation, simulate

__all__ = [
    "After", "AlreadyExists", "AnswerDropped", "AsyncflowError", "At", "Atomic", "Awaited", "Break", "Call",
    "Cancel", "Cancelled", "Case", "Channel", "Commit", "Context", "Continue", "Default", "Defines",
    "DefinitionError", "Ended", "Failure", "For", "ForEach", "Forbidden", "Full", "Go", "HandlerFailed", "Held",
    "If", "InvalidInput", "InvalidState", "Join", "KeyReused", "Lost", "Malformed", "NotApplicable", "NotAwaited", "NotFound", "On",
    "Parallel", "Pending", "PreconditionFailed", "Problem", "Promise", "Raise", "Rejected", "Reply", "Retry",
    "Return", "RunawayWorkflow", "S", "Section", "Select", "SelectCase", "Send", "Simulation", "Statement", "Status",
    "Step", "Switch", "TerminalError", "TooLarge", "Try", "Unauthorized", "Unavailable", "Uncertain", "WaitEvent",
    "WaitFor", "WaitOperations", "WaitUntil", "When", "With", "Workflow", "WorkflowCancelled", "WorkflowFailed",
    "docs", "event", "find", "query", "simulate", "walk",
]  # fmt: skip

_KIT: Final = frozenset({"Held", "Simulation", "simulate"})


def __getattr__(name: str) -> Any:
    """Import the test kit when it is first asked for: a program that only runs workflows does not need it."""
    if name not in _KIT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asyncflow import testing  # noqa: PLC0415 - see above

    return getattr(testing, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_KIT})
