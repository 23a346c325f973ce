"""As it stands in production: Firestore behind, a queue that delivers over HTTP in front, and no worker anywhere.

The examples are those of tests/tasks on SQLite, in a smaller world; what is asked of store and queue is counted at the wire.
"""

from collections.abc import Callable
from datetime import timedelta

import pytest

from examples import fan_out, transfer
from examples.fan_out import Survey
from examples.transfer import Bank
from runner.work.sweeper import AGAIN
from tests.runner.clocks import Clock
from tests.servers.firestore import SERVER, firestore_url
from tests.tasks.conftest import Open, cloud_tasks, issuer, queue, serving
from tests.tasks.test_examples import (
    EXAMPLES,
    HINTS_ALONE,
    SECOND,
    WITH_SWEEPS,
    World,
    test_a_pizza_nobody_orders,
    test_approval,
    test_pizza,
    test_transfer,
)

__all__ = [
    "cloud_tasks", "firestore_url", "issuer", "queue", "serving", "test_a_pizza_nobody_orders", "test_approval", "test_pizza",
    "test_transfer",
]  # fmt: skip

pytestmark = SERVER


class PatientWorld(World):
    """The same, in which more time passes between two sweeps.

    Firestore does not move what it hands out, so a sweep wakes nobody whom another woke less than minutes ago: a task that
    it made and the queue lost costs that long.
    """

    def until(self, fits: Callable[[], bool], step: timedelta = SECOND, seconds: int = 200) -> None:
        super().until(fits, max(step, AGAIN) if self._sweeps else step, seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[*HINTS_ALONE, *WITH_SWEEPS], ids=lambda mode: mode.__name__)
def world(
    request: pytest.FixtureRequest, serving: Open, clock: Clock, firestore_url: str, monkeypatch: pytest.MonkeyPatch
) -> World:
    monkeypatch.setattr(transfer, "bank", Bank({"ann": 100_00, "bob": 0, "eve": 0}, closed=frozenset({"eve"})))
    site = serving(*EXAMPLES, store=firestore_url, clock=clock, history=True)
    request.param(site)
    return PatientWorld(site, clock, sweeps=request.param in WITH_SWEEPS)


def test_fan_out(world: World) -> None:
    survey = world.runner.start(Survey(sensors=fan_out.sensors(30)), id="s")
    report = world.end(survey)
    assert report.answered + len(report.offline) == 30
    attempts = [entry["path"] for entry in survey.history() if entry["kind"] in ("step", "failed")]
    assert len(attempts) == 30, "nobody was asked twice"
