"""What clients do: each starts one instance, sends it its events in order, and notes what was acknowledged.

A client that was killed with its process goes on in the next one, from what the ledger says: what was not acknowledged
it sends again, under the same key.
"""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from asyncflow import Workflow
from asyncflow.errors import Pending, Unavailable
from runner import Handle, Runner
from tests.crash import ledger as ledgers
from tests.crash.ledger import Ledger
from tests.crash.workflows import CALLS, LINES, PARTS, ROUNDS, Agent, Charge, FanOut, Order, Part, Trip

CLIENTS: Final = 6
"""How many sessions go on at once in a process."""


@dataclass(frozen=True)
class Sending:
    """One event of a script."""

    event: str
    input: Any = None
    thread: str | None = None
    answer: Any = None
    counts: str = ""
    """What it counts, if it is handled."""


@dataclass(frozen=True)
class Script:
    """What one client does, and what the instance must have counted in the end: each of these once, nothing else."""

    workflow: Workflow
    output: str
    sendings: list[Sending] = field(default_factory=list)
    once: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()
    """One of these, once."""
    steps: frozenset[str] = frozenset()
    """What its actions do, by the names in the ledger."""

    @property
    def expected(self) -> frozenset[str]:
        """All that is counted for sure."""
        return self.once | {sending.counts for sending in self.sendings}


def script(number: int) -> Script:
    """Give the script of the instance of that number; always the same."""
    match number % 5:
        case 0:
            return _order()
        case 1:
            names = [f"p{part}" for part in range(PARTS)]
            steps = {f"{verb} {name}" for verb in ("fetch", "store") for name in names} | {"close"}
            parts = [Part(name=name) for name in names]
            return Script(FanOut(parts=parts), "all there", once=frozenset(steps), steps=frozenset(steps))
        case 2:
            done = {f"{verb} {what}" for verb in ("book", "cancel") for what in ("flight", "hotel")} | {"tell"}
            return Script(Trip(), "at home", once=frozenset(done | {"apologise"}), steps=frozenset(done | {"rent"}))
        case 3:
            return _agent()
        case _:
            either = frozenset(("charge", "doubt", "lose"))
            return Script(Charge(), "over", either=either)


def _order() -> Script:
    lines = [f"line {number}" for number in range(LINES)]
    return Script(
        Order(),
        "delivered",
        [
            *(Sending("add", line, answer=n + 1, counts=f"add {line}") for n, line in enumerate(lines)),
            Sending("submit", answer="thank you", counts="submit"),
            Sending("pay", 7, answer=7, counts="pay"),
        ],
        frozenset(("notify", "no answer", "deliver")),
        steps=frozenset(("notify", "deliver")),
    )


def _agent() -> Script:
    names = [f"r{number}c{call}" for number in range(ROUNDS) for call in range(CALLS)]
    steps = {f"{verb} {number}" for verb in ("think", "remember") for number in range(ROUNDS)}
    steps |= {f"act {name}" for name in names}
    return Script(
        Agent(),
        "done",
        [Sending("approve", thread=f"calls/{name}", answer=1, counts=f"approve {name}") for name in names],
        frozenset(steps),
        steps=frozenset(steps),
    )


@dataclass
class Known:
    """What the ledger says of the sessions of one prefix."""

    started: set[str] = field(default_factory=set)
    told: set[tuple[str, str]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    wanted: int = 0
    """How many sessions have been begun."""

    @classmethod
    def of(cls, path: Path, prefix: str) -> "Known":
        """Read it from the file at *path*."""
        known = cls()
        for line in ledgers.read(path):
            if not line.id.startswith(prefix):
                continue
            match line.what:
                case "wants":
                    known.wanted += 1
                case "started":
                    known.started.add(line.id)
                case "told":
                    known.told.add((line.id, line.name))
                case "ended":
                    known.ended.add(line.id)
                case _:
                    pass
        return known


class Sessions:
    """The clients of one process: those whose instances are called *prefix* and a number.

    Args:
        ending: Begin no more sessions: go through those that were begun, and wait for their ends.
    """

    def __init__(self, runner: Runner, ledger: Ledger, path: Path, prefix: str, *, ending: bool) -> None:
        self._runner = runner
        self._ledger = ledger
        self._prefix = prefix
        self._known = Known.of(path, prefix)
        self._ending = ending
        self._numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._next = self._numbering()
        self.stopping = threading.Event()

    def run(self) -> None:
        """Go through them, several at once, until all have ended (for ever, unless it is the ending)."""
        threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _numbering(self) -> Iterator[int]:
        for number in range(self._known.wanted):
            if f"{self._prefix}{number}" not in self._known.ended:
                yield number
        number = self._known.wanted
        while not self._ending:
            self._ledger.note("wants", id=f"{self._prefix}{number}")
            yield number
            number += 1

    def _client(self) -> None:
        try:
            while not self.stopping.is_set():
                with self._lock:
                    number = next(self._next, None)
                if number is None:
                    return
                self._session(f"{self._prefix}{number}", script(number))
        except Unavailable:
            if not self.stopping.is_set():
                raise

    def _session(self, id: str, script: Script) -> None:
        handle: Handle[Any] = self._runner.get(type(script.workflow), id)
        if id not in self._known.started:
            self._patiently(lambda: self._runner.start(script.workflow, id=id, idempotency_key=f"start {id}"))
            self._ledger.note("started", id=id)
        for position, sending in enumerate(script.sendings):
            name = f"{id} {position}"
            if (id, name) not in self._known.told:
                answer = self._patiently(
                    lambda sending=sending, name=name: handle.send(
                        sending.event, sending.input, thread=sending.thread, idempotency_key=name
                    )
                )
                self._ledger.note("told", id=id, name=name, value=answer)
        if self._ending:
            self._ledger.note("ended", id=id, value=handle.result())

    def _patiently(self, call: Any) -> Any:
        """Try again what was not refused: with the same key, as a client does."""
        while not self.stopping.is_set():
            try:
                return call()
            except Pending:
                continue
            except Unavailable:
                self.stopping.wait(0.02)
        raise Unavailable("this process ends")
