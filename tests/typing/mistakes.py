# mypy: ignore-errors
"""Mistakes in definitions and tests: mypy and pyright must refuse every line marked E, and no other.

Nothing here is run. `test_typing.py` takes the first line away and lets both read it.
"""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel

from asyncflow import (
    After,
    At,
    Atomic,
    Call,
    Case,
    Failure,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Raise,
    Rejected,
    Retry,
    Return,
    S,
    Section,
    Select,
    Send,
    Step,
    Switch,
    Try,
    WaitFor,
    WaitUntil,
    When,
    With,
    Workflow,
    event,
    simulate,
)


class Crate(BaseModel):
    weight: int = 0
    open: bool = False

    def heavy(self) -> bool:
        return self.weight > 9

    def packed(self, weight: int) -> None: ...


class Child(Workflow):
    def definition(self) -> Section[bool]:
        return S(Return(True))


class Parcel(Workflow):
    crates: dict[str, Crate] = {}
    by_number: dict[int, Crate] = {}
    city: str = ""
    speed: Literal["slow", "fast"] = "slow"

    @event
    def address(self, city: str) -> int:
        return len(city)

    @event
    def collect(self) -> None: ...

    def ready(self) -> bool:
        return bool(self.city)

    def weigh(self, crate: Crate) -> int:
        return crate.weight

    async def ship(self, city: str, express: bool) -> float:
        return 1.0

    def unship(self, city: str) -> None: ...

    def shipped(self, price: float) -> None: ...

    def named(self, name: str) -> None: ...

    def failed(self, failure: Failure) -> None: ...

    def pack(self, crate: Crate) -> Section:
        return S(Step(self.weigh, crate, then=crate.packed))

    def child(self) -> Child:
        return Child()


class Steps(Parcel):
    def definition(self) -> Section:
        return S(
            Step(self.ship, "Rome", True, then=self.shipped),
            Step(self.ship, "Rome"),  # E
            Step("twice", self.ship, "Rome", True, False),  # E
            Step("a number for a city", self.ship, 1, True),  # E
            Step(self.ship, "Rome", True, then=self.named),  # E
            Step("to undo", self.ship, "Rome", True, undo=self.unship),  # E
            Step(self.ready, retry=3),  # E
            Step(self.ready, timeout=30),  # E
            Step(self.ready, then=self.ready()),  # E
            Step("no action"),  # E
            With(retry=Retry(exhausted="stop"))(Step(self.ready)),  # E
            With(timeout=5)(Step(self.ready)),  # E
            Atomic("only steps", Return(1)),  # E
        )


class Waits(Parcel):
    def definition(self) -> Section:
        return S(
            Select("a", On(self.address), After(timedelta(1), self.collect)),
            Select("b", On(self.address())),  # E
            Select("c", After(timedelta(1), self.named)),  # E
            Select("d", At("2040-01-01")),  # E
            Select("e", When("reads now", self.city == "Rome")),  # E
            Select(When("no name", self.ready)),  # E
            WaitFor("minutes", 5),  # E
            WaitUntil("a text", lambda: self.city),  # E
            WaitUntil(True),  # E
            After(timedelta(1)),  # E
        )


class Branches(Parcel):
    def definition(self) -> Section[int]:
        return S(
            If(self.ready, Return(1)).Elif("far", lambda: self.speed == "fast", Return(2)).Else(Return(3)),
            If(self.weigh, Return(1)),  # E
            If(self.ready, Return(1)).Else(Return(2)).Elif(self.ready, Return(3)),  # E
            Switch("which", Case(self.ready, Return(1)), Step(self.ready)),  # E
            For("while", lambda: self.crates, Step(self.ready)),  # E
            ForEach("packing", lambda: self.crates, self.pack),
            ForEach("by number", lambda: self.by_number, self.pack),  # E
            ForEach("called", self.crates, self.pack),  # E
            ForEach("no statement", lambda: self.crates, self.weigh),  # E
            ForEach("side by side", lambda: self.crates, self.pack, parallel=True and "2"),  # E
            Go("one", lambda: self.crates, self.pack, id=lambda: self.city),
            Go("which one", lambda: self.crates, self.pack),  # E
            Join(self.ready),  # E
        )


class Errors(Parcel):
    def definition(self) -> Section[None]:
        return S(
            Try(Step(self.ready)).Except(OSError, self.failed).Finally(Step(self.ready)),
            Try(Step(self.ready)).Except("OSError", self.failed),  # E
            Try(Step(self.ready)).Except(OSError, self.shipped),  # E
            Try(Step(self.ready)).Finally(Step(self.ready)).Except(OSError, self.failed),  # E
            Raise("no error"),  # E
            Raise(Rejected(404)),  # E
            Call("child", self.child, then=self.named),  # E
            Send("to whom", Parcel.collect),  # E
            Send("which input", Parcel.address, lambda: 1, to=lambda: self.city),  # E
        )


class Outputs(Parcel):
    def first_weight(self, crate: Crate) -> Section[int]:
        return S(Return(crate.weight))

    def of_an_arm(self) -> Section[int]:
        return S(If(self.ready, Return(1)).Else(Return("three")))  # E

    def of_a_row(self) -> Section[int]:
        return S(Return(1), Return(1.5))  # E

    def of_a_case(self) -> Section[int]:
        return S(Switch(Case(self.ready, Return(2)), Case("slow", True, Return(lambda: self.speed))))  # E

    def of_an_error(self) -> Section[None]:
        return S(Try(Step(self.ready)).Except(OSError, Return(0)))  # E

    def of_the_end(self) -> Section[int]:
        return S(Try(Return(1)).Finally(Return()))  # E

    def of_an_item(self) -> Section[str]:
        return S(ForEach("crates", lambda: self.crates, self.first_weight))  # E

    def of_a_thread(self) -> Section[int]:
        return S(Go("own", Return("says nothing about main")), Return(1))


def test_of_a_parcel() -> None:
    sim = simulate(Parcel())
    length: int = sim.send(Parcel.address, "Rome")
    sim.send(Parcel.address, 5)  # E
    sim.send(Parcel.collect, "Rome")  # E
    sim.state.town  # E
    sim.advance(60)  # E
    sim.query(Parcel.address)  # E
    number: int = simulate(Child()).output  # E
    sim.status = "Finished"  # E
    simulate(Crate())  # E
    print(length, number)
