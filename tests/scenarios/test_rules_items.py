"""docs/statements.md, "An item is live state": loops over items, and the threads of items."""

from typing import Never

import pytest
from pydantic import BaseModel

from asyncflow import (
    Break,
    Continue,
    For,
    ForEach,
    Go,
    HandlerFailed,
    If,
    Join,
    NotAwaited,
    On,
    Retry,
    S,
    Section,
    Select,
    Step,
    Try,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class Call(BaseModel):
    name: str
    verdict: str = "open"
    size: int = 0

    @event
    def approve(self) -> str:
        self.verdict = "approved"
        return self.name

    @event
    def deny(self, why: str) -> None:
        self.verdict = why

    def sized(self, size: int) -> None:
        self.size = size


class Calls(Traced):
    """A dict of items, a desk at which it is changed, and the words for its loops."""

    calls: dict[str, Call] = {}

    @event
    def remove(self, key: str) -> None:
        del self.calls[key]

    @event
    def put(self, call: Call) -> None:
        self.calls[call.name] = call

    def measure(self, call: Call) -> int:
        return len(call.name)

    def say(self, call: Call) -> str:
        return f"{self.context.thread}: {call.name} {call.verdict}"

    def note(self, name: str, call: Call) -> Step:
        """A `then` step, since plain ones run one at a time, of which registration warns."""
        return Step(name, self.say, call, then=self.mark)

    def desk(self) -> Go:
        return Go("desk", For("open", True, Select("next", On(self.remove), On(self.put))))


def three() -> dict[str, Call]:
    return {key: Call(name=key) for key in ("c1", "c2", "c3")}


class Approvals(Calls):
    def one(self, call: Call) -> Section[Never]:
        return S(
            Try(Select("approval", On(call.approve), On(call.deny)), self.note("note", call)).Finally(self.note("finally", call))
        )

    def definition(self) -> Section[None]:
        return S(self.desk(), ForEach("calls", lambda: self.calls, self.one, parallel=10), WaitEvent("stop"))


def test_each_item_is_a_thread_with_events_of_its_own() -> None:
    run = evicted(Approvals(calls=three()))
    assert run.threads["calls/c2"] == "calls/approval"
    assert run.send(Call.approve, thread="calls/c2") == "c2"
    assert trace(run) == "calls/c2: c2 approved;calls/c2: c2 approved"
    with pytest.raises(NotAwaited):
        run.send(Call.approve, thread="calls/c2")
    run.send(Call.deny, "no", thread="calls/c3")
    assert {key: call.verdict for key, call in run.state.calls.items()} == {"c1": "open", "c2": "approved", "c3": "no"}
    assert run.send(Call.approve) == "c1"
    assert run.threads["main"] == "stop"


def test_an_item_whose_key_is_gone_ends_its_thread_at_once_without_finally() -> None:
    run = evicted(Approvals(calls=three()))
    run.send(Calls.remove, "c2")
    assert set(run.threads) == {"main", "desk", "calls/c1", "calls/c3"}
    assert trace(run) == ""
    run.send(Call.approve, thread="calls/c1")
    run.send(Call.approve, thread="calls/c3")
    assert run.threads["main"] == "stop"


def test_an_item_that_was_replaced_is_the_one_its_thread_goes_on_with() -> None:
    run = evicted(Approvals(calls=three()))
    run.send(Calls.put, Call(name="c2", verdict="another"))
    assert run.threads["calls/c2"] == "calls/approval"
    run.send(Call.approve, thread="calls/c2")
    assert run.state.calls["c2"].verdict == "approved"
    assert run.state.log[0] == "calls/c2: c2 approved"


def test_a_key_that_came_later_is_not_walked() -> None:
    assert evicted(Approvals(calls={})).threads == {"main": "stop", "desk": "desk/open/next"}
    run = evicted(Approvals(calls={"c1": Call(name="c1")}))
    run.send(Calls.put, Call(name="c9"))
    assert set(run.threads) == {"main", "desk", "calls/c1"}
    run.send(Call.approve)
    assert run.threads["main"] == "stop"


class DeletesItself(Calls):
    """The handler of an item's event that deletes the item: its own case must not go on."""

    @event
    def done(self, key: str) -> None:
        del self.calls[key]

    def one(self, call: Call) -> Section[Never]:
        return S(
            Go("child", WaitEvent("never"), self.note("child", call)),
            WaitEvent(self.done, self.note("not here", call)),
        )

    def definition(self) -> Section[None]:
        return S(ForEach("calls", lambda: self.calls, self.one, parallel=10), WaitEvent("stop"))


def test_a_thread_whose_handler_deleted_its_item_ends_with_the_threads_begun_in_it() -> None:
    run = evicted(DeletesItself(calls=three()))
    assert run.threads["calls/c2/child"] == "calls/child/never"
    run.send(DeletesItself.done, "c2", thread="calls/c2")
    assert sorted(run.threads) == ["calls/c1", "calls/c1/child", "calls/c3", "calls/c3/child", "main"]
    assert trace(run) == ""


class InFlight(Calls):
    def one(self, call: Call) -> Section[Never]:
        return S(Step(self.measure, call, then=call.sized), self.note("note", call))

    def definition(self) -> Section[None]:
        return S(self.desk(), ForEach("calls", lambda: self.calls, self.one, parallel=10), WaitEvent("stop"))


def test_a_result_on_its_way_to_a_deleted_item_is_dropped() -> None:
    run = evicted(InFlight(calls=three()), hold={Calls.measure})
    held = run.held(Calls.measure, "calls/c2")
    run.send(Calls.remove, "c2")
    held.finish(99)
    assert set(run.threads) == {"main", "desk", "calls/c1", "calls/c3"}
    run.held(Calls.measure, "calls/c1").finish()
    run.held(Calls.measure, "calls/c3").finish(3)
    assert {key: call.size for key, call in run.state.calls.items()} == {"c1": 2, "c3": 3}
    assert run.threads["main"] == "stop"


class InOrder(Calls):
    def one(self, call: Call) -> Section[Never]:
        return S(WaitEvent(call.approve), self.note("note", call))

    def definition(self) -> Section[None]:
        return S(self.desk(), ForEach("calls", lambda: self.calls, self.one), WaitEvent("stop"))


def test_items_in_order_run_in_the_thread_of_the_loop() -> None:
    run = evicted(InOrder(calls=three()))
    assert run.threads["main"] == "calls/approve"
    assert run.send(Call.approve) == "c1"
    assert run.send(Call.approve) == "c2"
    assert trace(run) == "main: c1 approved;main: c2 approved"


def test_a_loop_in_order_goes_on_with_the_next_item_when_one_is_gone() -> None:
    run = evicted(InOrder(calls=three()))
    run.send(Calls.remove, "c2")
    run.send(Calls.remove, "c1")
    assert run.send(Call.approve) == "c3"
    assert run.threads["main"] == "stop"
    assert trace(run) == "main: c3 approved"


class Row(BaseModel):
    name: str


class Rows(Traced):
    rows: list[Row] = []

    @event
    def append(self, name: str) -> None:
        self.rows.append(Row(name=name))

    @event
    def drop(self) -> None:
        self.rows.pop()

    def note(self, row: Row) -> None:
        self.mark(row.name)

    def one(self, row: Row) -> Section[Never]:
        return S(
            If("skipped", lambda: row.name == "skip", Continue()).Elif("last", lambda: row.name == "break", Break()),
            WaitEvent("go on"),
            Step(self.note, row),
        )

    def definition(self) -> Section[None]:
        return S(
            Go("desk", For("open", True, Select("next", On(self.append), On(self.drop)))),
            ForEach("rows", lambda: self.rows, self.one),
            WaitEvent("stop"),
        )


def rows(*names: str) -> list[Row]:
    return [Row(name=name) for name in names]


def test_appending_to_a_list_is_seen_by_its_loop() -> None:
    run = evicted(Rows(rows=rows("a")))
    run.send(Rows.append, "b")
    for _ in range(2):
        run.send("go on")
    assert trace(run) == "a;b"
    assert run.threads["main"] == "stop"


def test_a_handler_that_shortens_a_list_under_its_loop_has_failed() -> None:
    run = evicted(Rows(rows=rows("a", "b")))
    with pytest.raises(HandlerFailed):
        run.send(Rows.drop)
    assert [row.name for row in run.state.rows] == ["a", "b"]
    run.send("go on")
    run.send("go on")
    run.send(Rows.drop)
    assert [row.name for row in run.state.rows] == ["a"]


def test_continue_and_break_are_those_of_the_loop_over_items() -> None:
    run = evicted(Rows(rows=rows("skip", "a", "break", "b")))
    run.send("go on")
    assert trace(run) == "a"
    assert run.threads["main"] == "stop"


class ShortensInStep(Traced):
    rows: list[Row]

    def shorten(self, row: Row) -> None:
        self.rows.remove(row)

    def definition(self) -> Section[None]:
        return S(
            ForEach("rows", lambda: self.rows, lambda row: Step(self.shorten, row, retry=Retry(max_attempts=1))),
        )


def test_a_step_that_shortens_a_list_under_its_loop_has_failed() -> None:
    run = evicted(ShortensInStep(rows=rows("a", "b")))
    assert run.status == "Paused"
    assert run.threads == {"main": "rows/shorten"}
    assert len(run.state.rows) == 2


class FewAtATime(Calls):
    def one(self, call: Call) -> Section[Never]:
        return S(WaitEvent(call.approve), If("no more", lambda: call.name == "c2", Continue()), self.note("note", call))

    def definition(self) -> Section[None]:
        return S(ForEach("calls", lambda: self.calls, self.one, parallel=2), Step("end", self.mark, "end"))


def test_parallel_counts_items_that_wait() -> None:
    run = evicted(FewAtATime(calls=three()))
    assert sorted(run.threads) == ["calls/c1", "calls/c2", "main"]
    run.send(Call.approve, thread="calls/c2")
    assert sorted(run.threads) == ["calls/c1", "calls/c3", "main"]
    run.send(Call.approve)
    run.send(Call.approve)
    assert trace(run) == "calls/c1: c1 approved;calls/c3: c3 approved;end"


class Line(BaseModel):
    article: str

    @event
    def pick(self) -> str:
        return self.article


class Order(BaseModel):
    lines: dict[str, Line]


class Warehouse(Traced):
    orders: dict[str, Order]

    def say(self, order: Order, line: Line) -> str:
        return f"{len(order.lines)} {line.article}"

    def one_order(self, order: Order) -> Section[Never]:
        def one_line(line: Line) -> Section[Never]:
            return S(WaitEvent(line.pick), Step(self.say, order, line, then=self.mark))

        return S(ForEach("lines", lambda: order.lines, one_line, parallel=5))

    def definition(self) -> Section[None]:
        return S(ForEach("orders", lambda: self.orders, self.one_order, parallel=5))


def test_threads_of_items_of_items_have_the_ids_of_both() -> None:
    """Rule 2."""
    order = Order(lines={"l1": Line(article="nut"), "l2": Line(article="bolt")})
    run = evicted(Warehouse(orders={"o1": order, "o2": order}))
    assert run.threads["orders/o1/lines/l1"] == "orders/lines/pick"
    of_lines = {f"orders/{order}/lines/{line}" for order in ("o1", "o2") for line in ("l1", "l2")}
    assert set(run.threads) == {"main", "orders/o1", "orders/o2"} | of_lines
    assert run.send(Line.pick, thread="orders/o2/lines/l2") == "bolt"
    assert trace(run) == "2 bolt"


def test_a_key_is_percent_encoded_in_the_id_of_its_thread() -> None:
    """Rule 2."""
    run = evicted(FewAtATime(calls={"a b/c": Call(name="c")}))
    assert run.threads == {"main": "calls", "calls/a%20b%2Fc": "calls/approve"}
    assert run.send(Call.approve, thread="calls/a%20b%2Fc") == "c"


class Guests(Calls):
    latest: str = ""

    @event
    def invite(self, name: str) -> None:
        self.calls[name] = Call(name=name)
        self.latest = name

    @event
    def close(self) -> None: ...

    def one(self, call: Call) -> Section[Never]:
        return S(Select("answer", On(call.approve), On(call.deny)), self.note("note", call))

    def definition(self) -> Section[None]:
        return S(
            For(
                "inviting",
                True,
                Select(
                    "host",
                    On(self.invite, Go("guest", lambda: self.calls, self.one, id=lambda: self.latest)),
                    On(self.remove),
                    On(self.close, Break()),
                ),
            ),
            Join("guest"),
            Step("end", self.mark, "end"),
        )


def test_go_begins_the_thread_of_one_item() -> None:
    run = evicted(Guests())
    run.send(Guests.invite, "ann")
    run.send(Guests.invite, "bob")
    run.send(Guests.invite, "cec")
    assert run.threads["guest/bob"] == "inviting/host/invite/guest/answer"
    run.send(Calls.remove, "cec")
    assert set(run.threads) == {"main", "guest/ann", "guest/bob"}
    run.send(Guests.close)
    assert run.threads["main"] == "join"
    assert run.send(Call.approve, thread="guest/bob") == "bob"
    run.send(Call.deny, "no time", thread="guest/ann")
    assert trace(run) == "guest/bob: bob approved;guest/ann: ann no time;end"
