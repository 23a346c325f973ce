"""Workflows that the command is tried on. A file named by SHOP_BROKEN breaks their steps as long as it is there."""

import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, PositiveInt

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
    WaitEvent,
    Workflow,
    event,
    query,
)

ONCE = Retry(max_attempts=1)
GATE = threading.Event()
"""Steps of `Slow` go on when it is set, in this process."""
REACHED = threading.Event()
"""A step of `Slow` has begun."""


def work() -> None:
    broken = os.environ.get("SHOP_BROKEN")
    if broken and Path(broken).exists():
        raise RuntimeError("the van has broken down")


class Item(BaseModel):
    name: str
    count: PositiveInt = 1


class Parcel(Workflow, labels=("customer",)):
    """A parcel, from the counter to the door.

    It is sent off by a van.
    """

    customer: str
    items: list[Item] = []
    closed: bool = False

    @event
    def pack(self, item: Item) -> list[Item]:
        """Put something in."""
        if item.name == "cat":
            raise Rejected("no living things", details={"law": 7})
        self.items.append(item)
        return self.items

    @event(role="clerk")
    def close(self) -> None:
        self.closed = True

    @event(queue=True)
    def remark(self, text: str) -> str:
        return text.upper()

    @event
    def sign(self) -> None: ...

    @query
    def count(self) -> int:
        """How many things are in it."""
        return sum(item.count for item in self.items)

    @query
    def heaviest(self) -> str:
        return self.items[0].name

    def send_off(self) -> None:
        work()

    def definition(self) -> Section[int | None]:
        return S(
            For(
                "open",
                lambda: not self.closed,
                Select("counter", On(self.pack), On(self.close), After(timedelta(hours=2), Return(None))),
            ),
            Step(self.send_off, retry=ONCE),
            WaitEvent(self.sign),
            WaitEvent(self.remark),
            Return(self.count),
        )


class Visit(Workflow):
    """Started by a request of its own; ends at once."""

    guests: int

    @classmethod
    def start(cls, guests: int) -> Self:
        if guests < 0:
            raise Rejected("nobody comes")
        return cls(guests=guests)

    def definition(self) -> Section[int]:
        return S(Return(lambda: self.guests))


class Call(BaseModel):
    done: bool = False

    def ring(self) -> bool:
        work()
        return True


class Calls(Workflow):
    """Two calls at once."""

    calls: dict[str, Call] = {"c1": Call(), "c2": Call()}

    def one(self, call: Call) -> Section[Any]:
        return S(Step("ring", call.ring, then=lambda done: setattr(call, "done", done), retry=ONCE))

    def definition(self) -> Section[str]:
        return S(ForEach("calls", lambda: self.calls, self.one, parallel=2), Return("all rung"))


class Slow(Workflow):
    """One step that holds the instance."""

    def wait(self) -> None:
        REACHED.set()
        GATE.wait(30)

    def definition(self) -> Section[None]:
        return S(Step(self.wait), WaitEvent("go"))


class Bad(Workflow):
    """Fails at its first step."""

    def fail(self) -> None:
        raise RuntimeError("it cannot be")

    def definition(self) -> Section[None]:
        return S(Step(self.fail, retry=Retry(max_attempts=1, exhausted="raise")))
