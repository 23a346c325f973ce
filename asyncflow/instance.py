"""The document of one instance: what is stored, and nothing that could be derived.

The rules it keeps are those of the protocol (docs/protocol.md): rule 1 (fields), 2 (threads), 4 (frames). The state is not in
here as Python values: it is one JSON text beside the rest (`Instance.state`), so that a store can keep it in a column of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncflow.errors import Failure

FORMAT_VERSION: Final = 1
"""The number of the document's format. A document with a higher one is left alone (rule 23)."""


class Status(StrEnum):
    """What an instance is doing: the word an operator sees first."""

    Running = "Running"
    Paused = "Paused"
    Finished = "Finished"
    Failed = "Failed"
    Cancelled = "Cancelled"

    @property
    def ended(self) -> bool:
        """Whether the document changes no more."""
        return self in ENDED


class ThreadStatus(StrEnum):
    """What a thread is doing at its position."""

    Resuming = "Resuming"
    Executing = "Executing"
    Waiting = "Waiting"
    Paused = "Paused"


NOBODY: Final[frozenset[str]] = frozenset()

ENDED: Final = frozenset({Status.Finished, Status.Failed, Status.Cancelled})

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    Status.Running: frozenset({Status.Running, Status.Paused, *ENDED}),
    Status.Paused: frozenset({Status.Running, Status.Paused, *ENDED}),
    Status.Finished: frozenset(),
    Status.Failed: frozenset(),
    Status.Cancelled: frozenset(),
}
"""The legal moves of an instance. docs/statuses.md is drawn from this table and the next."""

THREAD_TRANSITIONS: Final[dict[ThreadStatus, frozenset[ThreadStatus]]] = {
    # Walking ends at a step, at a wait, or where a callable failed.
    ThreadStatus.Resuming: frozenset({ThreadStatus.Resuming, ThreadStatus.Executing, ThreadStatus.Waiting, ThreadStatus.Paused}),
    # A step ends well, or it needs an operator; a cancel leads from it to an undo or to the end.
    ThreadStatus.Executing: frozenset({ThreadStatus.Resuming, ThreadStatus.Executing, ThreadStatus.Waiting, ThreadStatus.Paused}),
    # A case wins, a child ends, a handler fails, or a cancel leads to an undo.
    ThreadStatus.Waiting: frozenset({ThreadStatus.Resuming, ThreadStatus.Executing, ThreadStatus.Waiting, ThreadStatus.Paused}),
    # An operator's retry or skip, a cancel.
    ThreadStatus.Paused: frozenset({ThreadStatus.Resuming, ThreadStatus.Executing, ThreadStatus.Waiting}),
}
"""The legal moves of a thread. A thread that ends leaves the document; it has no status for that."""


@dataclass(slots=True)
class Lease:
    """The right to run one attempt of one step, held by whoever knows the token (rules 12 to 15)."""

    token: str
    till: datetime | None
    """From when a write may replace the token; None once the result lies in the inbox."""
    by: str | None = None
    """The process that holds it, where processes keep locks (rule 15)."""
    alone: bool = False
    """A plain step: state and positions stay as they are while it is held (rule 13)."""
    cancel: bool = False
    """A cancel came while the action ran: its context shows it."""
    grace: datetime | None = None
    """`Cancelled` is raised when the attempt ends, and at this instant whether or not it has (rule 29)."""


@dataclass(slots=True)
class Undo:
    """A finished step that can be undone, kept by the nearest Try (rule 32)."""

    at: str
    visit: int
    done: int
    """The program counter when it finished: undos go from the highest down."""
    items: list[tuple[str, str | int, Any]] = field(default_factory=list)
    """The items around the step, outermost first: (statement, key, the item as JSON as it was then)."""


@dataclass(slots=True)
class Signal:
    """Why statements are being left: an end of a body, or one of the words that leave more than one."""

    kind: str
    """next, return, break, continue or raise."""
    value: Any = None
    """return: the output as JSON."""
    failure: Failure | None = None
    """raise: the error; a cancel is the error `Cancelled`."""


@dataclass(slots=True)
class Frame:
    """What one enclosing statement has to remember (rule 4). The first is the thread's own, with `at` empty."""

    at: str = ""
    items: list[tuple[str, str | int]] = field(default_factory=list)
    """Thread: the items around it when it began, outermost first."""
    undos: list[Undo] = field(default_factory=list)
    keys: list[str] | None = None
    """ForEach over a dict, Parallel: the keys on entry."""
    key: str | int | None = None
    """ForEach in order: the item the body is at."""
    begun: int = 0
    """Fork: how many children were begun."""
    size: int = 0
    """ForEach over a list: the longest it has been; it may only grow."""
    phase: str = ""
    """Try and thread: '' (the body), undo, except, finally, ending."""
    before: str = ""
    """The phase that the undo now running interrupted."""
    error: Failure | None = None
    """The error being undone or handled; fork: the error to go on with once the children have ended."""
    after: Signal | None = None
    """What follows a Finally."""
    cancelled: bool = False
    """Thread: `Cancelled` has been raised in it, or is to follow. Fork: it is to be raised when the children have ended."""


@dataclass(slots=True)
class Stray:
    """A position that the code which loaded the document does not know (rule 24)."""

    tries: int
    retry_at: datetime


@dataclass(slots=True)
class Thread:
    """One line of execution, standing at exactly one statement (rule 2)."""

    id: str
    name: str
    root: str
    status: ThreadStatus
    position: str
    visit: int
    since: datetime
    parent: tuple[str, int] | None = None
    """Thread and visit that wait for it; None for main and for a Go thread."""
    deadlines: dict[str, datetime | None] | None = None
    """Select: the instant of each timer by the name of its case, fixed on entering."""
    attempt: int = 0
    retry_at: datetime | None = None
    doubt: bool = False
    """An attempt of this visit was lost or timed out: whether it took effect is unknown (rule 32)."""
    losses: int = 0
    """How many attempts of this visit were lost: the first is followed at once (rule 16)."""
    error: Failure | None = None
    result: bytes | None = None
    """Parked by a fault of the code: the result that could not be applied, as JSON text (rule 18)."""
    lease: Lease | None = None
    stray: Stray | None = None
    frames: list[Frame] = field(default_factory=list)


@dataclass(slots=True)
class Message:
    """Something that happened: the one way in (rule 9)."""

    id: str
    kind: str
    """event, result, lapse, cancel, pause, resume, retry, skip; goto and edit come later."""
    at: datetime
    caller: str | None = None
    thread: str | None = None
    name: str = ""
    """Event: its name."""
    value: bytes | None = None
    """JSON text: an event's input, a result, the value of a skip."""
    keyed: bool = False
    """The sender gave the id, as Idempotency-Key."""
    hash: str = ""
    """Of what the key was used for: event, thread and body (rule 27)."""
    lain: bool = False
    """It was saved in the inbox before it was handled: its answer is kept whatever it says."""
    token: str = ""
    """Result, lapse: the lease it is about."""
    failure: Failure | None = None
    """Result: the attempt failed."""
    lost: bool = False
    """Result: the failure leaves unknown whether the action took effect (time-out)."""
    took_ms: float | None = None
    state: bytes | None = None
    """Result of a plain step, never stored: the state its action has left."""
    base: bytes | None = None
    """Result of a plain step, never stored: the state its action began with."""
    fault: bool = False
    """Result: the failure is a fault of the code, not of the world: parked at once (rule 18)."""


@dataclass(slots=True)
class Seen:
    """A message that has been handled, so that a repeat finds its answer (rule 27)."""

    id: str
    at: datetime | None = None
    hash: str = ""
    status: int = 0
    """200 and above: HTTP status of the kept answer; 0: only the id is kept."""
    answer: Any = None
    dropped: bool = False


@dataclass(slots=True)
class Cancelling:
    """A cancel under way (rule 29)."""

    since: datetime
    pc: int = 0
    main: Signal | None = None
    """What main made of it, once it has come to its end."""
    error: Failure | None = None
    """An error that left a Go thread's Finally meanwhile."""


@dataclass(slots=True)
class Failing:
    """An error has left main or a Go thread: what was done is being undone (rule 32)."""

    since: datetime
    thread: str
    error: Failure


@dataclass(slots=True)
class Control:
    """The operator's words that hold for the instance as a whole, and an end under way."""

    pause: datetime | None = None
    cancel: Cancelling | None = None
    failing: Failing | None = None


@dataclass(slots=True)
class Instance:
    """One instance, as it is stored. `pc` is the program counter, `rev` counts saves."""

    workflow: str
    id: str
    uid: str
    created_at: datetime
    updated_at: datetime
    state: bytes = b"{}"
    version: int = FORMAT_VERSION
    status: Status = Status.Running
    input: Any = None
    output: Any = None
    error: Failure | None = None
    threads: dict[str, Thread] = field(default_factory=dict)
    inbox: list[Message] = field(default_factory=list)
    outbox: list[Any] = field(default_factory=list)
    promises: dict[str, Any] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    control: Control = field(default_factory=Control)
    undos: list[Undo] = field(default_factory=list)
    """Entries of Go threads that ended well."""
    pc: int = 0
    rev: int = 0
    entries: int = 0
    """How many history entries were written: the number of the last."""
    due_at: datetime | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None
    start_key: tuple[str, str] | None = None
    """Key and hash of the start, kept as long as the instance (rule 27)."""

    @property
    def ended(self) -> bool:
        """Whether the document changes no more."""
        return self.status in ENDED

    @property
    def holders(self) -> frozenset[str]:
        """The processes named by leases that can lapse."""
        found: set[str] | None = None
        for thread in self.threads.values():
            lease = thread.lease
            if lease is not None and lease.by and lease.till is not None:
                found = {lease.by} if found is None else found | {lease.by}
        return NOBODY if found is None else frozenset(found)

    @property
    def unplaced(self) -> bool:
        """Whether a thread stands where the code that saved it knew no statement."""
        for thread in self.threads.values():  # noqa: SIM110 - twice as fast as any(), and asked twice in each save
            if thread.stray is not None:
                return True
        return False
