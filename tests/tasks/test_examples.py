"""The examples to their ends on SQLite with a queue that delivers over HTTP, whatever the queue does to the tasks."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc
import pytest

from asyncflow import Status, Workflow
from examples import fan_out, transfer
from examples.approval import Approval
from examples.fan_out import Survey
from examples.pizza import Pizza, PizzaOrder
from examples.transfer import Bank, Transfer
from runner import Handle
from tests.runner.clocks import Clock
from tests.tasks.conftest import Open, Site

EXAMPLES: Final[list[type[Workflow]]] = [PizzaOrder, Transfer, Survey, Approval]
SECOND: Final = timedelta(seconds=1)


class World:
    """A site under a clock that a test moves, swept once a second if the mode says so."""

    def __init__(self, site: Site, clock: Clock, *, sweeps: bool) -> None:
        self.site = site
        self.runner = site.runner
        self.clock = clock
        self._sweeps = sweeps

    def until(self, fits: Callable[[], bool], step: timedelta = SECOND, seconds: int = 200) -> None:
        """Let time pass until it fits."""
        for _ in range(seconds):
            self.site.queue.settle()
            if fits():
                return
            self.clock.advance(step)
            if self._sweeps:
                self.site.sweep()
        raise AssertionError("it does not come to that")

    def waits_for(self, handle: Handle[Any], event: str) -> None:
        self.until(lambda: event in handle.waiting)

    def end(self, handle: Handle[Any]) -> Any:
        self.until(lambda: handle.status not in (Status.Running, Status.Paused))
        return handle.result(timeout=0)


def as_it_should(site: Site) -> None:
    """Every task once, in order."""


def twice(site: Site) -> None:
    site.queue.twice = True


def late_and_out_of_order(site: Site) -> None:
    site.queue.dice, site.queue.late = Random(7), timedelta(seconds=3)


def every_second_one_lost(site: Site) -> None:
    site.queue.loses = lambda task: task.n % 2 == 0


def refused(site: Site) -> None:
    site.queue.refuses = grpc.StatusCode.PERMISSION_DENIED


def deleted(site: Site) -> None:
    site.queue.refuses = grpc.StatusCode.NOT_FOUND


HINTS_ALONE = [as_it_should, twice, late_and_out_of_order]
WITH_SWEEPS = [every_second_one_lost, refused, deleted]


@pytest.fixture(params=[*HINTS_ALONE, *WITH_SWEEPS], ids=lambda mode: mode.__name__)
def world(request: pytest.FixtureRequest, serving: Open, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(transfer, "bank", Bank({"ann": 100_00, "bob": 0, "eve": 0}, closed=frozenset({"eve"})))
    site = serving(*EXAMPLES, store=f"sqlite:///{tmp_path / 'store.db'}", clock=clock)
    request.param(site)
    return World(site, clock, sweeps=request.param in WITH_SWEEPS)


def test_pizza(world: World) -> None:
    order = world.runner.start(PizzaOrder(customer="ann"), id="o-1")
    order.send(PizzaOrder.add, Pizza(name="Margherita"))
    assert order.send(PizzaOrder.submit) == Decimal("7.50")
    order.send(PizzaOrder.confirm)
    world.waits_for(order, "cooked")
    order.send(PizzaOrder.cooked)
    order.send(PizzaOrder.take)
    order.send(PizzaOrder.pay, Decimal("5.00"))
    order.send(PizzaOrder.deliver)
    order.send(PizzaOrder.pay, Decimal("2.50"))
    assert world.end(order).payments == [Decimal("5.00"), Decimal("2.50")]
    kitchen = [entry for entry in order.history() if entry["kind"] == "step"]
    assert len(kitchen) == 1


def test_a_pizza_nobody_orders(world: World) -> None:
    order = world.runner.start(PizzaOrder(), id="o-1")
    world.until(lambda: order.status is Status.Finished, step=timedelta(hours=1))
    assert order.output is None


def test_transfer(world: World) -> None:
    there = world.runner.start(Transfer(payer="ann", payee="bob", cents=30_00), id="bob")
    back = world.runner.start(Transfer(payer="ann", payee="eve", cents=30_00), id="eve")
    assert world.end(there).status == "arrived"
    assert world.end(back).status == "returned"
    assert transfer.bank.accounts == {"ann": 70_00, "bob": 30_00, "eve": 0}


def test_fan_out(world: World) -> None:
    survey = world.runner.start(Survey(sensors=fan_out.sensors(120)), id="s")
    report = world.end(survey)
    assert report.answered + len(report.offline) == 120
    attempts = [entry["path"] for entry in survey.history() if entry["kind"] in ("step", "failed")]
    assert len(attempts) == 120, "nobody was asked twice"


def test_approval(world: World) -> None:
    paper = world.runner.start(Approval(author="ann", title="Budget", line=["bob", "carol"]), id="a")
    world.until(lambda: paper.state.asked == 1, step=timedelta(hours=6))
    written = [text.partition(":")[0] for text in paper.state.sent]
    assert written == ["bob"] * 4 + ["carol"]
    paper.send(Approval.approve, caller="carol")
    assert world.end(paper).by == "carol"
