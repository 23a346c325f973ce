"""docs/limits.md: past a limit the last good document stays, and who would pass it gets a clear error."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from asyncflow import (
    AnswerDropped,
    For,
    ForEach,
    Full,
    HandlerFailed,
    On,
    Rejected,
    Retry,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace

KIB = 1024


class Item(BaseModel):
    name: str = ""


class Fan(Traced):
    items: dict[str, Item]

    def definition(self) -> Section[None]:
        return S(ForEach("items", lambda: self.items, lambda item: Section("one", WaitEvent("go on")), parallel=5_000))


def items(number: int) -> dict[str, Item]:
    return {f"i{n}": Item() for n in range(number)}


def test_a_thousand_threads_besides_main() -> None:
    run = evicted(Fan(items=items(1_000)))
    assert run.status == "Running"
    assert len(run.threads) == 1_001


def test_a_walk_that_begins_more_threads_is_parked() -> None:
    run = evicted(Fan(items=items(1_001)))
    assert run.status == "Paused"
    assert run.error is not None
    assert run.error.type != "RunawayWorkflow"
    assert "1000" in run.error.message.replace(",", "").replace("_", "")


class Growing(Traced):
    text: str = ""

    @event
    def append(self, size: int) -> int:
        self.text += "x" * (size * KIB)
        return len(self.text)

    @event
    def grow(self) -> None: ...

    def double(self) -> None:
        self.text += self.text

    def definition(self) -> Section[None]:
        return S(
            For(
                "loop",
                True,
                Select("next", On(self.append), On(self.grow, Step(self.double, retry=Retry(max_attempts=1)))),
            )
        )


def test_an_event_that_would_make_the_document_too_large_is_refused() -> None:
    """None may bring it over 640 KiB: the rest belongs to results and steps."""
    run = evicted(Growing())
    run.send(Growing.append, 600)
    with pytest.raises(Full) as refused:
        run.send(Growing.append, 60)
    assert refused.value.code == 429
    assert len(run.state.text) == 600 * KIB
    run.send(Growing.append, 10)
    assert len(run.state.text) == 610 * KIB


def test_a_step_that_would_make_the_document_too_large_is_parked() -> None:
    """900 KiB; rule 18: nothing is changed."""
    run = evicted(Growing(text="x" * (500 * KIB)))
    run.send(Growing.grow)
    assert run.status == "Paused"
    assert run.threads == {"main": "loop/next/grow/double"}
    assert len(run.state.text) == 500 * KIB


class Big(Traced):
    def fetch(self) -> str:
        return "x" * (1_000 * KIB)

    def definition(self) -> Section[None]:
        return S(Step(self.fetch, then=self.mark, retry=Retry(max_attempts=1)))


def test_a_result_that_would_make_the_document_too_large_is_parked() -> None:
    run = evicted(Big())
    assert run.status == "Paused"
    assert trace(run) == ""
    run.skip(value="small")
    assert trace(run) == "small"


class Deep(Traced):
    anything: object = None

    @event
    def bury(self, depth: int) -> None:
        value: object = "bottom"
        for _ in range(depth):
            value = [value]
        self.anything = value

    @event
    def count(self, number: int) -> None:
        self.anything = number

    @event
    def accept(self, value: float) -> None:
        self.anything = value

    def definition(self) -> Section[None]:
        return S(For("loop", True, Select("next", On(self.bury), On(self.count), On(self.accept))))


def test_a_handler_may_not_leave_what_restricted_json_cannot_hold() -> None:
    """Rules 5 and 26: answered 500, nothing changed."""
    run = evicted(Deep())
    run.send(Deep.bury, 60)
    run.send(Deep.count, 2**53 - 1)
    with pytest.raises(HandlerFailed):
        run.send(Deep.bury, 65)
    assert run.state.anything == 2**53 - 1
    assert run.status == "Running"


class Texts(Traced):
    def fail(self) -> None:
        raise ValueError("long " * 10_000)

    def definition(self) -> Section[None]:
        return S(Step(self.fail, retry=Retry(max_attempts=1)))


def test_the_text_of_an_error_is_cut() -> None:
    run = evicted(Texts())
    assert run.error is not None
    assert len(run.error.message.encode()) <= 8 * KIB
    assert run.error.message.startswith("long long")
    assert len(run.error.traceback.encode()) <= 64 * KIB


class Answering(Traced):
    @event
    def tell(self, size: int) -> str:
        if size < 0:
            raise Rejected("too small")
        self.mark("told")
        return "x" * (size * KIB)

    def definition(self) -> Section[None]:
        return S(For("loop", True, Select("next", On(self.tell))))


def test_a_large_answer_is_given_but_not_kept() -> None:
    """Rule 27: a repeat whose answer is gone is told so, and the handler does not run again."""
    run = evicted(Answering())
    assert len(run.send(Answering.tell, 33, idempotency_key="large")) == 33 * KIB
    assert len(run.send(Answering.tell, 31, idempotency_key="small")) == 31 * KIB
    assert len(run.send(Answering.tell, 31, idempotency_key="small")) == 31 * KIB
    with pytest.raises(AnswerDropped):
        run.send(Answering.tell, 33, idempotency_key="large")
    assert trace(run) == "told;told"


class Counts(Traced):
    n: int = 0

    @event
    def count(self) -> int:
        self.n += 1
        return self.n

    def definition(self) -> Section[None]:
        return S(For("loop", True, Select("next", On(self.count))))


def test_answers_of_a_week_ago_are_forgotten() -> None:
    """docs/limits.md: `seen` keeps ids for 7 days."""
    run = evicted(Counts())
    assert run.send(Counts.count, idempotency_key="k") == 1
    run.advance(timedelta(days=6))
    assert run.send(Counts.count, idempotency_key="k") == 1
    run.advance(timedelta(days=2))
    assert run.send(Counts.count, idempotency_key="other") == 2
    assert run.send(Counts.count, idempotency_key="k") == 3
