"""What a worker does with one instance: the loop of load, decide, save, run, wake, as requests answered from outside.

Nothing here does I/O, looks at a clock or starts a thread: each `yield` asks for it. Production answers on an event loop
(`runner.work.worker`); a simulator can answer the very same loop in any order, and crash it between two requests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from asyncflow import limits
from asyncflow.activation import Activation, Answer, Notice
from asyncflow.definition import Definition
from asyncflow.errors import InvalidState, Unavailable
from asyncflow.instance import Message
from asyncflow.leases import LEASE, Run, release, renew, take
from asyncflow.write import decide
from runner.stores.base import Conflict, Failed, Key, Outcome, Saved, Stored, Write
from runner.work.records import Loaded, lease_end, write_of

RETRY_SAVE_SECONDS: Final = 0.2
"""How long to wait before a store that was away is asked again; doubled each time."""
RETRY_SAVE_SECONDS_MAX: Final = 10.0
"""The longest of these waits: a store that comes back is used within it."""
TOLD_AT_ONCE: Final[dict[str, Answer]] = {}


Why: TypeAlias = Literal["new", "known", "deletion"]
"""Why an instance is due: nobody has been woken for it yet; whoever wrote the document before has seen to it; it has expired."""


@dataclass(frozen=True, slots=True)
class Load:
    """Give the `Stored` of *key*, or None."""

    key: Key


@dataclass(frozen=True, slots=True)
class Look:
    """Give a `View` of the world."""


@dataclass(frozen=True, slots=True)
class Save:
    """Save, and give the `Outcome`; if it is saved, `answers` are told to their senders and `notices` to the operator."""

    write: Write
    answers: dict[str, Answer]
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True)
class Begin:
    """Run these attempts; places for them were reserved by `View.reserve`."""

    runs: list[Run]


@dataclass(frozen=True, slots=True)
class Gather:
    """Give the `Gathered` of the running attempts: when one has ended, at *until*, or when the instance was written by another."""

    until: datetime | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell these actions: a cancel has come for them, or their lease is gone and the run is to be stopped alone."""

    cancelled: list[str]
    gone: list[str]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Go on after *seconds*."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wake:
    """The instance is due at *at*; `starved`: it is due now, and there was no room, or no time (`View.until`)."""

    key: Key
    at: datetime
    starved: bool = False
    why: Why = "new"


@dataclass(frozen=True, slots=True)
class Unfit:
    """This code cannot read what is stored (rule 23); `newer`: because it is of a newer format."""

    stored: Stored
    reason: str
    newer: bool = False


Request: TypeAlias = Load | Look | Save | Begin | Gather | Stop | Sleep | Wake | Unfit


@dataclass(frozen=True, slots=True)
class View:
    """What an activity needs to know of the world to decide."""

    now: datetime
    room: int
    sync: bool
    """Whether steps that are plain functions may be taken: not while hung ones keep all threads."""
    reserve: Callable[[int], None]
    """Reserves places for attempts; a negative number gives them back."""
    tokens: Callable[[], str]
    jitter: float
    process: str | None
    dead: Callable[[frozenset[str]], frozenset[str]]
    cancelled: Callable[[str], Callable[[], bool]]
    until: datetime | None = None
    """The end of the request this runs in: no step is taken whose timeout ends after it (rule 15)."""


@dataclass(slots=True)
class Gathered:
    """What has happened while attempts ran."""

    messages: list[Message] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    """Tokens of attempts that were stopped before their end: lease and attempt are given back."""
    stale: bool = False
    """Somebody else has written the instance."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for all activities of a worker."""

    lease: timedelta = LEASE
    retention: timedelta | None = None
    history: bool = True


class Activity:
    """One instance at work. `run` is the loop; the rest are its parts."""

    def __init__(self, definition: Definition[Any], key: Key, plan: Plan) -> None:
        self.key = key
        self._definition = definition
        self._plan = plan
        self._loaded: Loaded | None = None
        self._runs: dict[str, Run] = {}
        self._renew_at: dict[str, datetime] = {}
        self._gathered = Gathered()
        self._stale = False
        self._failures = 0
        self._known_due: set[datetime | None] = set()
        """What documents of others said when they are due: they have woken somebody for it."""
        self._doubted: set[datetime | None] = set()
        """The same of documents that this activity may have saved, without having been told."""

    def run(self) -> Generator[Request, Any, None]:
        """Load, decide, save, run, until nothing is in flight and nothing is due."""
        yield from self._work()
        if self._loaded is not None:
            self._loaded.release()

    def _work(self) -> Generator[Request, Any, None]:
        while True:
            if self._loaded is None or self._stale:
                stored = yield Load(self.key)
                if stored is None:
                    return
                self._stale = False
                if self._loaded is None or self._loaded.revision != stored.revision:
                    self._loaded = Loaded(self._definition, stored)
            view: View = yield Look()
            try:
                act, runs = self._decide(view)
            except (Unavailable, InvalidState) as error:
                stored = yield Load(self.key)
                if stored is not None:
                    yield Unfit(stored, str(error), newer="version" in (getattr(error, "details", None) or {}))
                return
            if act.changed:
                view.reserve(len(runs))
                runs, saved = yield from self._save(act, runs, view)
                if not saved:
                    continue
            else:
                self._loaded.keep_unchanged(act)
            self._gathered = Gathered()
            if runs:
                self._note(runs, view.now)
                yield Begin(runs)
            yield from self._stop_lost(act)
            due = act.instance.due_at
            if self._runs:
                if due is not None and due <= view.now:
                    if act.statements > limits.STATEMENTS_PER_WRITE:
                        continue  # it was stopped on its way, not by a lack of room (rule 11)
                    yield Wake(self.key, due, starved=True)
                self._gathered = yield Gather(self._until(due, view.now))
                self._ended()
                continue
            if due is not None:
                yield Wake(self.key, due, starved=due <= view.now and not act.changed, why=self._why(act))
                if due <= view.now and act.changed:
                    continue
            return

    def _decide(self, view: View) -> tuple[Activation, list[Run]]:
        gathered, plan = self._gathered, self._plan
        loaded = self._loaded
        assert loaded is not None

        ahead = next((message for message in gathered.messages if message.state is not None), None)

        def load() -> Activation:
            act = loaded.activate(view.now, dead=view.dead, jitter=view.jitter, history=plan.history, ahead=ahead)
            if not loaded.ours and act.instance.due_at not in self._doubted:
                self._known_due.add(act.instance.due_at)
            if loaded.marked and not act.instance.ended:
                act.changed = True  # a save by code that can read it clears the mark (rule 23)
            for token in gathered.released:
                release(act, token)
            for token, at in self._renew_at.items():
                if at <= view.now and token in self._runs and renew(act, token, self._runs[token].timeout, plan.lease):
                    self._renew_at[token] = view.now + plan.lease / limits.RENEWALS_PER_LEASE
            return act

        def work(act: Activation) -> list[Run]:
            return take(
                act, view.tokens, room=view.room, sync=view.sync, by=view.process, lease=plan.lease, until=view.until,
                cancelled=view.cancelled,
            )  # fmt: skip

        return decide(load, gathered.messages, work, retention=plan.retention)

    def _why(self, act: Activation) -> Why:
        instance = act.instance
        if instance.ended:
            return "deletion"
        # Of a foreign lease somebody is told once more, however often it was found (rule 21).
        known = instance.due_at in self._known_due and lease_end(instance) != instance.due_at
        return "known" if known else "new"

    def _save(self, act: Activation, runs: list[Run], view: View) -> Generator[Request, Any, tuple[list[Run], bool]]:
        """Save; on any answer but "saved" look what is stored, and go on from that alone (rules 6 and 12)."""
        assert self._loaded is not None
        write = write_of(act, self._loaded.revision, history=self._plan.history)
        outcome: Outcome = yield Save(write, act.answers, act.notices)
        if isinstance(outcome, Saved):
            self._loaded.keep(act, outcome.revision)
            self._failures = 0
            return runs, True
        self._loaded = None
        self._doubted.add(act.instance.due_at)
        if isinstance(outcome, Failed):
            yield Sleep(min(RETRY_SAVE_SECONDS * 2**self._failures, RETRY_SAVE_SECONDS_MAX))
            self._failures += 1
        begun: list[Run] = []
        if runs and not (isinstance(outcome, Failed) and not outcome.in_doubt):
            stored = yield Load(self.key)
            if stored is not None:
                self._loaded = Loaded(self._definition, stored)
                begun = self._mine(runs, self._loaded)
        view.reserve(len(begun) - len(runs))
        return begun, bool(begun)

    @staticmethod
    def _mine(runs: list[Run], loaded: Loaded) -> list[Run]:
        """Those whose token is in the document after all: the answer was lost, or was the echo of our own write."""
        try:
            threads = loaded.instance().threads.values()
        except Unavailable:
            return []
        tokens = {thread.lease.token for thread in threads if thread.lease is not None}
        return [run for run in runs if run.token in tokens]

    def _note(self, runs: list[Run], now: datetime) -> None:
        for run in runs:
            self._runs[run.token] = run
            if run.alone:
                run.body.dirty = True  # until its action has ended well, nobody else may use what it works on
            if run.timeout > self._plan.lease - timedelta(seconds=limits.LEASE_MARGIN_SECONDS):
                self._renew_at[run.token] = now + self._plan.lease / limits.RENEWALS_PER_LEASE

    def _stop_lost(self, act: Activation) -> Generator[Request, Any, None]:
        """Tell the actions whose token is no longer there, or that a cancel has come for (rules 15, 29)."""
        if self._runs:
            leases = {t.lease.token: t.lease for t in act.instance.threads.values() if t.lease is not None}
            gone = [token for token in self._runs if token not in leases]
            cancelled = [token for token in self._runs if token in leases and leases[token].cancel]
            if gone or cancelled:
                yield Stop(cancelled, gone)

    def _until(self, due: datetime | None, now: datetime) -> datetime | None:
        instants = [at for token, at in self._renew_at.items() if token in self._runs]
        if due is not None and due > now:
            instants.append(due)
        return min(instants, default=None)

    def _ended(self) -> None:
        if len(self._gathered.messages) > 1:
            taken = {token: place for place, token in enumerate(self._runs)}
            self._gathered.messages.sort(key=lambda message: taken.get(message.token, len(taken)))  # rule 14
        for token in [message.token for message in self._gathered.messages] + self._gathered.released:
            self._runs.pop(token, None)
            self._renew_at.pop(token, None)
        self._stale = self._gathered.stale


__all__ = [
    "Activity",
    "Begin",
    "Conflict",
    "Gather",
    "Gathered",
    "Load",
    "Look",
    "Plan",
    "Request",
    "Save",
    "Sleep",
    "Stop",
    "Unfit",
    "View",
    "Wake",
]
