"""What is run in a simulation: a bit of everything, each part counted in the state."""

from datetime import timedelta
from typing import Final

from pydantic import BaseModel

from asyncflow import (
    After,
    Failure,
    ForEach,
    Go,
    Join,
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
    Workflow,
    event,
)

AGAIN: Final = Retry(max_attempts=None, delay=timedelta(seconds=1), max_delay=timedelta(seconds=5))
SHORT: Final = timedelta(seconds=5)
"""Renewed or not: some steps are shorter than their lease, some longer."""
LONG: Final = timedelta(hours=1)


class Part(BaseModel):
    """One item."""

    name: str
    done: int = 0

    def keep(self, _: int) -> None:
        self.done += 1


class Job(Workflow):
    """Steps of every kind, events, a timer, a thread beside main, undos."""

    counts: dict[str, int] = {}
    parts: list[Part] = [Part(name="p0"), Part(name="p1"), Part(name="p2")]

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    @event
    def note(self) -> int:
        self.count("note")
        return sum(self.counts.values())

    @event
    def choose(self) -> str:
        self.count("choose")
        return "chosen"

    @event(queue=True)
    def later(self) -> None:
        self.count("later")

    def too_late(self) -> None:
        self.count("nobody chose")

    def plain(self, name: str) -> None:
        self.count(name)

    def work_on(self, part: Part) -> int:
        return len(part.name)

    def gone(self, name: str) -> None:
        raise TerminalError(f"no {name}")

    def take_back(self, name: str) -> None:
        self.count(f"undo {name}")

    def sorry(self, _: Failure) -> None:
        self.count("sorry")

    def doubt(self, _: Failure) -> None:
        self.count("doubt")

    def failed(self, _: Failure) -> None:
        self.count("failed")

    def each(self, part: Part) -> Section:
        return S(Step("part", self.work_on, part, then=part.keep, retry=AGAIN, timeout=SHORT))

    def side(self) -> Section:
        return S(WaitEvent(self.note), Step("side", self.plain, "side", retry=AGAIN, timeout=LONG))

    def definition(self) -> Section[str]:
        return S(
            Go("side", self.side()),
            Step("first", self.plain, "first", retry=AGAIN, timeout=LONG),
            ForEach("parts", lambda: self.parts, self.each, parallel=2),
            Select("choice", On(self.choose), After(timedelta(seconds=30), self.too_late)),
            Try(
                "trip",
                Step("booked", self.plain, "booked", undo=self.take_back, retry=AGAIN, timeout=SHORT),
                Step("gone", self.gone, "car", retry=AGAIN),
            ).Except(TerminalError, self.sorry),
            Try(
                "charge",
                Step("charge", self.plain, "charge", idempotent=False),
            )
            .Except(Uncertain, self.doubt)
            .Except(ConnectionError, self.failed),
            WaitEvent(self.later),
            Join(),
            Step("last", self.plain, "last", retry=AGAIN),
            Return("done"),
        )


ONCE: Final = frozenset(("note", "side", "first", "booked", "undo booked", "sorry", "later", "last"))
EITHER: Final = (frozenset(("choose", "nobody chose")), frozenset(("charge", "doubt", "failed")))
EVENTS: Final = ("note", "choose", "later")
