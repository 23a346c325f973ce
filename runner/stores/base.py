"""The contract of every store. Each promise below is a test of tests/conformance; where they differ, the test is right.

A store keeps *records*: the two JSON texts of a document and a few columns to find it by. It decides nothing about
workflows and reads neither text (but `state.PATH` in a filter). All methods are synchronous, and may be called from any
thread. Two handles on one store stand for two processes; whatever one has acknowledged, every other one sees at once.

Every method but `commit` raises `Unavailable` when the store is away or its handle closed; then nothing was changed,
or, where the error's `details` are `{"in_doubt": true}`, perhaps it was. Times are aware datetimes, kept to the
microsecond and given back in UTC.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, NamedTuple, TypeAlias

from pydantic import JsonValue

from asyncflow import limits
from asyncflow.errors import AsyncflowError

# What `get` and a save give out and the next save takes back. Opaque: a number here, an update time in Firestore.
Revision: TypeAlias = Hashable

Label: TypeAlias = str | int | float | bool | None

# Only these may be deleted by retention. The words are fixed (docs/statuses.md); a store knows no other status.
ENDED: Final = ("Cancelled", "Failed", "Finished")
# What `park` shows.
PAUSED: Final = "Paused"

# Document and state together, in bytes. Firestore holds 1 MiB with names and indexes; the engine stops at 900 KiB.
RECORD_BYTES_MAX: Final = 1_000 * limits.KIB
# How many writes lose their entries in one call of `prune_history`: about 50 ms of one transaction.
PRUNE_LIMIT: Final = 5_000


class Key(NamedTuple):
    """Names an instance; compares equal to the plain pair."""

    workflow: str
    id: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is stored of an instance: two texts and the columns it is found by.

    `document` is the JSON text of everything but the state, `state` that of the state; both are kept byte for byte.
    `uid` and `created_at` are those of the create, whatever a later save says. `holders` are the processes named by its
    leases. `unplaced`: the code that saved it did not know one of its positions (rule 24).
    """

    workflow: str
    id: str
    uid: str
    rev: int
    status: str
    document: bytes
    state: bytes
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    expires_at: datetime | None
    labels: Mapping[str, Label]
    holders: frozenset[str]
    unplaced: bool


@dataclass(frozen=True, slots=True)
class Write:
    """One save of one instance with the history entries of that write; `expected` None creates it.

    Each entry has an integer `n`, which grows within an instance from entry to entry.
    """

    record: Record
    expected: Revision | None
    entries: Sequence[Mapping[str, JsonValue]] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it lies there, with the revision that its next save names.

    `reason` is set while it is parked (rule 23): then `status` is `Paused` and `due_at` None, whatever the document
    says. `tries` counts how often it was deferred since its last save.
    """

    record: Record
    revision: Revision
    reason: str | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Saved:
    """The write is durable: it survives a crash of this process and, where the disk keeps its word, of the machine."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another write came first, or the instance is gone. Nothing of this write is stored: load and decide again."""


@dataclass(frozen=True, slots=True)
class Exists:
    """A create whose id is taken. Nothing of this write is stored."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The write was not stored, for the reason in `error`; `in_doubt`: or perhaps it was (rule 6: load and look)."""

    error: AsyncflowError
    in_doubt: bool = False


Outcome: TypeAlias = Saved | Conflict | Exists | Failed
# Under a name of its own, since `list` is a method of Store.
Outcomes: TypeAlias = list[Outcome]


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of a list: a record without its state, which is why it cannot be saved."""

    workflow: str
    id: str
    status: str
    document: bytes
    created_at: datetime
    updated_at: datetime
    labels: Mapping[str, Label]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some instances, newest first; `next_page_token` is None on the last page."""

    items: tuple[Summary, ...]
    next_page_token: str | None


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Some entries of one instance, oldest first; `next_page_token` is None on the last page."""

    entries: tuple[Mapping[str, JsonValue], ...]
    next_page_token: str | None


class CommitAgain(Exception):
    """Nothing of a `Flight` was stored, and why shows to whoever may wait: give the same writes to `commit`."""


class Flight(ABC):
    """A commit on its way, for an event loop: when `descriptor` can be read, or written where it `wants_write`, `advance`.

    Of one thread. Whoever has one goes on until it has given its outcomes, or gives it up by `lose`.
    """

    descriptor: int
    # How long, in seconds, an answer is waited for; then it is to be given up.
    patience: float

    @property
    @abstractmethod
    def wants_write(self) -> bool:
        """Whether not all was sent yet."""

    @abstractmethod
    def advance(self) -> Outcomes | None:
        """Go on without waiting; return the outcomes, as `commit` does, once they are known.

        Raises:
            CommitAgain: See there.
        """

    @abstractmethod
    def lose(self) -> Outcomes:
        """Give it up: all its writes are in doubt."""


class Store(ABC):
    """Where instances lie: one compare-and-set for each save, a few indexes, nothing else."""

    # The fields a filter may name: "status", "created_at", "updated_at", "labels" and, where it is cheap, "state".
    filterable: ClassVar[frozenset[str]]
    # Pairs of such a field and an operator that no index of this store serves: a filter with one is refused by name.
    unserved: ClassVar[frozenset[tuple[str, str]]] = frozenset()
    # Whether `due` moves what it hands out, so that two workers do not get the same (rule 22).
    hands_out_once: ClassVar[bool]
    # Whether `enter` and `dead` know processes: all handles are on one host (rule 15).
    knows_processes: ClassVar[bool]
    # Whether calls go over a network, which may take long: nobody makes them on an event loop, but `now`.
    remote: ClassVar[bool] = False
    # Whether several writes are as many commits: then nobody gains by waiting for others.
    commits_apart: ClassVar[bool] = False
    # Whether `processes` and `held_by` look into leases; a store that knows no processes may do without their index.
    finds_holders: ClassVar[bool] = True
    # Whether history is kept where nobody says otherwise: not where each write of it costs as much as a save.
    history_by_default: ClassVar[bool] = True

    # -- writing and reading -------------------------------------------------------------------------------------------

    @abstractmethod
    def commit(self, writes: Sequence[Write]) -> Outcomes:
        """Store each write, or change nothing for it; answer when all that is stored is durable.

        The answers stand in the order of *writes*, which are applied in that order. Each write stands for itself: one
        that conflicts or fails neither stops nor undoes another. Of two that expect the same revision of one instance
        the first is saved. Record and entries are stored together: an entry exists exactly when its save does. A save
        clears what `park`, `defer` and `due` have put into the columns.

        Returns:
            `Saved`, `Conflict`, `Exists` (creates only) or `Failed`: with `TooLarge` for a record over
            `RECORD_BYTES_MAX`, with `Malformed` for one that cannot be stored (a naive time, a label or an entry that
            is no JSON), with `Unavailable` where the store is away, full, locked, read-only or corrupt.

        Never raises for a fault of a write or of the store.
        """

    def begin_commit(self, writes: Sequence[Write]) -> Flight | None:  # noqa: ARG002 (of the contract)
        """Begin what `commit` does without waiting for anything; None where only `commit` can, now or always.

        Its promises are those of `commit`. None means that nothing was done.
        """
        return None

    @abstractmethod
    def get(self, workflow: str, id: str) -> Stored | None:
        """Return the last acknowledged save, of whatever handle; None if there is no such instance."""

    def get_many(self, keys: Sequence[tuple[str, str]]) -> Sequence[Stored | None]:
        """Return what `get` does for each of *keys*, in their order; a store over a network asks for all at once."""
        return [self.get(*key) for key in keys]

    @abstractmethod
    def delete(self, workflow: str, id: str, expected: Revision) -> bool:
        """Delete the instance with its history and answer True; False if it is gone or no longer at *expected*.

        An id created again is another instance: no earlier revision fits it, and its history is empty.
        """

    # -- looking around ------------------------------------------------------------------------------------------------

    @abstractmethod
    def list(
        self,
        workflows: Sequence[str] | None = None,
        *,
        status: str | None = None,
        filter: str = "",
        page_size: int = limits.PAGE_SIZE,
        page_token: str | None = None,
    ) -> Page:
        """Return one page of instances, the last created first.

        Those created at one instant stand in descending order of id, then of workflow. What is started while somebody
        pages through moves nothing: each instance that was there at the first page, and fits at its turn, comes once.

        Args:
            workflows: Only those of these workflows; None: of all that the store has.
            status: Only those that show this status; a parked one shows `Paused`.
            filter: As `runner.stores.filters` describes; a null or missing value fits no comparison but `null`.
            page_size: 1 to 1,000.
            page_token: `next_page_token` of the page before, asked with the same workflows, status and filter.

        Raises:
            Malformed: A filter that cannot be read or names a field this store cannot filter; a page size out of
                range; a token that is none, or of another question.
        """

    @abstractmethod
    def history(self, workflow: str, id: str, *, page_size: int = limits.PAGE_SIZE, page_token: str | None = None) -> HistoryPage:
        """Return one page of an instance's entries, oldest first; an empty one if there is no such instance.

        Entries written meanwhile come on later pages.

        Raises:
            Malformed: A page size out of range; a token that is none, or of another instance.
        """

    # -- due work ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def due(self, workflows: Collection[str], *, now: datetime, limit: int, process: str = "") -> Sequence[Key]:
        """Return at most *limit* instances of *workflows* that are due at *now*, the longest overdue first.

        Due is what has `due_at <= now`, ended instances that are to be deleted among them, and what was deferred to
        then. Where `hands_out_once`, what is handed out is due again 30 s later unless it is saved before, and until
        then `held_by(process)` names it, so that a crash of *process* delays nothing. No revision changes.
        """

    @abstractmethod
    def next_due(self, workflows: Collection[str]) -> datetime | None:
        """Return the first instant at which `due` has something of *workflows*; None if nothing waits for its time."""

    @abstractmethod
    def park(self, workflow: str, id: str, expected: Revision, reason: str) -> bool:
        """Mark what this code cannot read (rule 23), in columns alone: `Paused`, never due, with *reason*.

        Document and state stay byte for byte; the next save clears the mark. False if it is gone or no longer at
        *expected*; the revision may change or not, so load again before a save.
        """

    @abstractmethod
    def defer(self, workflow: str, id: str, expected: Revision, *, until: datetime) -> bool:
        """Count a failed try to read it, and make it due at *until*, in columns alone; otherwise as `park`."""

    @abstractmethod
    def unfit(self, workflows: Collection[str]) -> Sequence[Key]:
        """Return the instances of *workflows* that other code may get on: unplaced, deferred or parked ones."""

    # -- processes (rule 15) -------------------------------------------------------------------------------------------

    @abstractmethod
    def enter(self, process: str) -> None:
        """Say that *process* lives, until this handle is closed or the process ends in whatever way.

        The operating system keeps it, so that kill -9 ends it too; a child made by fork is another process. Does
        nothing unless the store `knows_processes`.

        Raises:
            AlreadyExists: A living process has that name. Take another one, a random one.
            Malformed: A name outside `[A-Za-z0-9_-]{1,128}`.
        """

    @abstractmethod
    def dead(self, processes: Collection[str]) -> set[str]:
        """Return those of *processes* that no longer live, or never did; none unless the store `knows_processes`."""

    @abstractmethod
    def processes(self) -> set[str]:
        """Return the processes for which `held_by` has something; none unless the store `finds_holders`."""

    @abstractmethod
    def held_by(self, process: str) -> Sequence[Key]:
        """Return the instances with a lease of *process* by their last save, and those `due` gave it since.

        None unless the store `finds_holders`.
        """

    # -- retention -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def expired(self, workflows: Collection[str], *, now: datetime, limit: int) -> Sequence[Key]:
        """Return at most *limit* ended instances of *workflows* with `expires_at <= now`, the first expired first.

        One that has not ended is never among them, whatever its `expires_at`. Deletes nothing.
        """

    @abstractmethod
    def prune_history(self, workflows: Collection[str], *, before: datetime, live: bool = False, limit: int = PRUNE_LIMIT) -> int:
        """Forget the entries of writes of *workflows* whose `updated_at` is earlier than *before*.

        Of ended instances only, unless *live*. Returns how many writes lost their entries, at most *limit*: fewer
        means that nothing is left to do.
        """

    # -- the handle ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def now(self) -> datetime:
        """Return the store's clock: for a store on one host that host's, else the server's. Aware, in UTC."""

    @abstractmethod
    def changed(self) -> Hashable:
        """Return a token that differs from an earlier one of this handle if any handle has saved in between.

        Cheap enough to ask five times a second, for ever. Never the same wrongly; it stays the same while nobody
        writes, where the store `knows_processes` (elsewhere it may differ each time).
        """

    def listen(self, heard: Callable[[], None]) -> bool:  # noqa: ARG002 (of the contract)
        """Call *heard* soon after another handle has made something due now or soon; False if this store cannot tell.

        It is called from a thread of the store's, must not block or raise, and is a hint: sometimes without a reason, always
        after a connection was made again, and never for what a process that died at once had no time to tell. Of one
        handle the last *heard* counts. Where this is False, ask `changed`.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Give back files, connections and process names. What was acknowledged stays; closing twice does nothing."""
