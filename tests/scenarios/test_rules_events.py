"""Rules 25 to 28: who takes an event, what it is answered, and what its key remembers."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from asyncflow import (
    Break,
    Ended,
    For,
    Full,
    Go,
    HandlerFailed,
    InvalidInput,
    KeyReused,
    NotAwaited,
    NotFound,
    On,
    Pending,
    Rejected,
    Retry,
    S,
    Section,
    Select,
    Step,
    TerminalError,
    WaitEvent,
    event,
    query,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class Item(BaseModel):
    name: str
    price: int = 0


class Shop(Traced):
    """Most kinds of events, taken again and again."""

    items: list[Item] = []

    @event
    def add(self, item: Item) -> list[Item]:
        self.items.append(item)
        return self.items

    @event("clear_all")
    def clear(self) -> int:
        count, self.items = len(self.items), []
        return count

    @event
    def refuse(self, code: int) -> None:
        self.items = []
        raise Rejected("not today", code=code, details={"open": "tomorrow"})

    @event
    def give_up(self) -> None:
        raise TerminalError("out of business", code=451)

    @event
    def break_state(self) -> None:
        self.__dict__["items"] = "none"

    @event
    def break_answer(self) -> int:
        self.mark("broken")
        return "three"  # type: ignore[return-value]

    @event
    def who(self) -> str | None:
        return self.context.caller

    @event
    def close(self) -> None: ...

    @query
    def total(self) -> int:
        """Sum of the prices."""
        return sum(item.price for item in self.items)

    @query
    def spoil(self) -> int:
        self.items = []
        self.mark("spoilt")
        return len(self.items)

    def definition(self) -> Section[None]:
        return S(
            For(
                "open",
                True,
                Select(
                    "next",
                    *(On(self.add), On(self.clear), On(self.refuse), On(self.give_up)),
                    *(On(self.break_state), On(self.break_answer), On(self.who)),
                    On("renamed", self.clear),
                    On("bare"),
                    On(self.close, Break()),
                ),
            ),
            WaitEvent("good_night"),
        )


NUT = Item(name="nut", price=2)


def test_an_answer_is_the_handlers_value_as_a_copy() -> None:
    run = evicted(Shop())
    cart = run.send(Shop.add, NUT)
    cart.clear()
    assert run.state.items == [NUT]


def test_an_event_by_name_is_validated_and_its_answer_typed() -> None:
    run = evicted(Shop())
    assert run.send("add", {"name": "nut", "price": 2}) == [NUT]
    with pytest.raises(InvalidInput):
        run.send("add", {"name": "nut", "price": "2"})
    with pytest.raises(InvalidInput) as refused:
        run.send("add", {"price": 2})
    assert "name" in str(refused.value.details)
    assert refused.value.code == 422


def test_an_event_may_have_another_name_than_its_method() -> None:
    run = evicted(Shop(items=[NUT]))
    assert run.waiting >= {"clear_all", "renamed", "bare"}
    assert run.send(Shop.clear) == 1
    assert run.send("renamed") == 0
    assert run.send("bare") is None
    with pytest.raises(NotFound):
        run.send("clear")


def test_a_refusal_has_message_code_and_details_and_changes_nothing() -> None:
    run = evicted(Shop(items=[NUT]))
    with pytest.raises(Rejected, match="not today") as refused:
        run.send(Shop.refuse, 402)
    assert (refused.value.code, refused.value.details) == (402, {"open": "tomorrow"})
    assert run.state.items == [NUT]


def test_a_terminal_error_of_an_event_is_a_refusal_and_never_goes_into_the_tree() -> None:
    """Rule 26."""
    run = evicted(Shop())
    with pytest.raises(TerminalError, match="out of business") as refused:
        run.send(Shop.give_up)
    assert refused.value.code == 451
    assert run.status == "Running"


def test_a_handler_at_fault_is_answered_500_and_changes_nothing() -> None:
    """Rule 26: also a state or an answer that does not validate."""
    run = evicted(Shop(items=[NUT]))
    with pytest.raises(HandlerFailed) as failed:
        run.send(Shop.break_state)
    assert failed.value.code == 500
    with pytest.raises(HandlerFailed):
        run.send(Shop.break_answer)
    assert run.state.items == [NUT]
    assert trace(run) == ""
    assert run.status == "Running"


class Faulty(Traced):
    @event
    def fail(self) -> None:
        raise KeyError("x")

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.fail))


def test_the_cause_of_a_failed_handler_is_kept_for_the_log() -> None:
    run = evicted(Faulty())
    with pytest.raises(HandlerFailed) as failed:
        run.send(Faulty.fail)
    assert isinstance(failed.value.__cause__, KeyError)
    assert run.waiting == {"fail"}


def test_an_event_that_nobody_awaits_is_told_what_is_awaited() -> None:
    run = evicted(Shop())
    with pytest.raises(NotAwaited) as refused:
        run.send("good_night")
    assert refused.value.code == 409
    awaits = {awaited.event: awaited for awaited in refused.value.awaits}
    assert set(awaits) == run.waiting
    assert awaits["add"].thread == "main"
    assert awaits["add"].schema_ is not None
    assert awaits["add"].schema_["required"] == ["name"]
    assert awaits["bare"].schema_ is None


def test_an_event_that_the_tree_does_not_know_is_not_found() -> None:
    run = evicted(Shop())
    with pytest.raises(NotFound):
        run.send("rob")


def test_an_ended_instance_takes_no_event() -> None:
    run = evicted(Shop())
    run.send(Shop.close)
    run.send("good_night")
    with pytest.raises(Ended) as refused:
        run.send(Shop.add, NUT)
    assert refused.value.code == 410


def test_the_caller_is_known_to_the_handler() -> None:
    run = evicted(Shop())
    assert run.send(Shop.who, caller="ann") == "ann"
    assert run.send(Shop.who) is None


def test_a_key_that_comes_again_gives_the_same_answer_once() -> None:
    run = evicted(Shop())
    first = run.send(Shop.add, NUT, idempotency_key="k")
    run.send(Shop.add, NUT)
    assert run.send(Shop.add, NUT, idempotency_key="k") == first == [NUT]
    assert run.state.items == [NUT, NUT]
    run.send(Shop.close)
    run.send("good_night")
    assert run.send(Shop.add, NUT, idempotency_key="k") == first


def test_a_key_with_another_body_is_refused() -> None:
    """Rule 27; docs/http.md: the hash covers event, thread and body."""
    run = evicted(Shop())
    run.send(Shop.add, NUT, idempotency_key="k")
    with pytest.raises(KeyReused):
        run.send(Shop.add, Item(name="bolt"), idempotency_key="k")
    with pytest.raises(KeyReused):
        run.send(Shop.clear, idempotency_key="k")
    with pytest.raises(KeyReused):
        run.send(Shop.add, NUT, idempotency_key="k", thread="main")
    assert run.state.items == [NUT]


def test_a_refusal_is_not_kept_so_the_same_key_may_try_again() -> None:
    """Rule 27."""
    run = evicted(Shop())
    with pytest.raises(NotAwaited):
        run.send("good_night", idempotency_key="k")
    run.send(Shop.close)
    run.send("good_night", idempotency_key="k")
    assert run.status == "Finished"


def test_a_query_reads_and_changes_nothing() -> None:
    run = evicted(Shop(items=[NUT, NUT]))
    assert run.query(Shop.total) == 4
    assert run.query("total") == 4
    before = run.document
    assert run.query(Shop.spoil) == 0
    assert run.document == before
    assert run.query(Shop.total) == 4
    with pytest.raises(NotFound):
        run.query("price")
    with pytest.raises(NotFound):
        run.query("add")


def test_a_query_is_answered_after_the_end() -> None:
    run = evicted(Shop(items=[NUT]))
    run.kill()
    assert run.query(Shop.total) == 2


class Queueing(Traced):
    @event(queue=True)
    def job(self, name: str) -> str:
        self.mark(name)
        return f"did {name}"

    @event
    def work(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            For(
                "days",
                lambda: len(self.log) < 4,
                WaitEvent(self.work),
                WaitEvent(self.job, Step("rest", self.mark, "rest")),
            )
        )


def test_a_queued_event_stays_for_its_turn() -> None:
    run = evicted(Queueing())
    keys = []
    for name in ("a", "b"):
        with pytest.raises(Pending) as pending:
            run.send(Queueing.job, name)
        keys.append(pending.value.idempotency_key)
    assert trace(run) == ""
    run.send(Queueing.work)
    assert trace(run) == "a;rest"
    with pytest.raises(Pending):
        run.send(Queueing.job, "b", idempotency_key=keys[1])
    run.send(Queueing.work)
    assert trace(run) == "a;rest;b;rest"
    assert run.send(Queueing.job, "a", idempotency_key=keys[0]) == "did a"
    assert run.send(Queueing.job, "b", idempotency_key=keys[1]) == "did b"


def test_what_lies_in_the_inbox_at_the_end_is_answered_that_it_has_ended() -> None:
    """Rules 27 and 30."""
    run = evicted(Queueing())
    with pytest.raises(Pending):
        run.send(Queueing.job, "a", idempotency_key="k")
    run.kill()
    with pytest.raises(Ended):
        run.send(Queueing.job, "a", idempotency_key="k")
    assert trace(run) == ""


def test_an_inbox_that_is_full_refuses() -> None:
    """docs/limits.md: 256 KiB; the messages that lie there are kept."""
    run = evicted(Queueing())
    for number in range(4):
        with pytest.raises(Pending):
            run.send(Queueing.job, f"{number}" * 60_000)
    with pytest.raises(Full) as refused:
        run.send(Queueing.job, "5" * 60_000)
    assert refused.value.code == 429
    run.send(Queueing.work)
    assert run.state.log[0].startswith("000")


class OnTheWay(Traced):
    """A step in backoff between two waits."""

    @event
    def begin(self) -> None: ...

    @event
    def end(self) -> str:
        return "bye"

    def call(self) -> None:
        self.mark(f"called {self.context.attempt}")
        if self.context.attempt == 1:
            raise ConnectionError("no route")

    def definition(self) -> Section[None]:
        return S(
            WaitEvent(self.begin),
            Step(self.call, retry=Retry(delay=timedelta(hours=1), jitter=0)),
            WaitEvent(self.end),
        )


def test_an_event_that_comes_while_a_thread_is_on_its_way_lies_until_it_has_arrived() -> None:
    """Rule 25."""
    run = evicted(OnTheWay(), skip_backoff=False)
    run.send(OnTheWay.begin)
    with pytest.raises(Pending):
        run.send(OnTheWay.end, idempotency_key="end")
    with pytest.raises(Pending):
        run.send(OnTheWay.begin, idempotency_key="begin")
    run.advance(timedelta(hours=1))
    assert run.status == "Finished"
    assert run.send(OnTheWay.end, idempotency_key="end") == "bye"
    with pytest.raises((Ended, NotAwaited)):
        run.send(OnTheWay.begin, idempotency_key="begin")


class Addressed(Traced):
    @event
    def ping(self) -> None:
        self.mark(self.context.thread)

    def definition(self) -> Section[None]:
        return S(Go("a", WaitEvent(self.ping)), Go("b", WaitEvent("other")), WaitEvent("stop"))


def test_an_event_addressed_to_a_thread_that_does_not_await_it_is_refused() -> None:
    run = evicted(Addressed())
    for thread in ("b", "main", "nobody"):
        with pytest.raises(NotAwaited):
            run.send(Addressed.ping, thread=thread)
    assert trace(run) == ""
    run.send(Addressed.ping, thread="a")
    assert trace(run) == "a"
