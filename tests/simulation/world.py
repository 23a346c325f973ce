"""The world of a simulated run: a clock, a store with faults, and the laws that hold after every save."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from asyncflow.codec import decode
from asyncflow.errors import Unavailable
from asyncflow.instance import Instance, Lease
from asyncflow.leases import Run
from runner.stores.base import Conflict, Exists, Failed, Key, Outcome, Saved, Stored, Write
from runner.stores.memory import MemoryRows, MemoryStore

START: Final = datetime(2024, 2, 28, 12, tzinfo=UTC)


class Violation(AssertionError):
    """A law of the protocol was broken."""


class Crash(Exception):
    """A client's process ends here."""


@dataclass
class Faults:
    """How often what goes wrong in this run; drawn anew for each seed, each may be never."""

    lost_answer: float = 0
    """A save is stored, and nobody is told."""
    no_answer: float = 0
    """A save is not stored, and nobody is told that either."""
    refused: float = 0
    """A save fails, and that is told."""
    crash: float = 0
    """A worker's process ends, or a client's."""
    failure: float = 0
    """An action raises."""
    timeout: float = 0
    """An action runs past its time."""
    stall: float = 0
    """A worker stands still, perhaps beyond its leases."""

    @classmethod
    def drawn(cls, dice: Random) -> "Faults":
        """Draw a mixture: a few kinds often is another test than all kinds rarely."""

        def some(most: float) -> float:
            return dice.uniform(0, most) if dice.random() < 0.6 else 0.0

        return cls(some(0.3), some(0.3), some(0.2), some(0.04), some(0.3), some(0.2), some(0.03))


@dataclass
class Attempt:
    """One run of an action, from its take on."""

    run: Run
    key: Key
    process: str
    ended: bool = False
    """Its result is on its way, or it was stopped."""


@dataclass
class World:
    """What all processes share."""

    dice: Random
    faults: Faults
    now: datetime = START
    rows: MemoryRows = field(default_factory=MemoryRows)
    last: dict[Key, Instance] = field(default_factory=dict)
    """Of each instance the last document that was saved."""
    texts: dict[Key, tuple[bytes, bytes]] = field(default_factory=dict)
    tokens: dict[str, Key] = field(default_factory=dict)
    """All that were ever saved."""
    tills: dict[str, datetime] = field(default_factory=dict)
    """Until when each of them holds, by the last save that has it."""
    attempts: dict[str, Attempt] = field(default_factory=dict)
    """Those whose action has been begun, by token."""
    living: set[str] = field(default_factory=set)
    trace: list[str] = field(default_factory=list)
    calm: bool = False
    """Nothing goes wrong any more: now everything must come to its end."""

    def open_store(self) -> MemoryStore:
        """Open a handle, as a process of its own does."""
        return MemoryStore(self.rows, clock=lambda: self.now)

    def say(self, text: str) -> None:
        """Note what happens, for whoever reads a failure."""
        self.trace.append(f"{(self.now - START).total_seconds():8.1f} {text}")

    def happens(self, chance: float) -> bool:
        """Whether a fault of that chance comes now."""
        return not self.calm and self.dice.random() < chance

    # -- saving --------------------------------------------------------------------------------------------------------

    def commit(self, store: MemoryStore, write: Write, who: str) -> Outcome:
        """Save through *store*, or meet a fault; hold what is stored against the laws."""
        name = f"{write.record.id} rev {write.record.rev}"
        if self.happens(self.faults.refused):
            self.say(f"{who} saves {name}: refused")
            return Failed(Unavailable("the disk is full"))
        if self.happens(self.faults.no_answer):
            self.say(f"{who} saves {name}: not stored, and not told")
            return Failed(Unavailable("the answer was lost"), in_doubt=True)
        (outcome,) = store.commit([write])
        self.say(f"{who} saves {name}: {type(outcome).__name__.lower()}")
        if isinstance(outcome, Saved):
            self._check_saved(Key(write.record.workflow, write.record.id), write)
            if self.happens(self.faults.lost_answer):
                self.say(f"{who} is not told")
                return Failed(Unavailable("the answer was lost"), in_doubt=True)
        elif not isinstance(outcome, Conflict | Exists):
            raise Violation(f"the store refused a save: {outcome}")
        return outcome

    def _check_saved(self, key: Key, write: Write) -> None:
        after = decode(write.record.document, write.record.state)
        before = self.last.get(key)
        if before is not None:
            self._check_chain(before, after)
        leases = leases_of(after)
        for token, lease in leases.items():
            if before is None or token not in leases_of(before):
                if token in self.tokens:
                    raise Violation(f"the token {token} was given twice")
                self.tokens[token] = key
            if lease.till is not None:
                self.tills[token] = lease.till
        if before is not None:
            self._check_fence(key, before, after)
        self.last[key] = after
        self.texts[key] = (write.record.document, write.record.state)

    def _check_chain(self, before: Instance, after: Instance) -> None:
        """Rules 1, 3 and 30."""
        if before.ended:
            raise Violation(f"an instance that has ended ({before.status}) was saved again, as {after.status}")
        if after.rev != before.rev + 1:
            raise Violation(f"revision {after.rev} follows {before.rev}: a save was lost under another")
        if after.pc < before.pc:
            raise Violation(f"the program counter fell from {before.pc} to {after.pc}")
        if after.updated_at < before.updated_at:
            raise Violation("time went back")
        visits = [thread.visit for thread in after.threads.values()]
        if len(set(visits)) < len(visits):
            raise Violation(f"two threads stand at one visit: {visits}")
        if after.due_at is None and not after.ended and any(lease.till for lease in leases_of(after).values()):
            raise Violation("a lease is held, and nothing is due when it is over")

    def _check_fence(self, key: Key, before: Instance, after: Instance) -> None:
        """A living process loses a lease before its time to an end, a cancel or its own word alone (rules 13, 15)."""
        if after.ended or after.control.cancel is not None or before.control.cancel is not None:
            return
        held = leases_of(after)
        for token, lease in leases_of(before).items():
            attempt = self.attempts.get(token)
            if token in held or attempt is None or attempt.ended or lease.till is None:
                continue
            if attempt.process in self.living and self.now < lease.till:
                raise Violation(f"{key.id}: the lease of {attempt.run.path} was taken from a living process before its time")

    # -- attempts ------------------------------------------------------------------------------------------------------

    def begin(self, run: Run, key: Key, process: str) -> Attempt:
        """Note that an action begins: its token is known to be saved (rule 12), nobody else runs that visit (15)."""
        if self.tokens.get(run.token) != key:
            raise Violation(f"{key.id}: {run.path} runs, and its lease was never saved")
        if run.token in self.attempts:
            raise Violation(f"{key.id}: {run.path} runs twice for one lease")
        if run.token in leases_of(self.last[key]):
            for other in self.attempts.values():
                same = other.run.context.idempotency_key == run.context.idempotency_key
                if same and not other.ended and other.process in self.living and self.now < self.tills[other.run.token]:
                    raise Violation(f"{key.id}: {run.path} runs beside another run of it, whose lease is not over")
        elif self.now < self.tills[run.token] and not self._cut_short(key):
            raise Violation(f"{key.id}: {run.path} begins without its lease, which is not over")
        self.attempts[run.token] = attempt = Attempt(run, key, process)
        return attempt

    def _cut_short(self, key: Key) -> bool:
        """Whether leases may be void before their time: by an end, or by a cancel."""
        instance = self.last[key]
        return instance.ended or instance.control.cancel is not None

    def check_left(self, process: str, stored: Stored | None) -> None:
        """A worker that leaves an instance leaves no lease of its own behind, unless its result lies there."""
        if stored is None:
            return
        for lease in leases_of(decode(stored.record.document, stored.record.state)).values():
            if lease.by == process and lease.till is not None and lease.till > self.now:
                raise Violation(f"{stored.record.id}: its worker has left, and its lease is there until {lease.till}")

    # -- time ----------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.now += timedelta(seconds=seconds)


def leases_of(instance: Instance) -> dict[str, Lease]:
    """The leases in a document, by their tokens."""
    return {thread.lease.token: thread.lease for thread in instance.threads.values() if thread.lease is not None}
