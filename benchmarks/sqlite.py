"""Durable steps on SQLite: one workflow at a time, many at once, a fan-out, starts in small and large files."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from asyncflow import ForEach, Return, S, Section, Step, WaitFor, Workflow
from runner import Runner
from runner.stores.base import Write

ROUNDS: Final = 5
IDLE_SECONDS: Final = 5.0
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


class Waiting(Workflow):
    """Sleeps for a month."""

    def definition(self) -> Section[None]:
        return S(WaitFor("a month", timedelta(days=30)))


class Item(BaseModel):
    """One of a thousand."""

    done: bool = False

    def finished(self, done: bool) -> None:
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


def steps_per_second(at_once: int, workflows: int, kind: type[Ten | TenAsync] = TenAsync) -> float:
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


def step_figures() -> dict[str, float]:
    """Raw commits and durable steps, in turns, so that a busy disk hurts both; medians."""
    raw, one, many = [], [], []
    for _ in range(ROUNDS):
        raw.append(raw_commits())
        one.append(steps_per_second(1, 60))
        many.append(steps_per_second(32, 640))
    return {
        "sqlite_raw_commits_per_s": round(median(raw)),
        "sqlite_steps_per_s_1": round(median(one)),
        "sqlite_steps_per_s_32": round(median(many)),
        "sqlite_sync_steps_per_s_32": round(steps_per_second(32, 640, Ten)),
        "sqlite_steps_1_of_raw": round(median([steps / commits for steps, commits in zip(one, raw, strict=True)]), 3),
    }


def fan_out_figures() -> dict[str, float]:
    """A fan-out of 1,000 `then` steps, 20 at once."""
    runs = [fan_out() for _ in range(ROUNDS)]
    return {
        "fan_out_1000_writes": runs[0][0],
        "fan_out_1000_ms": round(median([elapsed for _, elapsed in runs])),
    }


def idle_figures() -> dict[str, float]:
    """What an idle worker takes of one core, in percent, with an instance that waits for a timer."""
    with folder() as where, Runner([Waiting], store=f"sqlite:///{where}/idle.db") as runner:
        runner.start(Waiting())
        runner.wait_idle()
        began, cpu = time.perf_counter(), time.process_time()
        time.sleep(IDLE_SECONDS)
        return {"idle_cpu_percent": round((time.process_time() - cpu) / (time.perf_counter() - began) * 100, 3)}


def start_figures() -> dict[str, float]:
    """Milliseconds of a start among a thousand and among a million stored instances."""
    return {"start_ms_1k": start_among(1_000), "start_ms_1m": start_among(1_000_000)}


def start_among(count: int) -> float:
    """The median of starts in a file that holds *count* instances asleep."""
    with folder() as where:
        url = f"sqlite:///{where}/many.db"
        runner = Runner([Waiting], store=url)
        try:
            first = runner.start(Waiting(), id="first")
            stored = runner.store.get("Waiting", first.id)
            assert stored is not None
            for begin in range(0, count, 5_000):
                copies = [
                    Write(replace(stored.record, id=f"i{number}", uid=f"u{number}"), None)
                    for number in range(begin, min(begin + 5_000, count))
                ]
                runner.store.commit(copies)
            times = []
            for _ in range(200):
                began = time.perf_counter()
                runner.start(Waiting())
                times.append((time.perf_counter() - began) * 1000)
            return round(median(times), 3)
        finally:
            runner.close()


def restart_figures() -> dict[str, float]:
    """Milliseconds from the start of a process to the step that its killed predecessor was in."""
    with folder() as where:
        command = [sys.executable, "-m", "benchmarks.restart", str(where / "restart.db"), str(where / "marks")]
        marks = where / "marks"
        first = subprocess.Popen(command)
        while not marks.exists() or not marks.read_text():
            time.sleep(0.01)
        first.kill()
        first.wait()
        began = time.time()
        second = subprocess.Popen(command)
        while marks.read_text().count("\n") < 2:
            time.sleep(0.005)
        again = float(marks.read_text().splitlines()[1])
        second.kill()
        second.wait()
        return {"restart_ms": round((again - began) * 1000)}


def median(values: list[float]) -> float:
    """The median of several runs."""
    return statistics.median(values)
