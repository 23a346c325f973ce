"""A pizza order: a cart that lives for a day, a kitchen, a courier, and a payment that may come at any time.

What to notice:

- Nothing runs while the order waits. A cart that is left alone for 24 hours ends by itself (`After`); each change of
  the cart begins a new day, because the loop enters the `Select` anew.
- `Go` begins a second thread, so the payment may come before the delivery or after it. `Join` waits for it at the end.
- A handler refuses by raising `Rejected`: the caller gets the text, and nothing has changed.

    python -m examples.pizza
"""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import BaseModel, PositiveInt

from asyncflow import (
    After,
    For,
    Go,
    Join,
    On,
    Rejected,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    Workflow,
    event,
    query,
)
from runner import Runner

PRICES = {"Margherita": Decimal("7.50"), "Funghi": Decimal("8.50"), "Diavola": Decimal("9.00")}
CART_LIFETIME = timedelta(hours=24)


class Pizza(BaseModel):
    name: str
    count: PositiveInt = 1


class Bill(BaseModel):
    """What a finished order comes to."""

    total: Decimal
    payments: list[Decimal]


class PizzaOrder(Workflow, labels=("customer",)):
    """One customer's order, from an empty cart to a warm pizza at the door."""

    customer: str = "guest"
    stage: Literal["shopping", "submitted", "confirmed", "cooked", "on the way", "delivered"] = "shopping"
    cart: list[Pizza] = []
    payments: list[Decimal] = []

    @event
    def add(self, pizza: Pizza) -> list[Pizza]:
        """Put a pizza into the cart."""
        if pizza.name not in PRICES:
            raise Rejected(f"there is no {pizza.name} on the menu", details={"menu": list(PRICES)})
        self.cart.append(pizza)
        return self.cart

    @event
    def empty(self) -> None:
        """Take everything out of the cart."""
        self.cart = []

    @event
    def submit(self) -> Decimal:
        """Order what is in the cart; the answer is what it costs."""
        if not self.cart:
            raise Rejected("the cart is empty")
        self.stage = "submitted"
        return self.total()

    @event(role="manager")
    def confirm(self) -> None:
        """The restaurant takes the order."""
        self.stage = "confirmed"

    @event(role="cashier")
    def pay(self, amount: Decimal) -> Decimal:
        """Pay some or all of it; the answer is what is still owed."""
        if not 0 < amount <= self.owed():
            raise Rejected(f"{amount} cannot be paid: {self.owed()} is owed", code=422)
        self.payments.append(amount)
        return self.owed()

    @event(role="cook")
    def cooked(self) -> None:
        self.stage = "cooked"

    @event(role="courier")
    def take(self) -> None:
        self.stage = "on the way"

    @event(role="courier")
    def deliver(self) -> None:
        self.stage = "delivered"

    @query
    def total(self) -> Decimal:
        """What the cart costs."""
        return sum((PRICES[pizza.name] * pizza.count for pizza in self.cart), Decimal(0))

    @query
    def owed(self) -> Decimal:
        """What has not been paid yet."""
        return self.total() - sum(self.payments, Decimal(0))

    def tell_kitchen(self) -> None:
        """The one side effect: print a ticket. A real kitchen would be handed the idempotency key with it."""
        print(f"kitchen, ticket {self.context.idempotency_key}: {[(pizza.count, pizza.name) for pizza in self.cart]}")

    def bill(self) -> Bill:
        return Bill(total=self.total(), payments=self.payments)

    def definition(self) -> Section[Bill | None]:
        return S(
            For(
                "shopping",
                lambda: self.stage == "shopping",
                Select(
                    "cart",
                    On(self.add),
                    On(self.empty),
                    On(self.submit),
                    After(CART_LIFETIME, Return(None)),
                ),
            ),
            WaitEvent(self.confirm),
            Go("payment", For("open", lambda: self.owed() > 0, WaitEvent(self.pay))),
            Step(self.tell_kitchen, retry=Retry(max_attempts=5)),
            WaitEvent(self.cooked),
            WaitEvent(self.take),
            WaitEvent(self.deliver),
            Join("payment"),
            Return(self.bill),
        )


def main() -> None:
    """Take one order from the cart to the door, on a SQLite file."""
    with (
        TemporaryDirectory() as folder,
        Runner([PizzaOrder], store=f"sqlite:///{Path(folder) / 'pizza.db'}") as runner,
    ):
        order = runner.start(PizzaOrder(customer="ann"), id="o-1")
        try:
            order.send(PizzaOrder.submit)
        except Rejected as refusal:
            print("refused:", refusal)
        order.send(PizzaOrder.add, Pizza(name="Funghi", count=2))
        order.send(PizzaOrder.empty)
        order.send(PizzaOrder.add, Pizza(name="Margherita"))
        print("to pay:", order.send(PizzaOrder.submit))
        order.send(PizzaOrder.confirm)
        print("threads:", order.threads)
        order.send(PizzaOrder.cooked)
        order.send(PizzaOrder.take)
        print("still owed:", order.send(PizzaOrder.pay, Decimal("5.00")))
        order.send(PizzaOrder.deliver)
        print("status at the door:", order.status, "- it waits for", order.waiting)
        order.send(PizzaOrder.pay, Decimal("2.50"))
        print("bill:", order.result(timeout=5))


if __name__ == "__main__":
    main()
