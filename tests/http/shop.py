"""Workflows that HTTP is tried on. `python -m tests.http.shop URL` serves them on a free port, which it prints.

Served so, the step of `Oven` waits until somebody writes into the pipe that OVEN names.
"""

import os
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, PositiveInt, model_validator

from asyncflow import (
    After,
    For,
    ForEach,
    On,
    Rejected,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    TerminalError,
    WaitEvent,
    Workflow,
    event,
    query,
)
from tests.runner.gates import Gate

GATE = Gate()
"""Steps of `Oven` stand here."""
ONCE = Retry(max_attempts=1)


class Item(BaseModel):
    name: str
    count: PositiveInt = 1


class Basket(Workflow, labels=("owner",)):
    """A basket that fills up."""

    owner: str = "nobody"
    items: list[Item] = []
    paid: Decimal = Decimal(0)
    callers: list[str | None] = []

    @event
    def put(self, item: Item) -> list[Item]:
        """Put something in."""
        self.items.append(item)
        self.callers.append(self.context.caller)
        return self.items

    @event
    def clear(self) -> None:
        self.items = []

    @event
    def pay(self, amount: Decimal) -> Decimal:
        self.paid += amount
        return self.paid

    @event
    def refuse(self, code: int) -> None:
        raise Rejected("not like this", code=code, details={"hint": "ask nicely"})

    @event
    def end_badly(self) -> None:
        raise TerminalError("it is over", code=451)

    @event
    def stumble(self) -> None:
        self.items = []
        raise RuntimeError("the secret is 4711")

    @event
    def big(self, size: int) -> str:
        return "x" * size

    @event
    def close(self) -> None: ...

    @query
    def count(self) -> int:
        """How many things are in it."""
        return sum(item.count for item in self.items)

    @query
    def broken(self) -> int:
        raise RuntimeError("the secret is 4711")

    @query
    def refused(self) -> int:
        raise Rejected("not for you", code=402)

    def definition(self) -> Section[Decimal | None]:
        return S(
            For(
                "open",
                True,
                Select(
                    "counter",
                    On(self.put),
                    On(self.clear),
                    On(self.pay),
                    On(self.refuse),
                    On(self.end_badly),
                    On(self.stumble),
                    On(self.big),
                    On(self.close, Return(lambda: self.paid)),
                    After(timedelta(days=1), Return(None)),
                ),
            ),
        )


class Oven(Workflow):
    """A step that holds the instance until the test lets it go."""

    baked: int = 0
    orders: list[str] = []

    def bake(self) -> None:
        pipe = os.environ.get("OVEN")
        if pipe is None:
            GATE.hold()
        else:
            Path(pipe).read_bytes()  # returns when it was opened for writing, and closed
        self.baked += 1

    @event
    def order(self, what: str) -> int:
        self.orders.append(what)
        return len(self.orders)

    @event(queue=True)
    def later(self) -> None: ...

    def definition(self) -> Section[int]:
        return S(Step(self.bake), WaitEvent(self.order), WaitEvent(self.later), Return(lambda: self.baked))


class Form(Workflow):
    """Fields without a default are what a start takes."""

    name: str
    age: PositiveInt
    note: str = "none"

    @model_validator(mode="after")
    def grown_up(self) -> Self:
        if self.age < 18:
            raise ValueError("come again later")
        return self

    def definition(self) -> Section[str]:
        return S(WaitEvent("sign"), Return(lambda: self.name))


class Visit(Workflow):
    """Started by a request of its own."""

    guests: int
    stamp: str

    @classmethod
    def start(cls, guests: int) -> Self:
        if guests < 0:
            raise Rejected("nobody comes", code=418)
        if guests == 13:
            raise RuntimeError("the secret is 4711")
        if guests == 14:
            return cls(guests=14, stamp="\0")
        return cls(guests=guests, stamp="made by start")

    def definition(self) -> Section[int]:
        return S(WaitEvent("leave"), Return(lambda: self.guests))


class Fault(Workflow):
    """Its step fails, and its thread is parked."""

    def fail(self) -> int:
        raise RuntimeError("the oven is cold")

    def taken(self, value: int) -> None: ...

    def definition(self) -> Section[str]:
        return S(Step(self.fail, then=self.taken, retry=ONCE), Return("served"))


class Call(BaseModel):
    answered: str = ""

    def answer(self, text: str) -> str:
        self.answered = text
        return text


class Calls(Workflow):
    """Threads of items: events are sent to one of them."""

    calls: dict[str, Call] = {"c1": Call(), "c 2/#": Call()}

    def one(self, call: Call) -> Section[Any]:
        return S(WaitEvent(call.answer))

    def definition(self) -> Section[str]:
        return S(ForEach("calls", lambda: self.calls, self.one, parallel=2), Return("all rung"))


class Prize(Workflow):
    """One prize, for who comes first."""

    winner: int | None = None

    @event
    def claim(self, who: int) -> int:
        self.winner = who
        return who

    def definition(self) -> Section[int | None]:
        return S(Select("prize", On(self.claim)), WaitEvent("never"), Return(lambda: self.winner))


WORKFLOWS: list[type[Workflow]] = [Basket, Oven, Form, Visit, Fault, Calls, Prize]


def main() -> None:
    """Serve them on the store that is named, for everybody if `insecure` is said."""
    from runner import Runner
    from runner.http.server import serve

    insecure = "insecure" in sys.argv
    host = "0.0.0.0" if insecure else "127.0.0.1"
    runner = Runner(WORKFLOWS, store=sys.argv[1])
    serve(runner, host=host, port=0, insecure=insecure, ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
