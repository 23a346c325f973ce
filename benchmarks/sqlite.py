"""Durable steps on SQLite: one workflow at a time, many at once, a fan-out, starts in small and large files."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from asyncflow import ForEach, Return, S, Section, Step, Workflow
from pydantic import BaseModel
from runner import Runner

STEPS: Final = 10
"""Steps a workflow, as in the figures of the peers."""


class Ten(Workflow):
    """Ten durable steps in a row."""

    n: int = 0

    def step(self) -> None:
        self.n += 1

    def definition(self) -> Section[int]:
        return S(*(Step(f"step {number}", self.step) for number in range(STEPS)), Return(lambda: self.n))


class TenAsync(Workflow):
    """Ten durable async steps in a row."""

    n: int = 0

    async def step(self) -> None:
        self.n += 1

    def definition(self) -> Section[int]:
        return S(*(Step(f"step {number}", self.step) for number in range(STEPS)), Return(lambda: self.n))


class Item(BaseModel):
    """One of a thousand."""

    done: bool = False

    def finished(self, done: bool) -> None:  # noqa: FBT001
        self.done = done


class FanOut(Workflow):
    """A thousand `then` steps, twenty at once."""

    items: dict[str, Item]

    async def work(self, item: Item) -> bool:  # noqa: ARG002
        return True

    def one(self, item: Item) -> Step:
        return Step(self.work, item, then=item.finished)

    def definition(self) -> Section[int]:
        return S(ForEach("items", lambda: self.items, self.one, parallel=20), Return(lambda: len(self.items)))


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on the disk that is measured."""
    with tempfile.TemporaryDirectory(prefix="asyncflow-bench-", dir=Path.cwd()) as name:
        yield Path(name)


def raw_commits() -> float:
    """One-row commits a second of this disk (WAL, synchronous=FULL)."""
    import apsw  # noqa: PLC0415

    with folder() as where:
        connection = apsw.Connection(str(where / "raw.db"))
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT)"):
            connection.execute(statement).fetchall()
        connection.execute("INSERT INTO t VALUES (1, 'x')")
        text = "x" * 700
        count = 2000
        began = time.perf_counter()
        for number in range(count):
            connection.execute("UPDATE t SET x = ? WHERE id = 1", (f"{number}{text}",))
        return count / (time.perf_counter() - began)


def steps_per_second(at_once: int, workflows: int, kind: type[Ten] | type[TenAsync] = TenAsync) -> float:
    """Durable steps a second, with history on."""
    with folder() as where, Runner([Ten, TenAsync], store=f"sqlite:///{where}/bench.db", concurrency=max(at_once, 8)) as runner:

        def client(count: int) -> None:
            for _ in range(count):
                assert runner.start(kind()).result(timeout=60) == STEPS

        client(at_once)  # the first bodies, connections and threads
        began = time.perf_counter()
        if at_once == 1:
            client(workflows)
        else:
            with ThreadPoolExecutor(at_once) as clients:
                list(clients.map(client, [workflows // at_once] * at_once))
            workflows = workflows // at_once * at_once
        return workflows * STEPS / (time.perf_counter() - began)


def fan_out() -> tuple[int, float]:
    """Writes and milliseconds of a fan-out of 1,000 `then` steps, 20 at once."""
    with folder() as where, Runner([FanOut], store=f"sqlite:///{where}/fan.db") as runner:
        workflow = FanOut(items={f"i{number}": Item() for number in range(1000)})
        began = time.perf_counter()
        handle = runner.start(workflow)
        assert handle.result(timeout=120) == 1000
        elapsed = (time.perf_counter() - began) * 1000
        stored = runner.store.get("FanOut", handle.id)
        assert stored is not None
        return stored.record.rev, elapsed


def now() -> datetime:
    """The host's clock."""
    return datetime.now(UTC)


def median(values: list[float]) -> float:
    """The median of several runs."""
    return statistics.median(values)
