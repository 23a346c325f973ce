"""Two Runners on one file: they share what is due, and neither keeps it from the other."""

import time

from asyncflow import Return, S, Section, Step, Workflow
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()
SOON = 15.0
"""Seconds: half of what `due` hands something out for, so that only word of it can have come before."""


class Job(Workflow):
    """A step at the gate."""

    done: int = 0

    async def work(self) -> None:
        await GATE.hold_async()
        self.done += 1

    def definition(self) -> Section[int]:
        return S(Step(self.work), Return(lambda: self.done))


def test_two_runners_share_what_is_due_and_run_each_once(opened: Open, working: Open, url: str, gate: Gate) -> None:
    starter = opened(Job, store=url)
    handles = [starter.start(Job()) for _ in range(40)]
    for _ in range(2):
        working(Job, store=url, concurrency=3)
    gate.wait(here=6)
    gate.open()
    assert [handle.result(PATIENCE) for handle in handles] == [1] * 40
    assert gate.came == 40
    assert gate.most == 6


def test_a_busy_runner_leaves_to_others_what_it_has_no_place_for(opened: Open, working: Open, url: str, gate: Gate) -> None:
    starter = opened(Job, store=url)
    for _ in range(100):
        starter.start(Job())
    busy = working(Job, store=url, concurrency=1)
    gate.wait(here=1)
    assert len(busy.store.held_by(busy.process)) < 20
    began = time.monotonic()
    working(Job, store=url, concurrency=30)
    gate.wait(here=31)
    assert time.monotonic() - began < SOON
    gate.open()


def test_a_runner_sees_and_runs_its_own_workflows_only(opened: Open, working: Open, url: str, gate: Gate) -> None:
    class Other(Job):
        """Given to nobody who works."""

    opened(Other, store=url).start(Other())
    mine = working(Job, store=url)
    mine.start(Job())
    gate.wait(here=1)
    assert mine.store.next_due(["Other"]) is not None
    assert len(list(mine.list(Job))) == 1
    gate.open()
    assert mine.wait_idle(PATIENCE)
    assert gate.came == 1
