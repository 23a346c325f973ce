"""Threads of an interpreted program: where they stand, what they wait for, what leaves a statement."""

import dataclasses
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.property.programs import Go, Item, Join, Node, Policy, Step, WaitCase

BASES = {"Bang": ("Bang", "Boom", "Exception"), "Boom": ("Boom", "Exception"), "Cancelled": ("Cancelled",)}
BASES["TerminalError"] = ("TerminalError", "Exception")
DEFAULT_POLICY = Policy(max_attempts=20, delay=0, exhausted="pause")  # delay 0 stands for the default's seconds
DEFAULT_DELAYS = (timedelta(seconds=1), timedelta(minutes=15))  # first delay, and where growing ends


class Signal(Exception):
    """What leaves a statement otherwise than at its end."""


@dataclass
class Returned(Signal):
    value: object


class Broke(Signal):
    pass


class Continued(Signal):
    pass


@dataclass
class Raised(Signal):
    type: str
    message: str = ""


class Stopped(Signal):
    """A cancel."""

    type = "Cancelled"
    message = ""


@dataclass(eq=False)
class Ref:
    """An item of one pass of a loop, looked up afresh whenever it is needed."""

    over: str
    key: Any


@dataclass
class Gone(Signal):
    """The item *ref* of this thread's own loop has been deleted: nothing between here and the loop runs any more."""

    ref: Ref


@dataclass
class Entry:
    """A finished step that can be undone, with its item as it was then."""

    seq: int
    step: Step
    item: Item | None


Frame = list[Entry]


@dataclass(eq=False)
class Fork:
    """A Parallel or a parallel ForEach under way; *todo*: items not begun."""

    frame: Frame
    children: "list[Thread]" = field(default_factory=list)
    error: Raised | None = None
    todo: "Iterator[tuple[str, list[Node], Place]]" = field(default_factory=lambda: iter(()))
    limit: int = 1


# -- what a thread is blocked at ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class AtStep:
    step: Step
    path: str
    item: Ref | None
    frame: Frame
    policy: Policy
    visit: int
    undoes: Entry | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    parked: Raised | None = None
    taken: bool = False

    @property
    def plain(self) -> bool:
        return self.undoes is not None or self.step.style == "plain"


@dataclass(eq=False)
class AtSelect:
    path: str
    cases: list[WaitCase]
    deadlines: list[datetime | None]
    item: Ref | None


@dataclass(eq=False)
class AtJoin:
    path: str
    join: Join


@dataclass(eq=False)
class AtFork:
    path: str
    fork: Fork


@dataclass(eq=False)
class Ready:
    """Between what has been left and the Except or Finally that takes over: the thread walks on in its turn.

    *last*: behind a handler of an Except, which may have replaced its item; the other threads have their turn first.
    """

    path: str = ""
    last: bool = False


Block = AtStep | AtSelect | AtJoin | AtFork | Ready
Walk = Generator[Block, Any, Any]
Guarded = Generator[Block, Any, Signal | None]


@dataclass(eq=False)
class Thread:
    id: str
    go: Go | None = None
    fork: Fork | None = None
    creator: "Thread | None" = None
    refs: list[Ref] = field(default_factory=list)  # items inherited, then those of own loops
    inherited: int = 0
    frames: list[Frame] = field(default_factory=lambda: [[]])
    gen: Walk | None = None
    block: Block | None = None
    outcome: tuple[object] | Signal | None = (None,)  # what the walk gets when it goes on
    shields: int = 0  # Finally and undo around the place, which a cancel does not interrupt
    shielded: bool = False  # a branch begun in a Finally is part of it: a cancel of the instance does not interrupt it
    cancelled: bool = False
    owed: bool = False  # a cancel that has not been raised yet


@dataclass(frozen=True)
class Place:
    """Where a walk is: its thread, prefix of paths, nearest undo frame, innermost item, default policy."""

    thread: Thread
    prefix: str
    frame: Frame
    item: Ref | None = None
    policy: Policy = DEFAULT_POLICY

    def path(self, name: str) -> str:
        return f"{self.prefix}{name}"

    def within(self, *names: str, **changes: Any) -> "Place":
        return dataclasses.replace(self, prefix=self.prefix + "".join(f"{name}/" for name in names), **changes)
