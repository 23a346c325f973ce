"""What runs under fire: orders with events and timers, items side by side, undos, an agent's loop, a step at most once.

Everything is counted in the state, by plain additions, so that whatever happened twice, or not at all, can be seen at
the end. Each action says in the ledger that it begins and that it ends.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Final

from pydantic import BaseModel

from asyncflow import (
    After,
    Failure,
    For,
    ForEach,
    Go,
    On,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    TerminalError,
    Try,
    Uncertain,
    WaitEvent,
    WaitFor,
    WaitUntil,
    With,
    Workflow,
    event,
)
from tests.crash.ledger import Ledger

MOMENT: Final = timedelta(milliseconds=20)
FOR_EVER: Final = Retry(max_attempts=None, delay=timedelta(milliseconds=5), max_delay=timedelta(milliseconds=50))
"""Kills must not use up a policy: what is looked at here is the end."""
LINES: Final = 3
"""How many lines an order has."""
PARTS: Final = 6
"""How many items are worked on side by side."""
ROUNDS: Final = 2
CALLS: Final = 2
"""How often an agent thinks, and what it wants each time."""


@dataclass
class Conditions:
    """What work is like in this process; set by whoever lives in it."""

    ledger: Ledger | None = None
    seconds: float = 0.02
    """The longest that a plain function works."""
    seconds_async: float = 0.02
    """The longest that a coroutine function works."""
    failures: float = 0.1
    """How many of the attempts fail by themselves."""
    passing: Callable[[str], None] | None = None
    """Called at the points of an action where a process may be told to die."""

    def note(self, what: str, **fields: Any) -> None:
        """Append a line to the ledger."""
        assert self.ledger is not None
        self.ledger.note(what, **fields)

    def pass_by(self, point: str) -> None:
        """Say that an action has come to *point*."""
        if self.passing is not None:
            self.passing(point)


conditions = Conditions()


class Counted(Workflow):
    """Counts what has happened to it, by name."""

    counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        """Count it once more."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def begin(self, name: str) -> float:
        """Say that an attempt at *name* begins; give how long it should work, as part of the longest."""
        context = self.context
        conditions.note("run", id=context.id, name=name, key=context.idempotency_key, attempt=context.attempt)
        conditions.pass_by("begin")
        dice = Random(f"{context.idempotency_key} {context.attempt}")
        if dice.random() < conditions.failures:
            raise ConnectionError("the line is bad")
        return dice.random()

    def finish(self, name: str) -> None:
        """Say that an attempt at *name* ends well."""
        context = self.context
        conditions.pass_by("end")
        conditions.note("ran", id=context.id, name=name, key=context.idempotency_key, attempt=context.attempt)

    def work(self, name: str) -> None:
        """Work on *name*: what most actions do."""
        time.sleep(self.begin(name) * conditions.seconds)
        self.finish(name)

    async def work_async(self, name: str) -> None:
        """Work on *name* without a thread."""
        await asyncio.sleep(self.begin(name) * conditions.seconds_async)
        self.finish(name)


class Order(Counted):
    """Events in a loop, a thread of its own for the payment, timers, plain steps."""

    open: bool = True

    @event
    def add(self, line: str) -> int:
        self.count(f"add {line}")
        return len(self.counts)

    @event
    def submit(self) -> str:
        self.open = False
        self.count("submit")
        return "thank you"

    @event
    def pay(self, amount: int) -> int:
        self.count("pay")
        return amount

    def notify(self) -> None:
        self.work("notify")
        self.count("notify")

    async def deliver(self) -> None:
        await self.work_async("deliver")
        self.count("deliver")

    def burn(self) -> None:
        self.count("no answer")

    def definition(self) -> Section[str]:
        return S(
            With(retry=FOR_EVER)(
                For("shopping", lambda: self.open, Select("customer", On(self.add), On(self.submit))),
                Go("payment", WaitEvent(self.pay)),
                Step(self.notify),
                WaitFor("oven", MOMENT),
                Select("tip", On("tip"), After(MOMENT, self.burn)),
                Step(self.deliver),
                WaitUntil("paid", lambda: "pay" in self.counts),
            ),
            Return("delivered"),
        )


class Part(BaseModel):
    """One item of a fan-out."""

    name: str
    fetched: int = 0
    stored: int = 0

    def keep_fetched(self, _: None) -> None:
        self.fetched += 1

    def keep_stored(self, _: None) -> None:
        self.stored += 1


class FanOut(Counted):
    """Items side by side, each with two `then` steps: one in a thread, one on the loop."""

    parts: list[Part]

    def fetch(self, part: Part) -> None:
        self.work(f"fetch {part.name}")

    async def store(self, part: Part) -> None:
        await self.work_async(f"store {part.name}")

    def each(self, part: Part) -> Section:
        return S(
            Step("fetch", self.fetch, part, then=part.keep_fetched, retry=FOR_EVER),
            Step("store", self.store, part, then=part.keep_stored, retry=FOR_EVER),
        )

    def close(self) -> None:
        self.work("close")
        self.count("close")
        for part in self.parts:
            self.counts[f"fetch {part.name}"] = part.fetched
            self.counts[f"store {part.name}"] = part.stored

    def definition(self) -> Section[str]:
        return S(
            With(retry=FOR_EVER)(
                ForEach("parts", lambda: self.parts, self.each, parallel=4),
                Step(self.close),
            ),
            Return("all there"),
        )


class Trip(Counted):
    """Steps that are undone, the last first, because one cannot be done."""

    def book(self, what: str) -> None:
        self.work(f"book {what}")
        self.count(f"book {what}")

    def cancel(self, what: str) -> None:
        self.work(f"cancel {what}")
        self.count(f"cancel {what}")

    def rent(self) -> None:
        self.work("rent")
        raise TerminalError("there are no cars")

    def apologise(self, _: Failure) -> None:
        self.count("apologise")

    def tell(self) -> None:
        self.work("tell")
        self.count("tell")

    def definition(self) -> Section[str]:
        return S(
            With(retry=FOR_EVER)(
                Try(
                    Step("flight", self.book, "flight", undo=self.cancel),
                    Step("hotel", self.book, "hotel", undo=self.cancel),
                    Step(self.rent),
                )
                .Except(TerminalError, self.apologise)
                .Finally(Step(self.tell)),
            ),
            Return("at home"),
        )


class Call(BaseModel):
    """What an agent wants to do, if it may."""

    name: str
    allowed: int = 0
    done: int = 0

    @event
    def approve(self) -> int:
        self.allowed += 1
        return self.allowed

    def keep(self, _: None) -> None:
        self.done += 1


class Agent(Counted):
    """Rounds of thinking, and of calls that a person has to approve."""

    rounds: int = 0
    calls: dict[str, Call] = {}

    def think(self) -> None:
        self.work(f"think {self.rounds}")
        self.count(f"think {self.rounds}")
        names = [f"r{self.rounds}c{number}" for number in range(CALLS)]
        self.calls = {name: Call(name=name) for name in names}

    async def act(self, call: Call) -> None:
        await self.work_async(f"act {call.name}")

    def each(self, call: Call) -> Section:
        return S(WaitEvent(call.approve), Step("act", self.act, call, then=call.keep, retry=FOR_EVER))

    def remember(self) -> None:
        self.work(f"remember {self.rounds}")
        self.count(f"remember {self.rounds}")
        for call in self.calls.values():
            self.counts[f"approve {call.name}"] = call.allowed
            self.counts[f"act {call.name}"] = call.done
        self.rounds += 1

    def definition(self) -> Section[str]:
        return S(
            With(retry=FOR_EVER)(
                For(
                    "rounds",
                    lambda: self.rounds < ROUNDS,
                    Step(self.think),
                    ForEach("calls", lambda: self.calls, self.each, parallel=CALLS),
                    Step(self.remember),
                ),
            ),
            Return("done"),
        )


class Charge(Counted):
    """A step that runs at most once."""

    def charge(self) -> None:
        self.work("charge")
        self.count("charge")

    def doubt(self, _: Failure) -> None:
        self.count("doubt")

    def lose(self, _: Failure) -> None:
        self.count("lose")

    def definition(self) -> Section[str]:
        return S(
            Try(Step(self.charge, idempotent=False)).Except(Uncertain, self.doubt).Except(ConnectionError, self.lose),
            Return("over"),
        )


ALL: Final = (Order, FanOut, Trip, Agent, Charge)
