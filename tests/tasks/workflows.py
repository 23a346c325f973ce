"""What the tests of the queue run: rows of steps, waits, timers."""

from datetime import datetime, timedelta

from asyncflow import (
    After,
    At,
    For,
    Go,
    On,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitFor,
    With,
    Workflow,
    event,
)

DAY = timedelta(days=1)


class Row(Workflow):
    """Three steps in a row, and a wait without a deadline behind them."""

    done: list[str] = []

    def one(self) -> None:
        self.done.append("one")

    async def two(self) -> None:
        self.done.append("two")

    def three(self) -> None:
        self.done.append("three")

    @event
    def go(self) -> int:
        return len(self.done)

    def definition(self) -> Section[list[str]]:
        return S(Step(self.one), Step(self.two), Step(self.three), WaitEvent(self.go), Return(lambda: self.done))


class Cart(Workflow):
    """Waits for a day after each event; two steps follow the last one, and another day's wait."""

    things: list[str] = []
    open: bool = True

    @event
    def add(self, thing: str) -> int:
        self.things.append(thing)
        return len(self.things)

    @event
    def submit(self) -> None:
        self.open = False

    def pack(self) -> None:
        self.things.append("packed")

    def send(self) -> None:
        self.things.append("sent")

    @event
    def receive(self) -> None: ...

    def definition(self) -> Section[list[str]]:
        return S(
            For(
                "shopping",
                lambda: self.open,
                Select("cart", On(self.add), On(self.submit), After(DAY, Return(lambda: self.things))),
            ),
            Step(self.pack),
            Step(self.send),
            Select("door", On(self.receive), After(DAY)),
            Return(lambda: self.things),
        )


class Bell(Workflow):
    """Rings a day after its start, twice."""

    rung: int = 0

    def ring(self) -> None:
        self.rung += 1

    def definition(self) -> Section[int]:
        return S(WaitFor("first", DAY), WaitFor("second", DAY), Step(self.ring), Return(lambda: self.rung))


class Shelf(Workflow):
    """An event that leaves the deadline as it is: another thread has it."""

    count: int = 0

    @event
    def put(self) -> int:
        self.count += 1
        return self.count

    def definition(self) -> Section[int]:
        return S(
            Go("clock", WaitFor("night", DAY), Return()),
            For("filling", lambda: self.count < 3, WaitEvent(self.put)),
            Return(lambda: self.count),
        )


class Far(Workflow):
    """Wakes at an instant of its state."""

    at: datetime

    def definition(self) -> Section[str]:
        return S(Select("far", At(lambda: self.at)), Return("up"))


class Flaky(Workflow):
    """A step that fails twice, with a second of backoff."""

    tried: int = 0

    def try_it(self) -> str:
        if self.context.attempt < 3:
            raise ConnectionError("not yet")
        return f"attempt {self.context.attempt}"

    def definition(self) -> Section[None]:
        return S(Step(self.try_it, retry=Retry(delay=timedelta(seconds=1), factor=1, jitter=0)), Return(None))


class Slow(Workflow):
    """Steps with a long timeout in a row, so that a request has no time for all of them."""

    done: int = 0

    def work(self) -> None:
        self.done += 1

    def definition(self) -> Section[int]:
        return S(
            With(timeout=timedelta(seconds=240))(Step("first", self.work), Step("second", self.work)),
            Return(lambda: self.done),
        )
