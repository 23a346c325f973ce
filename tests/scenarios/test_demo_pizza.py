"""The pizza demo: a cart, a day to decide, a payment at any time, a kitchen."""

from datetime import timedelta
from decimal import Decimal
from typing import Literal

import pytest
from pydantic import BaseModel, PositiveInt

from asyncflow import (
    After,
    For,
    Go,
    NotAwaited,
    On,
    Rejected,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitUntil,
    event,
)
from tests.scenarios.drivers import Drive, Instance, scenario
from tests.scenarios.traced import Traced

HOUR = timedelta(hours=1)


class Pizza(BaseModel):
    name: str
    quantity: PositiveInt = 1


class PizzaDemo(Traced):
    stage: Literal["shopping", "submitted", "completed"] = "shopping"
    cart: list[Pizza] = []
    paid: Decimal = Decimal(0)

    @event
    def add_to_cart(self, pizza: Pizza) -> list[Pizza]:
        self.cart.append(pizza)
        return self.cart

    @event
    def empty_cart(self) -> None:
        self.cart = []

    @event
    def submit_cart(self) -> None:
        if not self.cart:
            raise Rejected("the cart is empty")
        self.stage = "submitted"

    @event
    def confirm_payment(self, amount: Decimal) -> None:
        self.paid += amount

    def complete(self) -> None:
        self.stage = "completed"

    def definition(self) -> Section[Decimal | None]:
        return S(
            Step("setup", self.mark, "setup"),
            For(
                "shopping",
                lambda: self.stage == "shopping",
                Select(
                    "customer decides",
                    On(self.add_to_cart),
                    On(self.empty_cart),
                    On(self.submit_cart),
                    After(timedelta(hours=24), Return(None)),
                ),
            ),
            WaitEvent("confirm_order"),
            Go("customer pays", WaitEvent(self.confirm_payment)),
            WaitEvent("start_cooking"),
            WaitEvent("cooked"),
            WaitEvent("take_for_delivery"),
            WaitEvent("delivered"),
            WaitUntil("paid", lambda: self.paid > 0, self.complete),
            Return(lambda: self.paid),
        )


def order_two_pizzas(drive: Drive) -> Instance[PizzaDemo]:
    run = drive.start(PizzaDemo())
    run.send(PizzaDemo.add_to_cart, Pizza(name="Margherita"))
    assert [pizza.name for pizza in run.send(PizzaDemo.add_to_cart, Pizza(name="Funghi"))] == ["Margherita", "Funghi"]
    run.send(PizzaDemo.empty_cart)
    with pytest.raises(Rejected, match="empty"):
        run.send(PizzaDemo.submit_cart)
    run.send(PizzaDemo.add_to_cart, Pizza(name="Diavola", quantity=2))
    with pytest.raises(NotAwaited):
        run.send("cooked")
    run.send(PizzaDemo.submit_cart)
    run.send("confirm_order")
    assert run.threads == {"main": "start_cooking", "customer pays": "customer pays/confirm_payment"}
    return run


def deliver(run: Instance[PizzaDemo]) -> None:
    for name in ("start_cooking", "cooked", "take_for_delivery", "delivered"):
        run.send(name)


@scenario()
def test_pizza_paid_before_the_delivery(drive: Drive) -> None:
    run = order_two_pizzas(drive)
    run.send(PizzaDemo.confirm_payment, Decimal("9.50"))
    assert run.threads == {"main": "start_cooking"}
    deliver(run)
    assert run.state.stage == "completed"
    assert run.output == Decimal("9.50")


@scenario()
def test_pizza_paid_after_the_delivery(drive: Drive) -> None:
    run = order_two_pizzas(drive)
    deliver(run)
    assert run.status == "Running"
    assert run.threads == {"main": "paid", "customer pays": "customer pays/confirm_payment"}
    run.send(PizzaDemo.confirm_payment, Decimal("9.50"))
    assert run.state.stage == "completed"
    assert run.output == Decimal("9.50")


@scenario()
def test_pizza_cart_is_given_up_a_day_after_the_last_change(drive: Drive) -> None:
    run = drive.start(PizzaDemo())
    drive.advance(20 * HOUR)
    run.send(PizzaDemo.add_to_cart, Pizza(name="Margherita"))
    drive.advance(23 * HOUR)
    assert run.status == "Running"
    drive.advance(HOUR)
    assert run.status == "Finished"
    assert run.output is None
    assert run.state.stage == "shopping"
