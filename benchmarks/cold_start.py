"""From nothing to the first answer, as where a platform begins a process for a request: Firestore behind, a queue beside."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from typing import Final

from benchmarks.firestore import Cloud, cloud, is_there
from examples.demo import free_port
from examples.demo_orders import PATIENCE_SECONDS
from examples.pizza import PizzaOrder
from runner import Runner

ROUNDS: Final = 3
LOOK_SECONDS: Final = 0.005
"""Between two tries to reach the process: small beside what is measured, and no work that takes the machine from it."""


def cold_start_figures() -> dict[str, float]:
    """Give `cold_start_ms`: the median time from the start of the process to the answer to an event of a waiting order."""
    if not is_there():
        return {}
    with cloud() as there:
        return {"cold_start_ms": round(statistics.median(cold_start_ms(there, f"o-{number}") for number in range(ROUNDS)))}


def cold_start_ms(there: Cloud, id: str) -> float:
    """Measure once, with an order that another process has begun."""
    port = free_port()
    base_url = f"http://127.0.0.1:{port}"
    before = Runner([PizzaOrder], store=there.store, scheduler=there.scheduler, base_url=base_url)
    before.start(PizzaOrder(customer="ann"), id=id)
    before.close()
    command = [sys.executable, "-m", "runner.cli", "serve", "examples/pizza.py", "--port", str(port), "--insecure"]
    command += ["--store", there.store, "--scheduler", there.scheduler, "--base-url", base_url, "--log-level", "error"]
    began = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _add(server, port, id)
        return (time.perf_counter() - began) * 1000
    finally:
        server.terminate()
        server.wait()


def _add(server: subprocess.Popen[bytes], port: int, id: str) -> None:
    """Put a pizza into the cart, as soon as anybody listens."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not _is_added(port, id):
        assert server.poll() is None, "the server has ended"
        assert time.monotonic() < until, "nobody listens"
        time.sleep(LOOK_SECONDS)


def _is_added(port: int, id: str) -> bool:
    """Ask once; False where nobody listens yet."""
    body = json.dumps({"name": "Funghi"})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("POST", f"/workflows/PizzaOrder/{id}/events/add", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()
    assert answer.status == http.client.OK, (answer.status, text)
    return True
