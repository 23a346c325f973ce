"""P16, P22, P23, P30, P31: what an event may look like, and who gets it."""

import base64
from datetime import timedelta
from typing import Literal

import pytest
from pydantic import BaseModel

from asyncflow import (
    Break,
    For,
    Go,
    HandlerFailed,
    InvalidInput,
    NotAwaited,
    On,
    Pending,
    Rejected,
    S,
    Section,
    Select,
    Simulation,
    Step,
    WaitEvent,
    WaitUntil,
    event,
)
from tests.scenarios.drivers import Drive, Instance, evicted, scenario
from tests.scenarios.traced import Traced, trace


class Amount(BaseModel):
    value: int
    unit: Literal["g", "kg"] = "g"


class P16(Traced):
    total: int = 0

    @event
    def bare(self) -> None:
        self.mark("bare")

    @event
    def give(self) -> Amount:
        self.mark("give")
        return Amount(value=self.total)

    @event
    def take(self, amount: Amount) -> None:
        self.total += amount.value

    @event
    def swap(self, amount: Amount) -> Amount:
        self.total, old = amount.value, self.total
        return Amount(value=old, unit=amount.unit)

    @event
    def count(self, number: int) -> list[int]:
        return list(range(number))

    @event
    def attach(self, data: bytes) -> bytes:
        return data[::-1]

    @event
    def postpone(self, by: timedelta | None) -> timedelta | None:
        return by and by * 2

    @event
    def merge(self, numbers: dict[str, int]) -> dict[str, int]:
        return {key: number + 1 for key, number in numbers.items()}

    @event(schema={"type": "object", "required": ["age"], "properties": {"age": {"type": "integer", "minimum": 18}}})
    def enter(self, guest: dict[str, int]) -> int:
        return guest["age"]

    @event
    def refuse(self) -> None:
        self.mark("refused")
        raise Rejected("not today", code=418)

    @event
    def refuse_amount(self, amount: Amount) -> Amount:
        self.total = amount.value
        raise Rejected("too much")

    @event
    def stumble(self) -> None:
        self.mark("stumbled")
        raise RuntimeError("a fault of the code")

    @event
    def stop(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            For(
                "serving",
                True,
                Select(
                    "next",
                    *(On(self.bare), On(self.give), On(self.take), On(self.swap), On(self.count), On(self.attach)),
                    *(On(self.postpone), On(self.merge), On(self.enter)),
                    *(On(self.refuse), On(self.refuse_amount), On(self.stumble)),
                    On(self.stop, Break()),
                ),
            )
        )


@scenario()
def test_p16_handlers_without_input(drive: Drive) -> None:
    run = drive.start(P16(total=3))
    run.send(P16.bare)
    assert run.send(P16.give) == Amount(value=3)
    assert trace(run) == "bare;give"


@scenario()
def test_p16_handlers_with_a_model_as_input(drive: Drive) -> None:
    run = drive.start(P16())
    run.send(P16.take, Amount(value=3))
    assert run.state.total == 3
    assert run.send(P16.swap, Amount(value=5, unit="kg")) == Amount(value=3, unit="kg")
    run.send("take", {"value": 1})
    assert run.state.total == 6


@scenario()
def test_p16_handlers_with_any_type_that_pydantic_can_validate(drive: Drive) -> None:
    run = drive.start(P16())
    assert run.send(P16.count, 3) == [0, 1, 2]
    assert run.send(P16.attach, b"\x00\xff") == b"\xff\x00"
    assert run.send(P16.postpone, timedelta(hours=1)) == timedelta(hours=2)
    assert run.send(P16.postpone, None) is None
    assert run.send(P16.merge, {"a": 1}) == {"a": 2}


@scenario()
def test_p16_a_plain_json_schema_is_checked(drive: Drive) -> None:
    run = drive.start(P16())
    assert run.send(P16.enter, {"age": 18}) == 18
    with pytest.raises(InvalidInput):
        run.send("enter", {"age": 17})
    with pytest.raises(InvalidInput):
        run.send("enter", {})


@scenario()
def test_p16_a_refusal_gives_its_code_and_changes_nothing(drive: Drive) -> None:
    run = drive.start(P16())
    with pytest.raises(Rejected, match="not today") as refused:
        run.send(P16.refuse)
    assert refused.value.code == 418
    with pytest.raises(Rejected, match="too much") as refused:
        run.send(P16.refuse_amount, Amount(value=9))
    assert refused.value.code == 409
    with pytest.raises(HandlerFailed):
        run.send(P16.stumble)
    assert run.state.model_dump() == P16().model_dump()
    assert run.status == "Running"


@scenario()
def test_p16_input_that_does_not_fit_runs_no_handler(drive: Drive) -> None:
    run = drive.start(P16())
    unfit: list[tuple[str, object]] = [
        ("take", None),
        ("take", {"value": "much"}),
        ("bare", 1),
        ("count", {}),
        ("merge", {"a": []}),
    ]
    for name, value in unfit:
        with pytest.raises(InvalidInput):
            run.send(name, value)
    assert run.state.model_dump() == P16().model_dump()


def test_p16_bytes_are_base64_in_json() -> None:
    """Rule 5."""
    run: Simulation[P16] = evicted(P16())
    assert run.send("attach", base64.b64encode(b"\x01\x02").decode()) == b"\x02\x01"


class OneStepTwoEvents(Traced):
    @event
    def go(self) -> str:
        self.mark("go")
        return f"go {len(self.log)}"

    @event
    def stop(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Step("charge", self.mark, "charge"),
            For("events", True, Select("next", On(self.go), On(self.stop, Break()))),
        )


@scenario()
def test_p22_a_doubled_delivery_has_one_effect_and_one_answer(drive: Drive) -> None:
    run = drive.start(OneStepTwoEvents())
    first = run.send(OneStepTwoEvents.go, idempotency_key="k1")
    assert run.send(OneStepTwoEvents.go, idempotency_key="k1") == first
    assert trace(run) == "charge;go"
    run.send(OneStepTwoEvents.stop)
    assert run.send(OneStepTwoEvents.go, idempotency_key="k1") == first
    assert trace(run) == "charge;go"


@scenario()
def test_p22_a_wake_up_that_finds_nothing_due_changes_nothing(drive: Drive) -> None:
    run = drive.start(OneStepTwoEvents())
    drive.advance(timedelta(0))
    drive.advance(timedelta(0))
    assert trace(run) == "charge"
    assert run.threads == {"main": "events/next"}


def test_p22_a_doubled_result_has_one_effect() -> None:
    """Rule 14: a token that is no longer there drops the result."""
    run = evicted(OneStepTwoEvents(), hold={"charge"})
    lost = run.held("charge")
    lost.lapse()
    run.held("charge").finish()
    lost.finish()
    assert trace(run) == "charge"
    assert run.waiting == {"go", "stop"}


class EventAfterStep(Traced):
    @event
    def paid(self) -> str:
        self.mark("paid")
        return "thanks"

    @event
    def never_awaited_here(self) -> None:
        self.mark("bad")

    @event
    def stop(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Step("charge", self.mark, "charge"),
            WaitEvent(self.paid),
            WaitEvent(self.stop),
            WaitEvent(self.never_awaited_here),
        )


def test_p23_an_event_during_a_step_is_handled_when_the_step_has_ended() -> None:
    """Rules 13 and 25: it lies in the inbox, the step runs, and the thread then waits for it."""
    run = evicted(EventAfterStep(), hold={"charge"})
    with pytest.raises(Pending) as pending:
        run.send(EventAfterStep.paid)
    assert trace(run) == ""
    run.held("charge").finish()
    assert trace(run) == "charge;paid"
    assert run.send(EventAfterStep.paid, idempotency_key=pending.value.idempotency_key) == "thanks"
    assert trace(run) == "charge;paid"


def test_p23_an_event_during_a_step_is_refused_when_nobody_awaits_it_at_rest() -> None:
    """Rules 25 and 27: 409 once the instance has come to rest, and the answer is kept because the message had lain."""
    run = evicted(EventAfterStep(), hold={"charge"})
    with pytest.raises(Pending) as pending:
        run.send(EventAfterStep.never_awaited_here)
    run.held("charge").finish()
    assert trace(run) == "charge"
    assert run.threads == {"main": "paid"}
    with pytest.raises(NotAwaited):
        run.send(EventAfterStep.never_awaited_here, idempotency_key=pending.value.idempotency_key)
    assert trace(run) == "charge"


class P30(Traced):
    @event
    def ev(self) -> None:
        self.mark("ev")

    def definition(self) -> Section[None]:
        return S(
            Go("child", WaitEvent(self.ev)),
            WaitUntil("something happened", lambda: self.log != []),
            Step("end", self.mark, "end"),
        )


@scenario()
def test_p30_an_event_reaches_the_thread_that_waits_for_it(drive: Drive) -> None:
    run = drive.start(P30())
    assert run.threads == {"main": "something happened", "child": "child/ev"}
    run.send(P30.ev)
    assert trace(run) == "ev;end"
    assert run.status == "Finished"


class P31(Traced):
    @event
    def ping(self) -> None:
        self.mark(self.context.thread)

    def definition(self) -> Section[None]:
        return S(
            Go("a", WaitEvent(self.ping)),
            Go("b", WaitEvent(self.ping)),
            Go("c", WaitEvent(self.ping)),
            WaitEvent("stop"),
        )


def start_p31(drive: Drive) -> Instance[P31]:
    run = drive.start(P31())
    assert run.waiting == {"ping", "stop"}
    return run


@scenario()
def test_p31_an_event_that_several_threads_await_goes_to_the_first(drive: Drive) -> None:
    run = start_p31(drive)
    run.send(P31.ping)
    run.send(P31.ping)
    assert trace(run) == "a;b"


@scenario()
def test_p31_an_event_may_name_its_thread(drive: Drive) -> None:
    run = start_p31(drive)
    run.send(P31.ping, thread="b")
    assert trace(run) == "b"
    with pytest.raises(NotAwaited):
        run.send(P31.ping, thread="b")
    run.send(P31.ping)
    run.send(P31.ping)
    assert trace(run) == "b;a;c"
    with pytest.raises(NotAwaited):
        run.send(P31.ping)
