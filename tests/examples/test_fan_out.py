"""A thousand sensors, twenty at a time: a few writes, one failure does not stop the rest."""

import pytest

from asyncflow import Simulation, Status, TerminalError, simulate
from asyncflow.testing import Simulate, every_crash
from examples.fan_out import AT_ONCE, Offline, Report, Sensor, Survey, sensors


def test_a_thousand_sensors_are_asked_once_each_in_few_writes() -> None:
    sim = simulate(Survey(sensors=sensors(1000)), stubs={Survey.ask: lambda sensor: float(len(sensor.place))})
    assert sim.output is not None
    assert sim.output.answered == 1000
    assert sim.steps.count("ask") == 1000
    # One write for each twenty results, and those of the start.
    assert int(str(sim.document["rev"])) <= 1000 / AT_ONCE + 3


def test_those_offline_are_noted_and_the_rest_goes_on() -> None:
    sim = simulate(Survey(sensors=sensors(100)))
    assert sim.output is not None
    offline = [key for key, sensor in sensors(100).items() if sum(sensor.place.encode()) % 50 == 0]
    assert offline
    assert sim.output.offline == offline
    assert sim.output.answered == 100 - len(offline)
    assert sim.state.sensors[offline[0]].trouble == f"Offline: field {offline[0][1:]} does not answer"


def test_no_more_than_twenty_are_in_flight() -> None:
    sim = simulate(Survey(sensors=sensors(50)), hold={Survey.ask})
    assert len(sim.threads) == 1 + AT_ONCE
    sim.held(Survey.ask, thread="survey/s3").finish(3.5)
    assert "survey/s3" not in sim.threads
    assert len(sim.threads) == 1 + AT_ONCE


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_the_answers_does_not_matter(order: tuple[int, ...]) -> None:
    sim = simulate(Survey(sensors=sensors(3)), hold={Survey.ask})
    for number in order:
        run = sim.held(Survey.ask, thread=f"survey/s{number}")
        if number == 1:
            run.fail(Offline("field 1 does not answer"))
        else:
            run.finish(10.0 + number)
    assert sim.output == Report(answered=2, mean=11.0, offline=["s1"])


def test_an_error_that_nobody_expects_cancels_the_others() -> None:
    sim = simulate(Survey(sensors=sensors(3)), hold={Survey.ask})
    sim.held(Survey.ask, thread="survey/s1").fail(TerminalError("on fire"))
    sim.held(Survey.ask, thread="survey/s0").finish(1.0)
    sim.held(Survey.ask, thread="survey/s2").finish(2.0)
    assert sim.status is Status.Failed
    assert failed_with(sim) == "on fire"


def test_no_sensor_at_all() -> None:
    assert simulate(Survey(sensors={})).output == Report(answered=0, mean=None, offline=[])


def test_it_ends_the_same_whenever_the_process_dies() -> None:
    def survey(start: Simulate) -> dict[str, Sensor]:
        return start(Survey(sensors=sensors(45))).state.sensors

    asked = every_crash(survey)
    assert all(sensor.reading is not None or sensor.trouble for sensor in asked.values())


def failed_with(sim: Simulation[Survey]) -> str:
    assert sim.error is not None
    return sim.error.message
