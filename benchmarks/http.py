"""Events over HTTP to the saved answer: latency at 100 a second, and as many as go through."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.sqlite import folder
from examples.demo import free_port
from examples.demo_orders import PATIENCE_SECONDS

RATE: Final = 100
"""Events a second while the latency is measured."""
TIMED: Final = 500
CLIENTS: Final = 8
EACH: Final = 400
INSTANCES: Final = 64


@contextmanager
def shop(where: Path) -> Iterator[int]:
    """A served shop; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "runner.cli", "serve", "examples/demo_orders.py", "--port", str(port)]
    command += ["--store", f"sqlite:///{where}/http.db", "--log-level", "error"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == http.client.OK:
                    break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


class Customer:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)

    def post(self, path: str, body: object) -> None:
        """POST, and insist on success."""
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status in (http.client.OK, http.client.CREATED), (answer.status, text)

    def add(self, number: int) -> None:
        """Put a pizza into one of the carts, and take it out again now and then, so that carts stay small."""
        name = f"o-{number % INSTANCES}"
        if number // INSTANCES % 8 == 7:
            self.post(f"/workflows/DemoOrder/{name}/events/empty", None)
        else:
            self.post(f"/workflows/DemoOrder/{name}/events/add", {"name": "Funghi"})


def http_figures() -> dict[str, float]:
    """`http_event_p50_ms`, `http_event_p99_ms`, `http_events_per_s`."""
    with folder() as where, shop(where) as port:
        customer = Customer(port)
        for number in range(INSTANCES):
            customer.post(f"/workflows/DemoOrder?id=o-{number}", {})
            customer.add(number)
        times = []
        began = time.perf_counter()
        for number in range(TIMED):
            rest = began + number / RATE - time.perf_counter()
            if rest > 0:
                time.sleep(rest)
            sent = time.perf_counter()
            customer.add(number)
            times.append((time.perf_counter() - sent) * 1000)

        def many(client: int) -> None:
            own = Customer(port)
            for number in range(EACH):
                own.add(number * CLIENTS + client)

        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(many, range(CLIENTS)))
        elapsed = time.perf_counter() - began
    cuts = statistics.quantiles(times, n=100)
    return {
        "http_event_p50_ms": round(cuts[49], 2),
        "http_event_p99_ms": round(cuts[98], 2),
        "http_events_per_s": round(CLIENTS * EACH / elapsed),
    }
