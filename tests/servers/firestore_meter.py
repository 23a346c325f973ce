"""What a Firestore store is asked for, counted at its client, and a workflow to count by."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Any, Final
from unittest.mock import patch

import pytest

from asyncflow import After, For, On, S, Section, Select, Step, Workflow, event
from runner.stores import firestore_calls

DAY: Final = timedelta(days=1)


class Cart(Workflow):
    """Waits for a day after each event, and makes as many steps as one asked for; the end of a day asks for two."""

    added: int = 0
    left: int = 0
    done: int = 0

    @event
    def add(self) -> int:
        self.added += 1
        return self.added

    @event
    def work(self, steps: int) -> None:
        self.left = steps

    def step(self) -> None:
        self.left -= 1
        self.done += 1

    def timed(self) -> None:
        self.left = 2

    def definition(self) -> Section[None]:
        return S(
            For(
                "ever",
                True,
                Select("next", On(self.add), On(self.work), After(DAY, self.timed)),
                For("steps", lambda: self.left > 0, Step(self.step)),
            )
        )


@dataclass
class Cost:
    """Documents read and written, commits that met another document, queries."""

    reads: int = 0
    writes: int = 0
    lost: int = 0
    queries: int = 0


class Meter:
    """A client that counts."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock = Lock()
        self.cost = Cost()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def commit(self, **arguments: Any) -> Any:
        try:
            answer = self._client.commit(**arguments)
        except Exception:
            with self._lock:
                self.cost.lost += 1
            raise
        with self._lock:
            self.cost.writes += len(answer.write_results)
        return answer

    def batch_get_documents(self, **arguments: Any) -> Any:
        for answer in self._client.batch_get_documents(**arguments):
            with self._lock:
                self.cost.reads += 1
            yield answer

    def run_query(self, **arguments: Any) -> Any:
        yield from self._client.run_query(**arguments)
        with self._lock:
            self.cost.queries += 1


@contextmanager
def metered() -> Iterator[list[Meter]]:
    """Count at the clients that are opened meanwhile, and give them."""
    opened: list[Meter] = []
    open_client = firestore_calls.open_client

    def counting(url: Any) -> Meter:
        opened.append(Meter(open_client(url)))
        return opened[-1]

    with patch.object(firestore_calls, "open_client", counting):
        yield opened


@pytest.fixture
def meters() -> Iterator[list[Meter]]:
    """The clients that are opened in this test."""
    with metered() as opened:
        yield opened
