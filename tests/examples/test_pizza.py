"""A pizza order ends well in every order of payment and delivery, and not at all when the cart is forgotten."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import permutations

import pytest

from asyncflow import NotAwaited, Pending, Rejected, Simulation, Status, simulate
from asyncflow.testing import Simulate, every_crash
from examples.pizza import CART_LIFETIME, Bill, Pizza, PizzaOrder

BILL = Bill(total=Decimal("8.50"), payments=[Decimal(5), Decimal("3.50")])


def confirmed(start: Callable[..., Simulation[PizzaOrder]] = simulate) -> Simulation[PizzaOrder]:
    sim = start(PizzaOrder(customer="ann"))
    sim.send(PizzaOrder.add, Pizza(name="Funghi"))
    assert sim.send(PizzaOrder.submit) == Decimal("8.50")
    sim.send(PizzaOrder.confirm)
    return sim


def test_an_order_goes_from_the_cart_to_the_door() -> None:
    sim = simulate(PizzaOrder())
    assert sim.waiting == {"add", "empty", "submit"}
    sim.send(PizzaOrder.add, Pizza(name="Funghi", count=2))
    sim.send(PizzaOrder.empty)
    assert sim.send(PizzaOrder.add, Pizza(name="Margherita")) == [Pizza(name="Margherita")]
    assert sim.query(PizzaOrder.total) == Decimal("7.50")
    sim.send(PizzaOrder.submit)
    assert sim.steps == []
    sim.send(PizzaOrder.confirm)
    assert sim.steps == ["tell_kitchen"]
    assert sim.threads == {"main": "cooked", "payment": "payment/open/pay"}


# The payment comes in two parts; each may come before, between or after what the restaurant does.
ORDERS = sorted({order for order in permutations(["pay 5.00", "pay 3.50", "cooked", "take", "deliver"])
                 if [e for e in order if e[:3] != "pay"] == ["cooked", "take", "deliver"]
                 and [e for e in order if e[:3] == "pay"] == ["pay 5.00", "pay 3.50"]})  # fmt: skip


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_payment_and_delivery_may_come_in_any_order(order: tuple[str, ...]) -> None:
    sim = confirmed()
    for event in order:
        assert sim.status is Status.Running
        name, _, amount = event.partition(" ")
        sim.send(name, amount or None)
    assert sim.output == BILL
    assert sim.steps == ["tell_kitchen"]


def test_a_forgotten_cart_ends_a_day_after_its_last_change() -> None:
    sim = simulate(PizzaOrder())
    sim.advance(timedelta(hours=20))
    sim.send(PizzaOrder.add, Pizza(name="Diavola"))
    sim.advance(CART_LIFETIME - timedelta(seconds=1))
    assert sim.status is Status.Running
    sim.advance(timedelta(seconds=1))
    assert (sim.status, sim.output) == (Status.Finished, None)


def test_a_submitted_order_has_no_time_limit() -> None:
    sim = confirmed()
    sim.advance(timedelta(days=365))
    assert sim.waiting == {"cooked", "pay"}


@pytest.mark.parametrize("send, code", [
    (lambda sim: sim.send(PizzaOrder.submit), 409),
    (lambda sim: sim.send(PizzaOrder.add, Pizza(name="Hawaii")), 409),
])  # fmt: skip
def test_a_refused_event_changes_nothing(send: Callable[[Simulation[PizzaOrder]], object], code: int) -> None:
    sim = simulate(PizzaOrder())
    before = sim.document
    with pytest.raises(Rejected) as refused:
        send(sim)
    assert refused.value.code == code
    assert sim.document == before


@pytest.mark.parametrize("amount", [Decimal(0), Decimal(-1), Decimal("8.51")])
def test_nobody_pays_too_much_or_nothing(amount: Decimal) -> None:
    sim = confirmed()
    with pytest.raises(Rejected, match=r"8\.50 is owed"):
        sim.send(PizzaOrder.pay, amount)


def test_the_courier_cannot_take_what_is_not_cooked() -> None:
    with pytest.raises(NotAwaited) as refused:
        confirmed().send(PizzaOrder.take)
    assert {awaited.event for awaited in refused.value.awaits} == {"cooked", "pay"}


def test_a_payment_that_comes_while_the_kitchen_is_told_is_not_lost() -> None:
    sim = simulate(PizzaOrder(), hold={PizzaOrder.tell_kitchen})
    sim.send(PizzaOrder.add, Pizza(name="Funghi"))
    sim.send(PizzaOrder.submit)
    sim.send(PizzaOrder.confirm)
    with pytest.raises(Pending):
        sim.send(PizzaOrder.pay, Decimal(5), idempotency_key="p-1")
    sim.held(PizzaOrder.tell_kitchen).finish()
    assert sim.send(PizzaOrder.pay, Decimal(5), idempotency_key="p-1") == Decimal("3.50")
    assert sim.state.payments == [Decimal(5)]


def test_it_ends_the_same_whenever_the_process_dies() -> None:
    def whole(start: Simulate) -> tuple[Bill | None, list[Decimal]]:
        sim = confirmed(start)
        sim.send(PizzaOrder.cooked)
        sim.send(PizzaOrder.pay, Decimal(5))
        sim.send(PizzaOrder.take)
        sim.send(PizzaOrder.deliver)
        sim.send(PizzaOrder.pay, Decimal("3.50"))
        return sim.output, sim.state.payments

    assert every_crash(whole) == (BILL, BILL.payments)
