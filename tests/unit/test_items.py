"""Live items: keys that go, containers that change, and callables of items that fail (docs/statements.md, rules 2, 4)."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, PositiveInt

from asyncflow import (
    For,
    ForEach,
    Go,
    HandlerFailed,
    On,
    Parallel,
    Raise,
    Return,
    S,
    Section,
    Select,
    Simulation,
    Step,
    Try,
    WaitEvent,
    Workflow,
    event,
    simulate,
)


class Item(BaseModel):
    n: int = 0


class Base(Workflow):
    items: dict[str, Item] | None = {"a": Item(n=1), "b": Item(n=2)}
    rows: list[PositiveInt] = [1, 2]
    broken: bool = False
    log: list[str] = []

    @event
    def clear(self) -> None:
        self.items = None

    @event
    def drop(self, key: str) -> None:
        if self.items:
            self.items.pop(key, None)

    @event
    def breaks(self, broken: bool) -> None:
        self.broken = broken

    @event
    def push(self, rows: list[int]) -> None:
        self.rows += rows

    @event
    def trim(self) -> None:
        self.rows.pop()

    def control(self) -> Go:
        events = (self.clear, self.drop, self.breaks, self.push, self.trim)
        return Go("control", For("for ever", True, Select("control", *(On(one) for one in events))))


def run(workflow: Workflow, **arguments: Any) -> Simulation[Any]:
    return simulate(workflow, evict=True, skip_backoff=False, **arguments)


def wait(item: Any) -> Section[Any]:
    return S(WaitEvent("go"))


# -- callables that fail -----------------------------------------------------------------------------------------------


def looping(parallel: int) -> Base:
    class Looping(Base, name=f"Looping{parallel}"):
        def found(self) -> dict[str, Item]:
            if self.broken:
                raise KeyError("the items")
            return self.items or {}

        def body(self, item: Item) -> Section[Any]:
            return wait(item)

        def definition(self) -> Section[Any]:
            return S(self.control(), ForEach("each", self.found, self.body, parallel=parallel), Return("end"))

    return Looping()


@pytest.mark.parametrize("parallel", [1, 3])
def test_items_that_raise_park_who_stands_there_and_never_the_event(parallel: int) -> None:
    sim = run(looping(parallel))
    sim.send("breaks", True)
    assert sim.status == "Paused"
    assert sim.error is not None
    assert (sim.error.type, sim.error.path) == ("KeyError", "each")
    assert sim.waiting == {"clear", "drop", "breaks", "push", "trim"}
    sim.send("breaks", False)
    for thread in [name for name in sim.threads if name != "control"]:
        sim.retry(thread)
    assert sim.status == "Running"
    for _ in range(2):
        sim.send("go")
    assert sim.output == "end"


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("bad", ["a", "b"])
def test_a_body_that_raises_for_an_item_can_be_tried_again(parallel: int, bad: str) -> None:
    class Bodies(Base, name=f"Bodies{parallel}{bad}"):
        def body(self, item: Item) -> Section[Any]:
            if item.__dict__ and item.n == {"a": 1, "b": 2}[bad] and self.broken:
                raise ValueError("no body")
            return wait(item)

        def definition(self) -> Section[Any]:
            each = ForEach("each", lambda: self.items or {}, self.body, parallel=parallel)
            return S(self.control(), each, Return("end"))

    sim = run(Bodies(broken=True))
    if parallel == 1 and bad == "b":
        sim.send("go")
    assert sim.status == "Paused"
    assert sim.error is not None
    assert (sim.error.message, sim.error.path) == ("no body", "each")
    left = 1 if (parallel, bad) == (1, "b") else 2
    if (parallel, bad) == (2, "b"):
        sim.send("go")
        left = 1
    sim.send("breaks", False)
    sim.retry()
    assert sim.status == "Running"
    for _ in range(left):
        sim.send("go")
    assert sim.output == "end"


@pytest.mark.parametrize("verb", ["cancel", "kill"])
def test_a_loop_parked_beside_its_running_items_can_be_ended(verb: str) -> None:
    class Beside(Base):
        def body(self, item: Item) -> Section[Any]:
            if item.__dict__ and item.n == 2:
                raise ValueError("no body")
            return wait(item)

        def definition(self) -> Section[Any]:
            return S(ForEach("each", lambda: self.items or {}, self.body, parallel=2))

    sim = run(Beside())
    assert set(sim.threads) == {"main", "each/a"}
    getattr(sim, verb)()
    assert sim.status == "Cancelled"


@pytest.mark.parametrize("parallel", [1, 2])
def test_items_that_are_no_container_any_more_are_gone_and_the_loop_is_parked(parallel: int) -> None:
    class Cleared(Base, name=f"Cleared{parallel}"):
        def body(self, item: Item) -> Section[Any]:
            return wait(item)

        def definition(self) -> Section[Any]:
            each = ForEach("each", lambda: self.items, self.body, parallel=parallel)  # type: ignore[arg-type, return-value]
            return S(self.control(), each)

    sim = run(Cleared())
    sim.send("clear")
    assert sim.status == "Paused"
    assert set(sim.threads) == {"main", "control"}
    assert sim.error is not None
    assert "a dict or a list" in sim.error.message


# -- lists -------------------------------------------------------------------------------------------------------------


class Rows(Base):
    def definition(self) -> Section[Any]:
        return S(self.control(), ForEach("each", lambda: self.rows, wait), Return("end"))


def test_a_list_grows_under_its_loop_and_never_shrinks() -> None:
    sim = run(Rows())
    sim.send("push", [3])
    with pytest.raises(HandlerFailed) as refused:
        sim.send("trim")
    assert "only grow" in str(refused.value.__cause__)
    assert sim.state.rows == [1, 2, 3]
    for _ in range(3):
        sim.send("go")
    assert sim.output == "end"


def test_a_change_that_was_refused_leaves_no_trace_in_the_length_of_a_list() -> None:
    sim = run(Rows())
    with pytest.raises(HandlerFailed):
        sim.send("push", [5, -1])
    sim.send("drop", "a")
    sim.send("push", [7])
    assert sim.state.rows == [1, 2, 7]


@pytest.mark.parametrize("parallel", [2, 3])
def test_a_parallel_loop_begins_what_is_appended(parallel: int) -> None:
    class Beside(Base, name=f"Beside{parallel}"):
        def definition(self) -> Section[Any]:
            each = ForEach("each", lambda: self.rows, wait, parallel=parallel)
            return S(self.control(), each, Return("end"))

    sim = run(Beside())
    sim.send("push", [3, 4])
    assert len(sim.threads) == 2 + parallel
    for _ in range(4):
        sim.send("go")
    assert sim.output == "end"


# -- keys that go ------------------------------------------------------------------------------------------------------


class Line(BaseModel):
    n: int = 0


class Order(BaseModel):
    lines: dict[str, Line] = {}


BODIES = ("select", "try", "parallel", "then", "backoff", "parked", "join", "finally", "undo", "empty")


class Orders(Workflow):
    """Nested loops over dicts; `kind` of the class says where the threads of the lines stand."""

    orders: dict[str, Order] = {
        "o1": Order(lines={"a": Line(), "b": Line()}),
        "o2": Order(lines={"c": Line()}),
    }
    log: list[str] = []

    @event
    def drop(self, key: str) -> None:
        self.orders.pop(key, None)
        for order in self.orders.values():
            order.lines.pop(key, None)

    def note(self) -> None:
        self.log.append("note")

    def ask(self) -> int:
        return 1

    def put(self, n: int) -> None:
        self.log.append("put")

    def fail(self) -> None:
        raise ValueError

    def line(self, kind: str) -> Section[Any]:
        done = Step("done", self.note, undo=self.fail if kind == "undo" else self.note)
        go = WaitEvent("go")
        bodies: dict[str, Callable[[], Section[Any]]] = {
            "select": lambda: S(go),
            "try": lambda: S(Try(done, go).Except(Exception, Step(self.note)).Finally(Step(self.note))),
            "parallel": lambda: S(Parallel("p", S(done, go), S(WaitEvent("go too")))),
            "then": lambda: S(Step("slow", self.ask, then=self.put, undo=self.note)),
            "backoff": lambda: S(Step(self.fail)),
            "parked": lambda: S(Step("slow", self.ask, then=lambda n: self.fail())),
            "join": lambda: S(Go("inner", WaitEvent("inner")), go),
            "finally": lambda: S(Try(done).Finally(go)),
            "undo": lambda: S(Try(done, Raise(ValueError())).Except(ValueError, go)),
            "empty": S,
        }
        return bodies[kind]()


def orders(kind: str, outer: int, inner: int) -> Orders:
    class Nested(Orders, name=f"Nested_{kind}_{outer}_{inner}"):
        def definition(self) -> Section[Any]:
            def of_line(line: Line) -> Section[Any]:
                return self.line(kind)

            def of_order(order: Order) -> Section[Any]:
                return S(ForEach("lines", lambda: order.lines, of_line, parallel=inner), WaitEvent("order"))

            control = Go("control", For("for ever", True, WaitEvent(self.drop)))
            return S(control, ForEach("orders", lambda: self.orders, of_order, parallel=outer), Return("end"))

    return Nested()


@pytest.mark.filterwarnings("ignore::asyncflow.checks.DefinitionWarning")
@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("outer, inner", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_key_may_go_whatever_its_item_is_at(kind: str, outer: int, inner: int) -> None:
    held = {"slow"} if kind == "then" else set()
    for keys in (["a"], ["b"], ["o1"], ["a", "b"], ["o2", "c"], ["o1", "o2"]):
        sim = run(orders(kind, outer, inner), hold=held)
        kept = simulate(type(sim.state)(), hold=held, skip_backoff=False)
        for key in keys:
            sim.send("drop", key)
            kept.send("drop", key)
            assert not [name for name in sim.threads if key in name.split("/")]
        assert (sim.threads, sim.state, sim.status) == (kept.threads, kept.state, kept.status)
        if keys == ["o1", "o2"]:
            assert sim.output == "end"


@pytest.mark.filterwarnings("ignore::asyncflow.checks.DefinitionWarning")
def test_the_result_of_an_item_that_is_gone_is_dropped() -> None:
    sim = run(orders("then", 2, 2), hold={"slow"})
    held = sim.held("slow", thread="orders/o1/lines/a")
    sim.send("drop", "a")
    before = sim.state
    held.finish()
    assert sim.state == before
    sim.held("slow", thread="orders/o1/lines/b").finish()
    assert sim.state.log == ["put"]
