"""How many attempts run at once, and that none of them stands in another's way."""

import logging
from datetime import timedelta
from threading import Event

import pytest

from asyncflow import ForEach, Parallel, Return, S, Section, Step, WaitFor, Workflow
from tests.runner.conftest import Open, wait_for
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()


class Sync(Workflow):
    """A plain step that is a plain function."""

    def stand(self) -> None:
        GATE.hold()

    def definition(self) -> Section[int]:
        return S(Step(self.stand), Return(1))


class Async(Workflow):
    """A plain step that is a coroutine function."""

    async def stand(self) -> None:
        await GATE.hold_async()

    def definition(self) -> Section[int]:
        return S(Step(self.stand), Return(1))


class Items(Workflow):
    """Async steps of one instance, side by side."""

    items: list[int]
    done: dict[int, int] = {}

    async def stand(self, item: int) -> int:
        await GATE.hold_async()
        return item

    def count(self, item: int) -> None:
        self.done[item] = self.done.get(item, 0) + 1

    def each(self, item: int) -> Section:
        return S(Step("stand", self.stand, item, then=self.count))

    def definition(self) -> Section[int]:
        return S(
            ForEach("items", lambda: self.items, self.each, parallel=1_000),
            Return(lambda: sum(self.done.values())),
        )


@pytest.mark.parametrize("workflow", [Sync, Async])
def test_as_many_attempts_run_at_once_as_concurrency_says(workflow: type[Workflow], working: Open, gate: Gate) -> None:
    runner = working(workflow, concurrency=3)
    handles = [runner.start(workflow()) for _ in range(8)]
    gate.wait(here=3)
    gate.open()
    assert [handle.result(PATIENCE) for handle in handles] == [1] * 8
    assert (gate.most, gate.came) == (3, 8)


def test_concurrency_holds_within_one_instance(working: Open, gate: Gate) -> None:
    runner = working(Items, concurrency=4)
    handle = runner.start(Items(items=list(range(10))))
    gate.wait(here=4)
    gate.open()
    assert handle.result(PATIENCE) == 10
    assert (gate.most, gate.came) == (4, 10)


@pytest.mark.slow
def test_ten_thousand_async_steps_are_in_flight_at_once(working: Open, gate: Gate) -> None:
    runner = working(Items, concurrency=10_000)
    handles = [runner.start(Items(items=list(range(100)))) for _ in range(100)]
    gate.wait(here=10_000)
    gate.open()
    assert [handle.result(PATIENCE) for handle in handles] == [100] * 100
    assert gate.most == 10_000


class Pair(Workflow):
    """One step that stands at the gate, and one beside it that does not."""

    quick: int = 0

    def stand(self) -> int:
        GATE.hold()
        return 1

    def pass_by(self) -> int:
        return 1

    def keep(self, value: int) -> None:
        self.quick += value

    def definition(self) -> Section[int]:
        return S(
            Parallel(
                "both",
                S(Step(self.stand, then=lambda _: None)),
                S(Step(self.pass_by, then=self.keep)),
            ),
            Return(lambda: self.quick),
        )


def test_a_place_that_becomes_free_goes_to_an_instance_that_is_at_work(working: Open, gate: Gate) -> None:
    """Its own long step must not keep the instance from a place that another instance leaves."""
    runner = working(Pair, Async, concurrency=2)
    blocker = runner.start(Async())
    gate.wait(here=1)
    pair = runner.start(Pair())
    gate.wait(here=2)
    blocker.kill()
    wait_for(runner, pair, lambda: pair.state.quick == 1)
    assert gate.here == 1


def test_a_slow_sync_action_never_stops_the_loop(working: Open, gate: Gate) -> None:
    runner = working(Sync, Items)
    slow = [runner.start(Sync()) for _ in range(3)]
    gate.wait(here=3)
    assert runner.start(Items(items=[])).result(PATIENCE) == 0
    gate.open()
    assert [handle.result(PATIENCE) for handle in slow] == [1, 1, 1]


# -- what blocks the loop ----------------------------------------------------------------------------------------------


class Blocking(Workflow):
    """An async action that never awaits."""

    async def compute(self) -> None:
        GATE.hold()

    def definition(self) -> Section[int]:
        return S(Step(self.compute), Return(1))


class Heard(logging.Handler):
    """Waits for one message of a log."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self._found = Event()
        self.message = ""

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage() and not self._found.is_set():
            self.message = record.getMessage()
            self._found.set()

    def wait(self) -> str:
        assert self._found.wait(PATIENCE), f"nothing was said about {self._text!r}"
        return self.message


def test_a_warning_names_the_async_action_that_blocks_the_loop(working: Open, gate: Gate) -> None:
    heard = Heard("blocks the event loop")
    log = logging.getLogger("runner.work.execution")
    log.addHandler(heard)
    try:
        runner = working(Blocking)
        handle = runner.start(Blocking(), id="b-1")
        message = heard.wait()
    finally:
        log.removeHandler(heard)
    assert message.startswith("Blocking/b-1 compute blocks the event loop for ")
    assert "make it a plain function" in message
    gate.open()
    assert handle.result(PATIENCE) == 1


class Timer(Workflow):
    """Needs no place: a moment after its start it ends."""

    def definition(self) -> Section[str]:
        return S(WaitFor("a moment", timedelta(milliseconds=20)), Return("over"))


def test_a_timer_fires_though_every_place_is_taken(working: Open, gate: Gate) -> None:
    runner = working(Async, Timer, concurrency=1)
    runner.start(Async())
    gate.wait(here=1)
    timers = [runner.start(Timer()) for _ in range(50)]
    assert [timer.result(PATIENCE) for timer in timers] == ["over"] * 50
    assert gate.here == 1


def test_a_timer_fires_though_many_wait_for_a_place(working: Open, gate: Gate) -> None:
    runner = working(Async, Timer, concurrency=1)
    for _ in range(30):
        runner.start(Async())
    gate.wait(here=1)
    assert runner.start(Timer()).result(PATIENCE) == "over"
    assert gate.came == 1
