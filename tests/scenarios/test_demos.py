"""The demo workflows of the ancestor, each from start to end."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Literal, Never, Self

import pytest
from pydantic import BaseModel

from asyncflow import (
    After,
    For,
    Go,
    If,
    On,
    Rejected,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitFor,
    When,
    event,
)
from tests.scenarios.drivers import Drive, Instance, scenario
from tests.scenarios.traced import Traced, trace

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class Group(Traced):
    size: int
    i: int = 0
    wg: int = 0

    def create_thread(self) -> None:
        self.i += 1
        self.wg += 1

    def done(self) -> None:
        self.wg -= 1
        self.mark("p2")

    def create(self) -> Section[Never]:
        return S(
            Step("init", self.mark, "init"),
            For(
                "creating",
                lambda: self.i < self.size,
                Step(self.create_thread),
                Go(
                    "thread",
                    Step("p1", self.mark, "p1"),
                    Select("nap", After(5 * SECOND)),
                    Step("p2", self.done),
                    id=lambda: str(self.i),
                ),
            ),
        )


class WaitGroupDemo(Group):
    def definition(self) -> Section[str]:
        return S(
            self.create(),
            Select(
                "group",
                When("all are done", lambda: self.wg == 0, Step("WG STEP", self.mark, "WG STEP")),
                After(60 * SECOND, Step("too late", self.mark, "too late")),
            ),
            Step("init2", self.mark, "init2"),
            Return("result"),
        )


@scenario()
def test_wait_group_demo(drive: Drive) -> None:
    run = drive.start(WaitGroupDemo(size=2))
    assert trace(run) == "init;p1;p1"
    assert run.threads == {"main": "group", "thread/1": "creating/thread/nap", "thread/2": "creating/thread/nap"}
    drive.advance(5 * SECOND)
    assert trace(run) == "init;p1;p1;p2;p2;WG STEP;init2"
    assert run.output == "result"
    drive.advance(60 * SECOND)
    assert trace(run) == "init;p1;p1;p2;p2;WG STEP;init2"


class FiveThreads(Group):
    def definition(self) -> Section[str]:
        return S(
            self.create(),
            Select("rest", After(15 * SECOND)),
            Step("init2", self.mark, "init2"),
            Return("result"),
        )


@scenario()
def test_five_thread_demo(drive: Drive) -> None:
    run = drive.start(FiveThreads(size=5))
    drive.advance(5 * SECOND)
    assert trace(run) == "init" + ";p1" * 5 + ";p2" * 5
    assert run.threads == {"main": "rest"}
    drive.advance(10 * SECOND)
    assert run.output == "result"
    assert run.threads == {}


class Bank:
    """The other side of a transaction."""

    verdict: Literal["Captured", "Settled", "Rejected"] = "Captured"


@pytest.fixture(autouse=True)
def _bank_is_undecided() -> Iterator[None]:
    Bank.verdict = "Captured"
    yield
    Bank.verdict = "Captured"


class Transfer(BaseModel):
    amount: Decimal


class TransactionFlow(Traced):
    amount: Decimal
    status: Literal["New", "Captured", "Settled", "Rejected", "Refunded"] = "New"
    refunded: Decimal = Decimal(0)

    @classmethod
    def start(cls, request: Transfer) -> Self:
        if request.amount < 0:
            raise Rejected("the amount is below zero", code=422)
        return cls(amount=request.amount)

    @event
    def capture(self) -> None:
        self.status = "Captured"

    def capture_late(self) -> None:
        self.mark("captured after an hour")
        self.capture()

    @event
    def abort(self) -> None:
        self.mark("aborted")

    @event
    def refund(self, transfer: Transfer) -> Decimal:
        if transfer.amount > self.amount:
            raise Rejected("more than was captured")
        self.refunded, self.status = transfer.amount, "Refunded"
        return self.amount - transfer.amount

    @event(role="operator")
    def force_deposit(self) -> None:
        self.mark("forced")

    def poll(self) -> None:
        self.mark("poll")
        self.status = Bank.verdict

    def definition(self) -> Section[str]:
        return S(
            Step("begin", self.mark, "begin"),
            WaitEvent(
                "authorize",
                Select(
                    "capture or not",
                    On(self.capture),
                    On(self.abort, Return("aborted")),
                    After(HOUR, self.capture_late),
                ),
            ),
            WaitFor("settling", 5 * MINUTE),
            For(
                "polling",
                lambda: self.status == "Captured",
                Select("next", After(HOUR, Step(self.poll)), On(self.refund, Return("refunded"))),
            ),
            If("rejected", lambda: self.status == "Rejected", WaitEvent(self.force_deposit, Return("forced"))),
            Return("settled"),
        )


def start_transaction(drive: Drive) -> Instance[TransactionFlow]:
    Bank.verdict = "Captured"  # a scenario is run many times where every save crashes
    run = drive.start(TransactionFlow.start(Transfer(amount=Decimal(10))))
    run.send("authorize")
    assert run.waiting == {"capture", "abort"}
    return run


def test_transaction_of_a_negative_amount_is_refused() -> None:
    with pytest.raises(Rejected, match="below zero"):
        TransactionFlow.start(Transfer(amount=Decimal(-1)))


@scenario()
def test_transaction_is_aborted(drive: Drive) -> None:
    run = start_transaction(drive)
    run.send(TransactionFlow.abort)
    assert run.output == "aborted"


@scenario()
def test_transaction_is_captured_and_settled_on_the_second_poll(drive: Drive) -> None:
    run = start_transaction(drive)
    run.send(TransactionFlow.capture)
    assert run.threads == {"main": "settling"}
    drive.advance(5 * MINUTE)
    drive.advance(HOUR)
    assert trace(run) == "begin;poll"
    assert run.threads == {"main": "polling/next"}
    Bank.verdict = "Settled"
    drive.advance(HOUR)
    assert trace(run) == "begin;poll;poll"
    assert run.output == "settled"


@scenario()
def test_transaction_is_captured_by_the_clock_and_refunded(drive: Drive) -> None:
    run = start_transaction(drive)
    drive.advance(HOUR)
    drive.advance(5 * MINUTE)
    with pytest.raises(Rejected, match="more than was captured"):
        run.send(TransactionFlow.refund, Transfer(amount=Decimal(11)))
    assert run.send(TransactionFlow.refund, Transfer(amount=Decimal(4))) == Decimal(6)
    assert run.state.refunded == Decimal(4)
    assert trace(run) == "begin;captured after an hour"
    assert run.output == "refunded"


@scenario()
def test_transaction_that_the_bank_rejects_is_forced(drive: Drive) -> None:
    run = start_transaction(drive)
    run.send(TransactionFlow.capture)
    drive.advance(5 * MINUTE)
    Bank.verdict = "Rejected"
    drive.advance(HOUR)
    assert run.waiting == {"force_deposit"}
    run.send(TransactionFlow.force_deposit)
    assert run.output == "forced"


class ExampleFlow(Traced):
    b: int = 0
    name: str = ""

    @event
    def confirm(self, name: str) -> "ExampleFlow":
        self.name = name
        return self

    def increment(self) -> None:
        self.b += 1

    def definition(self) -> Section[None]:
        return S(
            Step("init", self.mark, "init"),
            If("fresh", lambda: self.b == 0, Step("greet", self.mark, "greet")),
            For("counting", lambda: self.b < 5, Step(self.increment), Step("log", self.mark, "log")),
            Select(
                "wait",
                After(100 * SECOND, Step("expire", self.mark, "expire")),
                On(self.confirm, Step("first", self.mark, "first"), Step("second", self.mark, "second")),
            ),
        )


BEFORE = "init;greet;log;log;log;log;log"


@scenario()
def test_example_flow_is_confirmed(drive: Drive) -> None:
    run = drive.start(ExampleFlow())
    assert trace(run) == BEFORE
    confirmed = run.send("confirm", "ann")
    assert confirmed.name == "ann"
    assert trace(run) == f"{BEFORE};first;second"
    assert run.status == "Finished"


@scenario()
def test_example_flow_expires(drive: Drive) -> None:
    run = drive.start(ExampleFlow())
    drive.advance(100 * SECOND)
    assert trace(run) == f"{BEFORE};expire"
    assert run.status == "Finished"
