"""What the demo's processes run: the pizza order of `examples.pizza` with a kitchen that is slow enough to be killed in.

python -m examples.demo_orders STORE feed EVENTS.jsonl
python -m examples.demo_orders STORE many COUNT
"""

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from asyncflow import AlreadyExists
from examples.pizza import PizzaOrder
from runner import Handle, Runner

PATIENCE_SECONDS = 30
TICKET_SECONDS = 0.05
"""How long the kitchen's printer takes."""

_tickets = count(1)
"""It counts for the process, not for an order."""


class DemoOrder(PizzaOrder):
    """A pizza order whose kitchen counts its tickets."""

    tickets: int = 0

    def tell_kitchen(self) -> None:
        """Print a ticket; the process may be ended in the middle of it."""
        number = next(_tickets)
        time.sleep(TICKET_SECONDS)
        if number == int(os.environ.get("DEMO_KILL_AFTER", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        self.tickets += 1


def open_runner(store: Path) -> Runner:
    """The demo's Runner; with `with`, it works."""
    return Runner([DemoOrder], store=f"sqlite:///{store}", concurrency=16)


def order_of(runner: Runner, name: str) -> Handle[DemoOrder]:
    """Start an order, or find it where it stands."""
    try:
        return runner.start(DemoOrder(customer=name), id=name)
    except AlreadyExists:
        return runner.get(DemoOrder, name)


def feed(runner: Runner, name: str, events: list[dict[str, object]]) -> None:
    """Send every event with a key of its own: what has been handled already only gives its answer again."""
    order = order_of(runner, name)
    for number, line in enumerate(events):
        key = f"{name}-{number}"
        order.send(str(line["event"]), line.get("input"), idempotency_key=key, timeout=PATIENCE_SECONDS)
    order.result(timeout=PATIENCE_SECONDS)


def main() -> None:
    """Do what the command line says."""
    store, what, argument = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with open_runner(store) as runner:
        if what == "feed":
            events = [json.loads(line) for line in Path(argument).read_text().splitlines()]
            feed(runner, "o-1", events)
        else:
            events = [
                {"event": "add", "input": {"name": "Diavola"}},
                {"event": "submit"},
                {"event": "confirm"},
                {"event": "cooked"},
                {"event": "pay", "input": "9.00"},
                {"event": "take"},
                {"event": "deliver"},
            ]
            with ThreadPoolExecutor(8) as customers:
                list(customers.map(lambda number: feed(runner, f"o-{number}", events), range(int(argument))))


if __name__ == "__main__":
    main()
