"""Who is told that something is due: a worker that looks before that instant anyway is left in peace."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from asyncflow import S, Section, Select, WaitFor, Workflow, event
from asyncflow.cases import After, On
from runner import Runner
from runner.work.worker import Worker

PAUSE = threading.Event()
"""Never set: what a test waits by between two looks at the worker."""


class Alarm(Workflow):
    """Rings in an hour, or when somebody asks."""

    rung: int = 0

    @event
    def ring(self) -> None:
        self.rung += 1

    def definition(self) -> Section[None]:
        return S(Select("asleep", On(self.ring), After(timedelta(hours=1))), WaitFor("a moment", timedelta(milliseconds=50)))


def at_rest(runner: Runner) -> Worker:
    """Its worker, once it has found out when to look next."""
    worker = runner._worker
    assert worker is not None
    while worker._looks_at is None:
        PAUSE.wait(0.002)
    return worker


def test_what_is_due_after_the_next_look_wakes_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runner([Alarm], store=f"sqlite:///{tmp_path}/alarm.db") as runner:
        monkeypatch.setattr(runner.store, "changed", lambda: 0)  # its poll would make it look anew at a moment of its own
        worker, nudges = at_rest(runner), 0
        nudge = worker._nudge.set

        def count() -> None:
            nonlocal nudges
            nudges += 1
            nudge()

        monkeypatch.setattr(worker._nudge, "set", count)
        alarm = runner.start(Alarm())
        assert nudges == 0, "an hour is longer than until the next sweep"
        alarm.send(Alarm.ring)
        alarm.result(timeout=30)
        assert nudges > 0, "the moment is shorter"


def test_a_look_that_is_being_made_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved between the question and the rest is told, so the worker asks again."""
    with Runner([Alarm], store=f"sqlite:///{tmp_path}/alarm.db") as runner:
        at_rest(runner)
        asking, go, store = threading.Event(), threading.Event(), runner.store
        next_due = store.next_due

        def slow(workflows: list[str]) -> object:
            found = next_due(workflows)
            asking.set()
            go.wait(30)
            return found

        monkeypatch.setattr(store, "next_due", slow)
        runner.start(Alarm(), id="first").send(Alarm.ring)
        assert asking.wait(30)
        alarm = runner.start(Alarm(), id="second")
        alarm.send(Alarm.ring)
        go.set()
        alarm.result(timeout=30)
