"""The same over a Cloud Tasks emulator that is not ours: it checks what our own server would let pass."""

import secrets
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport
from werkzeug.serving import make_server

from examples.pizza import Pizza, PizzaOrder
from examples.transfer import Bank, Transfer
from runner import Runner
from runner.http.app import create_app
from tests.runner.gates import PATIENCE
from tests.servers.tasks_emulator import SERVER, VARIABLE, emulator
from tests.tasks.conftest import Quiet
from tests.tasks.workflows import Far, Row

pytestmark = SERVER
PARENT = "projects/demo/locations/here"


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> str:
    """A scheduler with two queues of this test's own."""
    host = emulator()
    monkeypatch.setenv(VARIABLE, host)
    names = [f"q{secrets.token_hex(4)}" for _ in range(2)]
    with grpc.insecure_channel(host) as channel:
        client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
        for name in names:
            client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=f"{PARENT}/queues/{name}"))
    return f"cloudtasks://demo/here/{','.join(names)}"


@pytest.fixture
def runner(scheduler: str, tmp_path: Path) -> Iterator[Runner]:
    apps: list[Any] = []

    def late(*request: Any) -> Any:
        return apps[0](*request)

    server = make_server("127.0.0.1", 0, late, threaded=True, request_handler=Quiet)
    runner = Runner(
        [PizzaOrder, Transfer, Row, Far],
        store=f"sqlite:///{tmp_path / 'store.db'}",
        scheduler=scheduler,
        base_url=f"http://127.0.0.1:{server.server_port}",
        hmac_keys=["k" * 32],
    )
    apps.append(create_app(runner))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield runner
    runner.drain(0)
    server.shutdown()
    thread.join()
    server.server_close()
    runner.close()


def test_examples_end(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = Bank({"ann": 100_00, "bob": 0, "eve": 0}, closed=frozenset({"eve"}))
    monkeypatch.setattr("examples.transfer.bank", bank)
    there = runner.start(Transfer(payer="ann", payee="bob", cents=30_00))
    back = runner.start(Transfer(payer="ann", payee="eve", cents=30_00))
    order = runner.start(PizzaOrder(customer="ann"), id="o-1")
    order.send(PizzaOrder.add, Pizza(name="Margherita"))
    order.send(PizzaOrder.submit)
    order.send(PizzaOrder.confirm)
    order.send(PizzaOrder.cooked, timeout=PATIENCE)
    order.send(PizzaOrder.take)
    order.send(PizzaOrder.pay, Decimal("7.50"))
    order.send(PizzaOrder.deliver)
    bill = order.result(PATIENCE)
    assert bill is not None
    assert bill.payments == [Decimal("7.50")]
    assert (there.result(PATIENCE).status, back.result(PATIENCE).status) == ("arrived", "returned")
    assert bank.accounts == {"ann": 70_00, "bob": 30_00, "eve": 0}


def test_a_timer_is_delivered_at_its_time_and_many_rows_on_two_queues(runner: Runner) -> None:
    far = runner.start(Far(at=runner.store.now() + timedelta(seconds=1)), id="far")
    rows = [runner.start(Row(), id=f"r{number}") for number in range(20)]
    for row in rows:
        row.send(Row.go, timeout=PATIENCE)
    assert [row.result(PATIENCE) for row in rows] == [["one", "two", "three"]] * 20
    assert far.result(PATIENCE) == "up"
