"""A thousand sensors are asked for a reading, twenty at a time; those that do not answer are noted.

What to notice:

- `ForEach(…, parallel=20)` begins a thread for each item and keeps twenty of them in flight: `survey/s17` is one.
- The step has `then=`: it works on a copy and only its result changes the state, so that twenty run beside each other.
  A plain step would have the instance for itself, and they would run one after the other.
- An item is live state: `sensor.answered` and `sensor.missed` change the very sensor that the thread is about.
- The error of one item meets the `Try` in its body. Without it, it would cancel all others.
- Results that are ready together go into one save: the history shows far more steps than the document had saves.

    python -m examples.fan_out
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from pydantic import BaseModel

from asyncflow import Failure, ForEach, Return, S, Section, Step, TerminalError, Try, Workflow, query
from runner import Runner

AT_ONCE = 20


class Offline(TerminalError):
    """No second try helps: a `TerminalError` goes into the tree at once."""


class Sensor(BaseModel):
    place: str
    reading: float | None = None
    trouble: str = ""

    def answered(self, reading: float) -> None:
        self.reading = reading

    def missed(self, failure: Failure) -> None:
        self.trouble = f"{failure.type}: {failure.message}"


class Report(BaseModel):
    """What the survey found: how many answered, their mean, and the keys of the others."""

    answered: int
    mean: float | None
    offline: list[str]


class Survey(Workflow):
    """Ask every sensor once."""

    sensors: dict[str, Sensor]

    async def ask(self, sensor: Sensor) -> float:
        """Stand for a request to the sensor: a little waiting, and an answer that depends on the place alone."""
        await asyncio.sleep(0.001)
        number = sum(sensor.place.encode())
        if number % 50 == 0:
            raise Offline(f"{sensor.place} does not answer")
        return 15 + number % 10

    @query
    def report(self) -> Report:
        readings = [sensor.reading for sensor in self.sensors.values() if sensor.reading is not None]
        return Report(
            answered=len(readings),
            mean=round(sum(readings) / len(readings), 2) if readings else None,
            offline=[key for key, sensor in self.sensors.items() if sensor.trouble],
        )

    def one(self, sensor: Sensor) -> Section:
        return S(Try(Step(self.ask, sensor, then=sensor.answered)).Except(Offline, sensor.missed))

    def definition(self) -> Section[Report]:
        return S(
            ForEach("survey", lambda: self.sensors, self.one, parallel=AT_ONCE),
            Return(self.report),
        )


def sensors(count: int) -> dict[str, Sensor]:
    """Make so many sensors: `s0`, `s1` and so on."""
    return {f"s{number}": Sensor(place=f"field {number}") for number in range(count)}


def main() -> None:
    """Ask a thousand sensors, on a SQLite file."""
    with (
        TemporaryDirectory() as folder,
        Runner([Survey], store=f"sqlite:///{Path(folder) / 'survey.db'}") as runner,
    ):
        began = perf_counter()
        survey = runner.start(Survey(sensors=sensors(1000)), id="field-day")
        report = survey.result(timeout=60)
        print(f"{report.answered} answered, mean {report.mean}, {len(report.offline)} offline, e.g. {report.offline[:3]}")
        seconds = perf_counter() - began
        ended = [entry["at"] for entry in survey.history() if entry["kind"] in ("step", "failed")]
        print(f"{len(ended)} steps ended in {len(set(ended))} saves, {seconds:.1f} s in all")


if __name__ == "__main__":
    main()
